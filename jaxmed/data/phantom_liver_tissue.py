"""What surrounds the lesion: abdominal wall, liver with vessels, diaphragm, and the shadow of a rib.

Maps are along the beams of a `Sector`: the level of diffuse scattering in dB, thin interfaces that reflect like mirrors,
and attenuation that was not compensated, in dB.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float

from jaxmed.data.phantom_liver_scan import Sector, beam_shape
from jaxmed.data.phantom_scan import OVERSAMPLE
from jaxmed.data.phantom_tissue import smooth_noise, step

WALL, MUSCLE, LIVER, VESSEL, BEYOND = -15.0, -11.0, -9.0, -30.0, -17.0  # mean level of diffuse scattering, dB
RIB = 0.3  # share of pictures with a rib's shadow at one border
VERTICES = 24
GRAINS = 32  # independent values of the coarse pattern along each axis


@dataclass(frozen=True)
class Liver:
    """One patient's abdomen: lengths in mm, strengths of the patterns in dB."""

    density: float  # share of samples that hold a scatterer
    skin: float
    wall: float  # depth of the liver's capsule
    diaphragm: float  # its depth, as a share of the field of view
    coarse: float  # dB, coarseness of the parenchyma as in cirrhosis
    steatosis: float  # dB/mm of attenuation that the depth gain leaves
    portal: float  # dB by which the walls of portal branches are brighter


def sample_liver(rng: np.random.Generator, coarse: float) -> Liver:
    """An abdomen; `coarse` in standard deviations comes from the lesion's suspicion, as tumours grow in cirrhosis."""
    return Liver(
        density=rng.uniform(0.3, 1.0),
        skin=rng.uniform(2, 3.5),
        wall=rng.uniform(14, 26),
        diaphragm=rng.uniform(0.84, 1.04),
        coarse=float(np.exp(np.log(1.4) + 0.35 * coarse)),
        steatosis=float(np.clip(rng.normal(0.03, 0.05), -0.04, 0.16)),
        portal=rng.uniform(3, 9),
    )


def liver_maps(
    liver: Liver, sector: Sector, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "size size"], Float[np.ndarray, "samples size"], Float[np.ndarray, "size size"]]:
    """Level, mirrors and loss without a lesion."""
    level, mirrors, inside = _layers(liver, sector, rng)
    _add_vessels(level, inside, liver, sector, rng)
    return level, mirrors, _loss(liver, sector, rng)


def _depth(sector: Sector, rows: int = 1) -> np.ndarray:
    return (np.arange(sector.size * rows, dtype=np.float32) + 0.5)[:, None] * np.float32(sector.step / rows)


def _layers(liver: Liver, sector: Sector, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level, mirrors, and where the liver is (0 to 1)."""
    size, shape, fine = sector.size, (sector.size, sector.size), beam_shape(sector)
    z, z_fine = _depth(sector), _depth(sector, OVERSAMPLE)
    sag = smooth_noise(rng, (3, size), (2, 4))
    wall = np.float32(liver.wall) + 1.2 * sag[0]
    muscle = 0.55 * wall + 0.8 * sag[1]
    turn = np.linspace(-1, 1, size, dtype=np.float32)
    arc = sector.depth * (liver.diaphragm - 0.10 * (turn - rng.uniform(-0.5, 0.5)) ** 2) + 2 * sag[2]
    level = WALL + (MUSCLE - WALL) * step(z - muscle, 1.0) + 2.5 * smooth_noise(rng, shape, (40, 4))
    pattern = 0.6 * smooth_noise(rng, shape, (5, 5)) + liver.coarse * smooth_noise(rng, shape, (GRAINS, GRAINS))
    below, beyond = step(z - wall, 1.0), step(z - arc, 1.0)
    level += (LIVER + pattern - level) * below
    level += (BEYOND + 2 * smooth_noise(rng, shape, (6, 6)) - level) * beyond
    level += (-3 - level) * step(liver.skin - z, 0.5)
    mirrors = np.zeros(fine, np.float32)
    for border, strength in ((np.float32(liver.skin), 1.2), (muscle, 1.0), (wall, 1.6), (arc, 4.0)):
        patches = np.clip(smooth_noise(rng, (1, size), (1, 6)) + 1, 0.2, 1.6)
        _add_line(mirrors, z_fine - border, strength * patches)
    return level, mirrors, below * (1 - beyond)


def _add_line(mirrors: np.ndarray, distance: np.ndarray, strength: np.ndarray) -> None:
    inside = distance > 0
    mirrors[1:] += strength * (inside[1:] != inside[:-1])


def _add_vessels(level: np.ndarray, inside: np.ndarray, liver: Liver, sector: Sector, rng: np.random.Generator) -> None:
    """Hepatic veins have hardly a wall, portal branches a bright one; cross sections are round, courses are long."""
    for bright in (0.5, liver.portal):
        for _ in range(int(rng.integers(0, 3))):
            lumen = cv2.GaussianBlur(sector.to_beams(_vessel(sector, rng)), (0, 0), 0.5) * inside
            wide = cv2.GaussianBlur(lumen, (0, 0), 1.2)
            level += bright * np.clip(4 * wide * (1 - wide), 0, 1) * (1 - lumen)
            level += (VESSEL - level) * lumen


def _vessel(sector: Sector, rng: np.random.Generator) -> Float[np.ndarray, "size size"]:
    """A bent tube that gets thinner, in the picture: 1 in the lumen."""
    start = sector.point(rng.uniform(0.3, 0.85), rng.uniform(-0.9, 0.9))
    course, bend, length = rng.uniform(0, 2 * np.pi), rng.normal(0, 1.2), rng.uniform(4, 55)
    share = np.linspace(0, 1, VERTICES)
    heading = course + bend * share
    points = start + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), axis=0) * (length / VERTICES)
    radius = rng.uniform(1.2, 3.2) * (1 - 0.5 * share)
    canvas = np.zeros((sector.size, sector.size), np.uint8)
    for (x, z), mm in zip(points / sector.pixel - 0.5, radius / sector.pixel, strict=True):
        where, wide = (round(x * 16), round(z * 16)), max(round(mm * 16), 8)
        cv2.circle(canvas, where, wide, 255, -1, cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def _loss(liver: Liver, sector: Sector, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of the liver, uneven contact, and now and then a rib that darkens one border of the sector."""
    size, z = sector.size, _depth(sector)
    inside = np.clip(z - liver.wall, 0, None)
    uneven = 0.02 * smooth_noise(rng, (1, size), (1, 7))
    loss = (liver.steatosis + uneven) * inside
    shadow, border, side = rng.random() < RIB, rng.uniform(0.1, 0.28), rng.integers(0, 2)
    if shadow:
        turn = np.linspace(0, 1, size, dtype=np.float32)
        turn = turn if side else 1 - turn
        loss = loss + rng.uniform(12, 26) * step(border - turn, 0.03) * step(z - 0.7 * liver.wall, 1.5)
    return loss.astype(np.float32)
