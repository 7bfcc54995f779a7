"""Focal liver lesions: attributes drawn from a hidden suspicion, and what they do to the echo.

Typical benign ones are cysts (anechoic, sharp, enhancement behind) and haemangiomas (bright, homogeneous); typical
malignant ones are darker than the liver, heterogeneous, irregular, with a dark halo. Many are not typical.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from jaxmed.data import phantom_lesion
from jaxmed.data.phantom_liver_scan import Sector
from jaxmed.data.phantom_scan import OVERSAMPLE
from jaxmed.data.phantom_tissue import smooth_noise

SEPARATION = 3.6  # distance of the two classes' mean suspicion, in standard deviations
CYST = 0.5  # share of cysts among wholly unsuspicious lesions
ECHO = {"cyst": (-22, 2), "bright": (7.5, 1.5), "dark": (-8, 2)}  # mean and SD of the level against the liver, dB
GRAINS = 22  # independent values of the texture along each axis of the picture
HALO = 1.8  # mm, width of the halo's blur


@dataclass(frozen=True)
class LiverLesion:
    """Lengths in mm, levels in dB; the first seven are what `phantom_lesion.outline` reads."""

    diameter: float
    aspect: float
    tilt: float
    lobulation: float
    spicules: int
    spike: float
    border: float  # width of the transition at the margin
    echo: float  # level against the liver
    texture: float  # internal heterogeneity
    halo: float  # by how much the rim is darker
    capsule: float  # reflecting amplitude of the margin
    attenuation: float  # dB/mm against the liver: < 0 enhances what lies behind
    coarse: float  # coarseness of the liver around it, in standard deviations


def sample_lesion(rng: np.random.Generator, malignant: bool) -> LiverLesion:
    """Draws one lesion. Suspicion is N(-d/2, 1) or N(+d/2, 1); attributes follow it, each with noise of its own."""
    suspicion = rng.normal((0.5 if malignant else -0.5) * SEPARATION)

    def follow(weight: float) -> float:
        return weight * suspicion + np.sqrt(1 - weight**2) * rng.normal()

    irregular = follow(0.5)
    kind = _kind(suspicion, rng)
    cyst = kind == "cyst"
    return LiverLesion(
        diameter=float(np.clip(np.exp(np.log(33) + 0.25 * follow(0.15)), 12, 52)),
        aspect=float(np.exp(0.12 * rng.normal())),
        tilt=rng.uniform(0, np.pi),
        lobulation=float(0.10 * np.exp(0.4 * irregular)),
        spicules=int(np.clip(np.round(1 + 2 * irregular), 0, 8)),
        spike=float(np.clip(0.05 + 0.05 * irregular, 0, 0.25)),
        border=float(0.6 if cyst else np.exp(np.log(1.3) + 0.3 * follow(0.4))),
        echo=float(rng.normal(*ECHO[kind])),
        texture=float(0.5 if cyst else np.exp(np.log(1.8) + 0.4 * follow(0.6))),
        halo=float(0 if cyst else np.clip(2.5 + 4 * follow(0.65), 0, 12)),
        capsule=float(0.6 if cyst else 0.1),
        attenuation=float(rng.normal(-0.22, 0.05) if cyst else 0.02 + 0.05 * follow(0.4)),
        coarse=follow(0.3),
    )


def _kind(suspicion: float, rng: np.random.Generator) -> str:
    """Cysts are rare among suspicious lesions; of the others the suspicious ones are rather dark."""
    cyst, dark = rng.random() < CYST / (1 + np.exp(2 * suspicion)), rng.random() < 1 / (1 + np.exp(-1.5 * suspicion))
    return "cyst" if cyst else "dark" if dark else "bright"


def place(
    points: Float[np.ndarray, "vertices 2"], sector: Sector, wall: float, rng: np.random.Generator
) -> Float[np.ndarray, "vertices 2"]:
    """Moves an outline into the liver: below the abdominal wall, inside the picture as far as it fits."""
    reach = np.abs(points).max()
    low = (wall + 0.7 * reach) / sector.depth
    depth = float(np.clip(rng.normal(0.5, 0.12), low, max(0.82 - 0.5 * reach / sector.depth, low)))
    across = (sector.radius + depth * sector.depth) * sector.half
    room = min(across, sector.side / 2 - abs(sector.shift)) - 0.8 * reach
    return points + sector.point(depth, rng.uniform(-1, 1) * max(room / across, 0.0))


def insert(
    level: Float[np.ndarray, "size size"],
    mirrors: Float[np.ndarray, "samples size"],
    points: Float[np.ndarray, "vertices 2"],
    lesion: LiverLesion,
    sector: Sector,
    rng: np.random.Generator,
) -> Float[np.ndarray, "size size"]:
    """Puts the lesion into both maps, in place; returns the attenuation in dB that it adds along the beams."""
    pixel, size = sector.pixel, sector.size
    hard = phantom_lesion.fill(points, pixel, size).astype(np.float32)
    soft = cv2.GaussianBlur(hard, (0, 0), lesion.border / pixel)
    wide = cv2.GaussianBlur(hard, (0, 0), HALO / pixel)
    texture = smooth_noise(rng, hard.shape, (GRAINS, GRAINS))
    beams = sector.to_beams(np.stack([soft, wide, texture], axis=2))
    soft, wide, texture = beams[..., 0], beams[..., 1], beams[..., 2]
    around = (wide > 0.02) & (wide < 0.2)
    inside = float(np.median(level[around])) + lesion.echo + np.float32(lesion.texture) * texture
    level += (inside - level) * soft - lesion.halo * np.clip(4 * wide * (1 - wide), 0, 1)
    fine = sector.to_beams(hard, OVERSAMPLE) > 0.5
    mirrors *= ~fine
    mirrors[1:] += np.float32(lesion.capsule) * (fine[1:] != fine[:-1])
    path = np.cumsum(soft, axis=0) * np.float32(lesion.attenuation * sector.step)
    return cv2.GaussianBlur(path, (0, 0), sigmaX=1.5, sigmaY=0.01)
