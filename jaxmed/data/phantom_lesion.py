"""The lesion: its BI-RADS-like attributes drawn from a latent suspicion, its outline, and what it does to the beam."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jaxmed.data.phantom_scan import OVERSAMPLE
from jaxmed.data.phantom_tissue import smooth_noise

SEPARATION = 2.6  # distance of the two classes' mean suspicion, in standard deviations
VERTICES = 240


@dataclass(frozen=True)
class Lesion:
    """Lengths in mm, levels in dB. The field order is the order of the random draws; do not change it lightly."""

    size: float  # geometric mean of the diameters
    aspect: float  # height / width
    tilt: float  # radians
    lobulation: float  # amplitude of the slow waves of the outline, relative to the radius
    spicules: int
    spike: float  # relative height of the spicules
    blur: float  # width of the border, mm
    echo: float  # level against its surroundings
    texture: float  # internal heterogeneity
    attenuation: float  # dB/mm against the surroundings: > 0 shadows, < 0 enhances
    halo: float  # dB of the echogenic rim
    calcifications: int


def sample_lesion(rng: np.random.Generator, malignant: bool) -> Lesion:
    """Draws one lesion: every attribute follows a hidden suspicion, so the attributes of the two classes overlap.

    Suspicion is N(-d/2, 1) for benign and N(+d/2, 1) for malignant lesions; each attribute correlates with it and adds
    noise of its own. Some benign lesions look irregular and some malignant ones circumscribed, as in life.
    """
    suspicion = rng.normal((0.5 if malignant else -0.5) * SEPARATION)

    def follow(weight: float) -> float:
        """A standard score that follows suspicion with this weight."""
        return weight * suspicion + np.sqrt(1 - weight**2) * rng.normal()

    irregular = follow(0.75)
    cyst = rng.random() < 0.22 * _sigmoid(-2 * suspicion)
    echo = -22 + rng.normal() if cyst else np.clip(-9 - 1.2 * follow(0.5) + 3.0 * rng.normal(), -20, -1)
    return Lesion(
        size=float(np.exp(np.log(10.5) + 0.32 * follow(0.2))),
        aspect=float(np.exp(np.log(0.74) + 0.17 * follow(0.6))),
        tilt=rng.normal(0, 0.2),
        lobulation=float(0.10 * np.exp(0.35 * irregular)),
        spicules=int(np.clip(np.round(3 + 3.5 * irregular + rng.normal()), 0, 16)),
        spike=float(np.clip(0.10 + 0.09 * irregular, 0.0, 0.4)),
        blur=float(np.exp(np.log(0.45) + 0.5 * follow(0.6))),
        echo=float(echo),
        texture=float(0.5 if cyst else np.exp(np.log(2.2) + 0.3 * follow(0.5))),
        attenuation=float(-1.1 + 0.2 * rng.normal() if cyst else 0.15 + 0.55 * follow(0.7)),
        halo=float(np.clip(1 + 2.5 * follow(0.6), 0, 8)),
        calcifications=int(rng.poisson(np.exp(np.clip(-1.0 + 1.3 * follow(0.5), -4, 2.3)))),
    )


def _sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def outline(lesion: Lesion, rng: np.random.Generator) -> Float[np.ndarray, "vertices 2"]:
    """The closed outline around (0, 0) as (x, z) in mm."""
    angle = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    radius = np.ones(VERTICES)
    for wave in range(2, 8):
        radius += lesion.lobulation / wave**0.5 * rng.normal() * 0.5 * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    for _ in range(lesion.spicules):
        gap = np.angle(np.exp(1j * (angle - rng.uniform(0, 2 * np.pi))))
        radius += lesion.spike * rng.uniform(0.3, 1.4) * np.exp(-0.5 * (gap / rng.uniform(0.05, 0.16)) ** 2)
    radius = np.clip(radius, 0.35, None) * lesion.size / 2
    x = radius * np.cos(angle) / np.sqrt(lesion.aspect)
    z = radius * np.sin(angle) * np.sqrt(lesion.aspect)
    cos, sin = np.cos(lesion.tilt), np.sin(lesion.tilt)
    return np.stack([cos * x - sin * z, sin * x + cos * z], axis=1)


def fill(points: Float[np.ndarray, "vertices 2"], shape: tuple[int, int], scale: tuple[float, float]) -> UInt8[np.ndarray, "h w"]:
    """Rasters an outline in mm; scale is pixels per mm along x and z."""
    mask = np.zeros(shape, np.uint8)
    corners = np.round((points * np.asarray(scale) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1, shift=4)
    return mask


def insert(
    echo: Float[np.ndarray, "rows size"],
    points: Float[np.ndarray, "vertices 2"],
    lesion: Lesion,
    pixel: float,
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "rows size"], Float[np.ndarray, "rows size"]]:
    """Puts the lesion into the echo map (dB).

    Returns:
        The new echo map, and the attenuation in dB that the lesion adds to each sample (its integral along the line).
    """
    rows, columns = echo.shape
    hard = fill(points, echo.shape, (1 / pixel, OVERSAMPLE / pixel)).astype(np.float32)
    sigma = lesion.blur / pixel
    soft = cv2.GaussianBlur(hard, (0, 0), sigmaX=sigma, sigmaY=sigma * OVERSAMPLE)
    wide = cv2.GaussianBlur(hard, (0, 0), sigmaX=1.3 / pixel, sigmaY=1.3 / pixel * OVERSAMPLE)
    surroundings = cv2.GaussianBlur(echo, (0, 0), sigmaX=3 / pixel, sigmaY=3 / pixel * OVERSAMPLE)
    level = float(surroundings[hard > 0].mean()) if hard.any() else 0.0
    inside = level + lesion.echo + lesion.texture * smooth_noise(rng, echo.shape, (rows // 12, columns // 6))
    rim = lesion.halo * np.clip(4 * wide * (1 - wide), 0, 1) * (1 - soft)
    echo = echo + (inside - echo) * soft + rim
    echo = _add_calcifications(echo, hard, lesion, rng)
    path = np.cumsum(soft, axis=0) * (pixel / OVERSAMPLE)
    path = cv2.GaussianBlur(path, (0, 0), sigmaX=0.5 / pixel, sigmaY=0.1)
    return echo, -lesion.attenuation * path


def _add_calcifications(echo: np.ndarray, hard: np.ndarray, lesion: Lesion, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.nonzero(hard)
    if not lesion.calcifications or not rows.size:
        return echo
    echo = echo.copy()
    for k in rng.integers(0, rows.size, lesion.calcifications):
        echo[rows[k] : rows[k] + 2, columns[k]] = rng.uniform(12, 20)
    return echo
