"""Lesions of the mammogram phantom: masses and calcification clusters, at one place in space that both views show."""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.special import expit

from jaxmed.data.phantom_mammo_tissue import Scene, add_dot

SEPARATION = 3.4  # distance of the two classes' mean suspicion, in standard deviations: AUC 0.992 if it were known
CUTS = (-1.4, 0.0, 1.6)  # suspicion at which a reader says BI-RADS 3, 4, 5 instead of 2, 3, 4
MASS, CALCIFICATIONS, BOTH = "mass", "calcifications", "both"


@dataclass(frozen=True)
class Lesion:
    """What a radiologist would describe. Lengths are fractions of the picture's side."""

    malignant: bool
    birads: int  # 2 to 5, from the suspicion that its attributes follow
    kind: str
    place: tuple[float, float, float]  # a, lateral, superior (see `phantom_mammo_tissue`)
    radius: float
    aspect: float
    contrast: float
    border: float  # width of the margin relative to the radius
    waves: float  # lobulation of the outline
    spicules: int
    calcifications: int
    spread: float  # of the cluster
    variety: float  # of the calcifications' sizes and strengths: round and alike 0, pleomorphic 1


def sample_lesion(rng: np.random.Generator, malignant: bool) -> Lesion:
    """Draws one lesion. Suspicion is N(-d/2, 1) for benign and N(d/2, 1) for malignant lesions; attributes follow it with
    a weight and noise of their own, so that some benign lesions look suspicious and some malignant ones do not."""
    suspicion = rng.normal((0.5 if malignant else -0.5) * SEPARATION)

    def follow(weight: float) -> float:
        return weight * suspicion + np.sqrt(1 - weight**2) * rng.normal()

    kind = str(rng.choice([MASS, CALCIFICATIONS, BOTH], p=[0.55, 0.1, 0.35]))
    place = (rng.uniform(0.3, 0.75), rng.uniform(-0.6, 0.7), rng.uniform(-0.5, 0.6))
    return Lesion(
        malignant=malignant,
        birads=2 + sum(suspicion > cut for cut in CUTS),
        kind=kind,
        place=place,
        radius=float(np.clip(np.exp(np.log(0.06) + 0.2 * follow(0.5)), 0.03, 0.1)),
        aspect=float(np.exp(rng.normal(0, 0.15))),
        contrast=float(np.clip(0.42 + 0.08 * follow(0.6), 0.18, 0.7)),
        border=float(np.clip(0.22 + 0.1 * follow(0.6), 0.06, 0.6)),
        waves=float(np.clip(0.08 + 0.06 * follow(0.6), 0.02, 0.25)),
        spicules=int(np.clip(np.round(6 + 6 * follow(0.66)), 0, 24)),
        calcifications=int(np.clip(np.round(12 + 8 * follow(0.6)), 4, 36)),
        spread=float(np.exp(np.log(0.028) + 0.25 * rng.normal())),
        variety=float(np.clip(0.5 + 0.25 * follow(0.6), 0, 1)),
    )


def insert(scene: Scene, lesion: Lesion, rng: np.random.Generator) -> None:
    """Adds the lesion to one view; the outline is drawn anew, because every projection shows another one."""
    x, y = scene.place(*lesion.place)
    if lesion.kind != CALCIFICATIONS:
        _add_mass(scene, lesion, x, y, rng)
    if lesion.kind != MASS:
        _add_cluster(scene, lesion, x, y, rng)


def _add_mass(scene: Scene, lesion: Lesion, x: float, y: float, rng: np.random.Generator) -> None:
    radius = lesion.radius * scene.size
    rows, columns = _window(scene, x, y, 3.2 * radius)
    if rows.size == 0 or columns.size == 0:
        return
    u, v = (columns[None] - x) / lesion.aspect, (rows[:, None] - y) * lesion.aspect
    angle = np.arctan2(v, u)
    edge = np.ones_like(angle)
    for wave in range(2, 7):
        edge += lesion.waves * rng.normal() / np.sqrt(wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    relative = np.hypot(u, v) / (radius * np.clip(edge, 0.4, None))
    mass = expit((1 - relative) / (0.35 * lesion.border))
    mass *= np.sqrt(np.clip(1.15 - 0.55 * relative**2, 0.3, None))  # thicker in the middle
    mass = np.maximum(mass, 0.9 * _spicules(lesion, x - columns[0], y - rows[0], mass.shape, radius, rng))
    part = np.ix_(rows.astype(int), columns.astype(int))
    scene.level[part] += np.float32(lesion.contrast) * mass * scene.inside[part]


def _window(scene: Scene, x: float, y: float, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the picture that a structure around (x, y) can touch."""
    low = np.clip(np.floor([y - reach, x - reach]).astype(int), 0, scene.size)
    high = np.clip(np.ceil([y + reach, x + reach]).astype(int), 0, scene.size)
    return np.arange(low[0], high[0], dtype=np.float32), np.arange(low[1], high[1], dtype=np.float32)


def _spicules(
    lesion: Lesion, x: float, y: float, shape: tuple[int, int], radius: float, rng: np.random.Generator
) -> np.ndarray:
    """Thin lines that radiate from the margin, fading outwards; (x, y) is the centre inside this window."""
    canvas = np.zeros(shape, np.float32)
    for _ in range(lesion.spicules):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(1.4, 2.9) * radius
        bend = rng.normal(0, 0.15)
        for start, stop, strength in ((0.6, 1.4, 1.0), (1.4, 2.1, 0.7), (2.1, 2.9, 0.4)):
            near, far = start * radius, min(stop * radius, length)
            if far > near:
                points = [
                    (x + r * np.cos(angle + bend * r / length), y + r * np.sin(angle + bend * r / length)) for r in (near, far)
                ]
                ends = [tuple(int(round(16 * value)) for value in point) for point in points]
                cv2.line(canvas, *ends, strength, 1, cv2.LINE_8, shift=4)
    return cv2.GaussianBlur(canvas, (0, 0), max(0.018 * radius, 0.6))


def _add_cluster(scene: Scene, lesion: Lesion, x: float, y: float, rng: np.random.Generator) -> None:
    """Benign calcifications are few, round and alike; suspicious ones many, of all sizes, and stretched along a duct."""
    duct, stretch = rng.uniform(0, np.pi), 1 + lesion.variety
    for _ in range(lesion.calcifications):
        along, across = rng.normal(0, lesion.spread * scene.size, 2) * (stretch, 1 / stretch)
        column = x + along * np.cos(duct) - across * np.sin(duct)
        row = y + along * np.sin(duct) + across * np.cos(duct)
        sigma = 0.0032 * np.exp(0.5 * lesion.variety * rng.normal())
        add_dot(scene, column, row, 0.5 * np.exp(0.5 * lesion.variety * rng.normal()), sigma)
