"""The lesion: its attributes drawn from a hidden suspicion, its outline, and what it does to the echo."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jaxmed.data.phantom_scan import OVERSAMPLE
from jaxmed.data.phantom_tissue import smooth_noise

SEPARATION = 3.2  # distance of the two classes' mean suspicion, in standard deviations: AUC 0.988 if it were known
VERTICES = 240
FINER = 4


@dataclass(frozen=True)
class Lesion:
    """What a radiologist would describe. Lengths in mm, levels in dB."""

    diameter: float  # geometric mean of width and height
    aspect: float  # height / width
    tilt: float  # radians
    lobulation: float  # amplitude of the outline's slow waves, relative to the radius
    spicules: int
    spike: float  # height of the spicules, relative to the radius
    border: float  # width of the transition at the margin, mm
    capsule: float  # reflecting amplitude of the margin
    echo: float  # level against the surroundings
    texture: float  # dB, internal heterogeneity
    attenuation: float  # dB/mm against the surroundings: > 0 casts a shadow, < 0 enhances
    halo: float  # dB of the echogenic rim
    calcifications: int


def sample_lesion(rng: np.random.Generator, malignant: bool) -> Lesion:
    """Draws one lesion. Its attributes overlap between the classes.

    Suspicion is N(-d/2, 1) for benign and N(+d/2, 1) for malignant lesions; every attribute follows it with a weight
    and noise of its own. Some benign lesions look irregular and some malignant ones circumscribed, as in life.
    """
    suspicion = rng.normal((0.5 if malignant else -0.5) * SEPARATION)

    def follow(weight: float) -> float:
        return weight * suspicion + np.sqrt(1 - weight**2) * rng.normal()

    irregular = follow(0.45)
    cyst = rng.random() < 0.25 / (1 + np.exp(2 * suspicion))
    return Lesion(
        diameter=float(np.clip(np.exp(np.log(12) + 0.26 * follow(0.1)), 5, 19)),
        aspect=float(np.exp(np.log(0.74) + 0.17 * follow(0.4))),
        tilt=rng.normal(0, 0.2),
        lobulation=float(0.12 * np.exp(0.3 * irregular)),
        spicules=int(np.clip(np.round(3 + 3 * irregular + rng.normal()), 0, 16)),
        spike=float(np.clip(0.10 + 0.08 * irregular, 0, 0.4)),
        border=float(np.exp(np.log(0.45) + 0.5 * follow(0.7))),
        capsule=float(np.clip(0.15 - 0.12 * follow(0.6), 0, 0.4)),
        echo=float(rng.normal(-24, 2) if cyst else np.clip(-13.5 - 1.5 * follow(0.6) + 2 * rng.normal(), -20, -7)),
        texture=float(0.5 if cyst else np.exp(np.log(2) + 0.3 * follow(0.5))),
        attenuation=float(rng.normal(-1.0, 0.2) if cyst else 0.2 + 0.6 * follow(0.75)),
        halo=float(np.clip(2 + 2.5 * follow(0.7), 0, 9)),
        calcifications=int(rng.poisson(np.exp(np.clip(-0.8 + 1.2 * follow(0.5), -4, 2.3)))),
    )


def outline(lesion: Lesion, rng: np.random.Generator) -> Float[np.ndarray, "vertices 2"]:
    """The closed outline around (0, 0) as (x, z) in mm: an ellipse with waves and spicules."""
    angle = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    radius = np.ones(VERTICES)
    for wave in range(2, 8):
        height = lesion.lobulation * rng.normal() * 0.5 / np.sqrt(wave)
        radius += height * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    for _ in range(lesion.spicules):
        gap = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi))))
        radius += lesion.spike * rng.uniform(0.3, 1.4) * np.exp(-0.5 * (gap / rng.uniform(0.05, 0.16)) ** 2)
    radius = np.clip(radius, 0.35, None)
    radius *= 0.5 * lesion.diameter / np.sqrt((radius**2).mean())  # spicules must not make a lesion larger
    x, z = radius * np.cos(angle) / np.sqrt(lesion.aspect), radius * np.sin(angle) * np.sqrt(lesion.aspect)
    cos, sin = np.cos(lesion.tilt), np.sin(lesion.tilt)
    return np.stack([cos * x - sin * z, sin * x + cos * z], axis=1)


def centre(points: Float[np.ndarray, "vertices 2"], depth: float, rng: np.random.Generator) -> Float[np.ndarray, "2"]:
    """Where the lesion lies, mm: anywhere across, mostly above the middle, inside the picture as far as it fits."""
    low, high = points.min(0), points.max(0)
    x = rng.uniform(*sorted((1 - low[0], depth - 1 - high[0])))
    z = np.clip(rng.normal(0.4, 0.09) * depth, 2.5 - low[1], max(depth - 3 - high[1], 2.5 - low[1]))
    return np.array([x, z])


def fill(points: Float[np.ndarray, "vertices 2"], pixel: float, size: int, rows: int = 1) -> UInt8[np.ndarray, "h w"]:
    """The outline in mm as a mask of `size` columns and `rows` rows per pixel: 1 where most of a cell lies inside.

    Drawn FINER times larger first, because OpenCV also paints every cell that the outline touches.
    """
    canvas = np.zeros((size * FINER, size * FINER), np.uint8)
    corners = np.round((points * (FINER / pixel) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(canvas, [corners], 255, shift=4)
    return (cv2.resize(canvas, (size, size * rows), interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)


def insert(
    level: Float[np.ndarray, "size size"],
    mirrors: Float[np.ndarray, "samples size"],
    mask: UInt8[np.ndarray, "size size"],
    points: Float[np.ndarray, "vertices 2"],
    lesion: Lesion,
    pixel: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "size size"]:
    """Puts the lesion into both tissue maps, in place; returns the attenuation in dB that it adds to each pixel."""
    size = level.shape[0]
    hard = mask.astype(np.float32)
    soft = _blur(hard, lesion.border / pixel)
    wide = _blur(hard, 1.2 / pixel)
    around = float(level[(wide > 0.02) & (mask == 0)].mean()) if mask.any() else 0.0
    inside = around + lesion.echo + lesion.texture * smooth_noise(rng, level.shape, (size // 8, size // 8))
    level += (inside - level) * soft + lesion.halo * np.clip(4 * wide * (1 - wide), 0, 1) * (1 - soft)
    fine = fill(points, pixel, size, OVERSAMPLE)
    mirrors *= 1 - fine
    mirrors[1:] += lesion.capsule * (fine[1:] != fine[:-1])
    _add_calcifications(mirrors, fine, lesion.calcifications, rng)
    return np.float32(lesion.attenuation) * _blur(np.cumsum(soft, axis=0) * np.float32(pixel), 0.7 / pixel, 0.01)


def _blur(field: np.ndarray, across: float, down: float | None = None) -> np.ndarray:
    return cv2.GaussianBlur(field, (0, 0), sigmaX=max(across, 0.01), sigmaY=max(down or across, 0.01))


def _add_calcifications(mirrors: np.ndarray, fine: np.ndarray, count: int, rng: np.random.Generator) -> None:
    rows, columns = np.nonzero(fine)
    if count and rows.size:
        chosen = rng.integers(0, rows.size, count)
        mirrors[rows[chosen], columns[chosen]] += rng.uniform(0.7, 2, count).astype(np.float32)
