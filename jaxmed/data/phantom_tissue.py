"""The breast around the lesion: skin, subcutaneous fat with ligaments, glandular tissue, muscle, as an echo map in dB."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from jaxmed.data.phantom_scan import OVERSAMPLE

FAT, GLAND, MUSCLE, SKIN = -15.0, -3.0, -13.0, 2.0  # mean echo level, dB
REFLECTOR = 10.0  # dB that a ligament or fascia stands above its surroundings


@dataclass(frozen=True)
class Breast:
    """Depths in mm of the tissue borders at the middle of the picture, and how strongly they wander."""

    skin: float
    fat: float
    gland: float
    waviness: float
    streaks: float  # dB of the glandular pattern
    ligaments: float  # 0..1


def sample_breast(rng: np.random.Generator, depth: float) -> Breast:
    """One woman's breast under a field of view of `depth` mm; from fatty to dense."""
    fat = rng.uniform(0.12, 0.36) * depth
    return Breast(
        skin=rng.uniform(1.2, 2.2),
        fat=fat,
        gland=fat + rng.uniform(0.22, 0.5) * depth,
        waviness=rng.uniform(0.5, 2.2),
        streaks=rng.uniform(2.0, 5.0),
        ligaments=rng.uniform(0.3, 1.0),
    )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """A random field of about unit variance with `cells` independent values along each axis."""
    coarse = rng.standard_normal((cells[0] + 2, cells[1] + 2), dtype=np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(1.25)


def tissue_map(breast: Breast, size: int, pixel: float, rng: np.random.Generator) -> Float[np.ndarray, "rows size"]:
    """Echo level in dB without any lesion, OVERSAMPLE rows per pixel."""
    shape = (size * OVERSAMPLE, size)
    z = (np.arange(shape[0], dtype=np.float32) * (pixel / OVERSAMPLE))[:, None]
    wander = smooth_noise(rng, (3, size), (1, 4)) * breast.waviness
    tilt = rng.normal(0, 1.5) * np.linspace(-1, 1, size, dtype=np.float32)
    fat_border = breast.fat + wander[0] + tilt
    gland_border = breast.gland + wander[1] + tilt
    in_gland = _step(z - fat_border, 0.4) * _step(gland_border - z, 0.4)
    in_muscle = _step(z - gland_border, 0.4)
    echo = FAT + (GLAND - FAT) * in_gland + (MUSCLE - FAT) * in_muscle
    echo += in_gland * _gland_pattern(breast, shape, rng) + in_muscle * _muscle_pattern(shape, rng)
    echo += (1 - in_gland) * smooth_noise(rng, shape, (8, 5)) * 1.5
    echo += REFLECTOR * breast.ligaments * _ligaments(shape, rng) * _step(z - breast.skin, 0.3)
    for border in (fat_border, gland_border):
        strength = 0.7 + 0.5 * smooth_noise(rng, (1, size), (1, 6))
        echo += REFLECTOR * np.clip(strength, 0, 1.4) * np.exp(-0.5 * ((z - border) / 0.3) ** 2)
    return _add_skin(echo, z, breast, size, rng)


def _step(distance: np.ndarray, width: float) -> np.ndarray:
    return np.clip(distance / (2 * width) + 0.5, 0, 1)


def _ridges(field: np.ndarray, width: float) -> np.ndarray:
    """Thin curved lines where a smooth field crosses zero."""
    return np.exp(-0.5 * (field / width) ** 2)


def _ligaments(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    lines = _ridges(smooth_noise(rng, shape, (7, 4)), 0.10)
    return lines * np.clip(smooth_noise(rng, shape, (5, 5)) + 0.3, 0, 1)


def _gland_pattern(breast: Breast, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    streaks = smooth_noise(rng, shape, (34, 8)) + 0.7 * smooth_noise(rng, shape, (14, 6))
    lobules = np.clip(smooth_noise(rng, shape, (6, 5)) - 0.8, 0, None) * -8  # fat lobules between the glands
    return breast.streaks * streaks + lobules


def _muscle_pattern(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    fibres = _ridges(smooth_noise(rng, shape, (22, 3)), 0.25)
    return 7 * fibres * np.clip(smooth_noise(rng, shape, (6, 4)) + 0.5, 0, 1.5)


def _add_skin(echo: np.ndarray, z: np.ndarray, breast: Breast, size: int, rng: np.random.Generator) -> np.ndarray:
    thickness = breast.skin + 0.15 * smooth_noise(rng, (1, size), (1, 3))
    inside = _step(thickness - z, 0.1)
    echo = echo + (SKIN - echo) * inside
    return echo + REFLECTOR * np.exp(-0.5 * ((z - thickness) / 0.2) ** 2)
