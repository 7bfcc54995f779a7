"""The breast around the lesion: skin, fat with ligaments, glandular tissue, muscle.

Two maps: the level of diffuse scattering in dB (one value per pixel), and thin interfaces that reflect like mirrors
(OVERSAMPLE rows per pixel; one sample thick, so that lines across the beam are bright and steep ones fade, as in life).
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from jaxmed.data.phantom_scan import DB, OVERSAMPLE

FAT, GLAND, MUSCLE, SKIN = -17.0, -6.0, -17.0, -4.0  # mean level of diffuse scattering, dB


@dataclass(frozen=True)
class Breast:
    """One woman's breast: depths of the tissue borders in mm, and strengths of its patterns."""

    density: float  # share of samples that hold a scatterer; below about 0.4 speckle is not fully developed
    skin: float
    fat: float
    gland: float
    waviness: float  # mm
    streaks: float  # dB, glandular pattern
    ligaments: float  # reflecting amplitude of ligaments
    fasciae: float  # reflecting amplitude of the borders and of muscle fibres
    uneven: float  # dB/mm, how much attenuation differs between neighbouring lines


def sample_breast(rng: np.random.Generator, depth: float) -> Breast:
    """A breast under a field of view of `depth` mm; from fatty to dense."""
    fat = rng.uniform(0.14, 0.36) * depth
    return Breast(
        density=rng.uniform(0.2, 1.0),
        skin=rng.uniform(1.0, 1.8),
        fat=fat,
        gland=fat + rng.uniform(0.22, 0.45) * depth,
        waviness=rng.uniform(0.4, 1.6),
        streaks=rng.uniform(2.5, 5.0),
        ligaments=rng.uniform(0.2, 1.0),
        fasciae=rng.uniform(0.3, 1.0),
        uneven=rng.uniform(0.02, 0.12),
    )


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """A random field of about unit variance with `cells` independent values along each axis."""
    coarse = rng.standard_normal((cells[0] + 1, cells[1] + 1), dtype=np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC) * np.float32(1.2)


def tissue_maps(
    breast: Breast, size: int, pixel: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "size size"], Float[np.ndarray, "samples size"]]:
    """Diffuse level in dB and reflecting amplitude, without a lesion."""
    shape, fine = (size, size), (size * OVERSAMPLE, size)
    z = ((np.arange(size, dtype=np.float32) + 0.5) * pixel)[:, None]
    z_fine = ((np.arange(fine[0], dtype=np.float32) + 0.5) * (pixel / OVERSAMPLE))[:, None]
    tilt = np.linspace(-1, 1, size, dtype=np.float32) * rng.normal(0, 1.2)
    sag = smooth_noise(rng, (3, size), (1, 3)) * np.float32(breast.waviness)
    skin = np.float32(breast.skin) + 0.1 * sag[2]
    fat, gland = breast.fat + tilt + sag[0], breast.gland + tilt + sag[1]
    in_gland = step(z - fat, 0.5) * step(gland - z, 0.5)
    in_muscle = step(z - gland, 0.5)
    level = FAT + (GLAND - FAT) * in_gland + (MUSCLE - FAT) * in_muscle
    level += in_gland * _gland_pattern(breast, shape, rng) + (1 - in_gland) * 1.5 * smooth_noise(rng, shape, (10, 6))
    level += (SKIN - level) * step(skin - z, 0.15)
    mirrors = _lines(smooth_noise(rng, fine, (14, 3)), breast.ligaments * _patches(rng, fine, 0.3))
    fibres = breast.fasciae * _patches(rng, fine, 0.0) * step(z_fine - gland - 1, 0.5)
    mirrors += _lines(smooth_noise(rng, fine, (26, 3)), fibres)
    for border, strength in ((skin, 1.5), (fat, 0.6), (gland, 1.0)):
        mirrors += _lines(z_fine - border, strength * breast.fasciae * _patches(rng, fine, 0.7))
    return level, mirrors


def step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 where distance < -width, 1 where > width, linear between."""
    return np.clip(distance * np.float32(0.5 / width) + np.float32(0.5), 0, 1)


def _patches(rng: np.random.Generator, shape: tuple[int, int], bias: float) -> np.ndarray:
    """Where an interface reflects: a random part of it, more of it for a larger bias."""
    return np.clip(smooth_noise(rng, shape, (6, 6)) + np.float32(bias), 0, 1.5)


def _lines(field: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Interfaces where a smooth field changes its sign along depth, one sample thick."""
    inside = field > 0
    lines = np.zeros(strength.shape, np.float32)
    np.multiply(strength[1:], inside[1:] != inside[:-1], out=lines[1:])
    return lines


def _gland_pattern(breast: Breast, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Ducts and septa run along the layers; lobules of fat lie between them."""
    streaks = smooth_noise(rng, shape, (30, 7)) + 0.6 * smooth_noise(rng, shape, (12, 5))
    lobules = np.clip(smooth_noise(rng, shape, (7, 5)) - 0.7, 0, 1.2)
    return np.float32(breast.streaks) * streaks - 6 * lobules


def uneven_loss(breast: Breast, size: int, pixel: float, rng: np.random.Generator) -> Float[np.ndarray, "size size"]:
    """Attenuation in dB that differs from line to line and grows with depth: ligament shadows, poor contact."""
    z = ((np.arange(size, dtype=np.float32) + 0.5) * pixel)[:, None]
    across = smooth_noise(rng, (1, size), (1, 9)) + smooth_noise(rng, (1, size), (1, 4))
    return np.float32(breast.uneven) * across * z


def scatterers(
    level: Float[np.ndarray, "size size"], density: float, rng: np.random.Generator
) -> Float[np.ndarray, "samples size"]:
    """Random scatterers of the given mean power (dB), OVERSAMPLE rows per pixel; a resolution cell holds about 7."""
    shape = (level.shape[0] * OVERSAMPLE, level.shape[1])
    strength = rng.standard_normal(shape, dtype=np.float32)
    strength *= rng.random(shape, dtype=np.float32) < density
    return strength * np.repeat(np.exp(DB * level) / np.float32(np.sqrt(density)), OVERSAMPLE, axis=0)
