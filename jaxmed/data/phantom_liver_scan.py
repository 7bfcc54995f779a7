"""Convex-array geometry of the liver phantoms: beams fan out from a curved probe, the picture is a sector on black.

Beams are columns of equal angle, samples are rows of equal range; `Sector.to_beams` looks a picture up along the beams
and `Sector.to_picture` is the scan conversion. Lengths are in mm; positions are (x, z) from the picture's upper left corner.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from jaxmed.data.phantom_scan import OVERSAMPLE, Scanner


@dataclass(frozen=True)
class Sector:
    """A field of view and the square picture cut from it, which may leave out the sector's lateral corners.

    Attributes:
        radius, depth: of the curved probe and of the field of view, mm.
        half: half of the opening angle, radians.
        side: of the picture, mm.
        shift: how far right of the picture's middle the sector's axis lies, mm.
        top: distance from the picture's upper border to the probe's corners, mm.
        size: of the picture, pixels.
    """

    radius: float
    depth: float
    half: float
    side: float
    shift: float
    top: float
    size: int

    @property
    def pixel(self) -> float:
        """mm per pixel of the picture."""
        return self.side / self.size

    @property
    def step(self) -> float:
        """mm per sample of a beam; there are as many samples (and beams) as the picture has rows."""
        return self.depth / self.size

    @property
    def centre(self) -> tuple[float, float]:
        """(x, z) of the probe's centre of curvature."""
        return self.side / 2 + self.shift, self.top - self.radius * float(np.cos(self.half))

    def point(self, reach: float, turn: float) -> np.ndarray:
        """(x, z) at `reach` of the depth and `turn` of the half angle (-1 left border, 1 right border)."""
        distance, angle = self.radius + reach * self.depth, turn * self.half
        x, z = self.centre
        return np.array([x + distance * np.sin(angle), z + distance * np.cos(angle)])

    def to_beams(self, picture: Float[np.ndarray, "size size *c"], rows: int = 1) -> Float[np.ndarray, "samples size *c"]:
        """The picture's values along the beams, `rows` samples per step."""
        distance = self.radius + (np.arange(self.size * rows, dtype=np.float32) + 0.5)[:, None] * (self.step / rows)
        angle = np.linspace(-self.half, self.half, self.size, dtype=np.float32)
        x, z = self.centre
        columns = (x + distance * np.sin(angle)) / self.pixel - 0.5
        lines = (z + distance * np.cos(angle)) / self.pixel - 0.5
        return cv2.remap(picture, columns.astype(np.float32), lines.astype(np.float32), cv2.INTER_LINEAR)

    def to_picture(self, beams: UInt8[np.ndarray, "size size"]) -> UInt8[np.ndarray, "size size"]:
        """Scan conversion by bilinear interpolation of the gray levels; 0 outside the sector."""
        grid = (np.arange(self.size, dtype=np.float32) + 0.5) * np.float32(self.pixel)
        x, z = self.centre
        across, down = (grid - x)[None, :], (grid - z)[:, None]
        rows = (np.hypot(across, down) - self.radius) / self.step - 0.5
        columns = (np.arctan2(across, down) / self.half + 1) * ((self.size - 1) / 2)
        return cv2.remap(beams, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR)


def sample_sector(rng: np.random.Generator, size: int) -> Sector:
    """Usual settings of an abdominal probe; the cut differs from picture to picture, as between clinics."""
    radius, depth, half = rng.uniform(40, 62), rng.uniform(90, 140), rng.uniform(0.5, 0.7)
    height = radius + depth - radius * np.cos(half)
    side = height * rng.uniform(0.95, 1.15)
    spare = max(side - height, 0.0)
    return Sector(radius, depth, half, side, rng.normal(0, 0.05) * side, rng.uniform(0.0, 1.0) * spare, size)


def sample_scanner(rng: np.random.Generator, sector: Sector) -> Scanner:
    """A machine setting; its lateral lengths are in beams, so that the beam widens with the fan."""
    step = sector.step
    return Scanner(
        pixel=step,
        axial=rng.uniform(0.42, 0.6) * step,
        lateral=rng.uniform(0.6, 0.9) * step,
        focus=rng.uniform(0.4, 0.6) * sector.depth,
        rayleigh=rng.uniform(0.5, 0.8) * sector.depth,
        smoothing=rng.uniform(0.55, 0.85),
        dynamic_range=rng.uniform(52, 62),
        gain=rng.normal(0, 2.5),
        gamma=rng.uniform(1.0, 1.3),
    )


def beam_shape(sector: Sector) -> tuple[int, int]:
    """(samples, beams) of the scatterers and mirrors: OVERSAMPLE samples per step."""
    return sector.size * OVERSAMPLE, sector.size
