"""The breast of a mammogram phantom: outline, glandular tissue with a power-law spectrum, skin, pectoral muscle, display.

Lengths are fractions of the picture's side; x runs from the chest wall to the nipple, y from the top down. In space a
breast has the coordinates a (anterior, 0 at the chest wall, 1 at the nipple), l (lateral) and s (superior), both -1 to 1.
CC projects along s, so its rows show l; MLO projects along a line between s and l, so its rows show (s + l) / sqrt(2).
Mammographic texture has a power spectrum 1 / f^beta with beta about 3 (Burgess et al., Medical Physics 28, 2001).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float, UInt8
from scipy.special import expit

BETA = 3.0
SHARED = 0.75  # of the texture's amplitude, by both breasts of a woman
OBLIQUE = np.sqrt(0.5)
SHOULDER = np.float32(1.6)  # of the film curve: very dense structures do not saturate


@dataclass(frozen=True)
class Breast:
    """What the four views of one woman have in common."""

    density: float  # offset of the glandular pattern: -2 fatty, +1 dense
    depth: float  # chest wall to nipple
    height: float  # half of the CC view's height
    muscle: float  # width of the pectoral muscle at the top of the MLO view
    slope: float  # where its edge meets the chest wall
    contrast: float  # gland against fat
    gamma: float


@dataclass(frozen=True)
class Shape:
    """The outline of one view."""

    view: str  # CC or MLO
    depth: float
    middle: float  # y of the nipple
    above: float  # from the nipple up to where the outline would meet the chest wall
    below: float
    base: float  # depth at the upper end: the axillary tail
    muscle: float  # 0 for CC
    slope: float


@dataclass
class Scene:
    """One view being made: log exposure in arbitrary units, to which structures are added."""

    shape: Shape
    inside: Float[np.ndarray, "size size"]  # 0 outside the breast, 1 where it is compressed to full thickness
    level: Float[np.ndarray, "size size"]
    breast: Breast

    @property
    def size(self) -> int:
        """Side of the picture in pixels."""
        return self.level.shape[0]

    def place(self, a: float, lateral: float, superior: float) -> tuple[float, float]:
        """Column and row, in pixels, of a point in space."""
        across = lateral if self.shape.view == "CC" else (superior + lateral) * OBLIQUE
        y = self.shape.middle - across * (self.shape.above if across > 0 else self.shape.below) * 0.8
        return a * border(self.shape, np.float32(y)) * self.size, y * self.size


def sample_breast(rng: np.random.Generator) -> Breast:
    """A woman, from fatty to dense."""
    return Breast(
        density=rng.uniform(-1.9, 0.5),
        depth=rng.uniform(0.42, 0.68),
        height=rng.uniform(0.34, 0.46),
        muscle=rng.uniform(0.18, 0.34),
        slope=rng.uniform(0.45, 0.72),
        contrast=rng.uniform(0.34, 0.5),
        gamma=rng.uniform(1.1, 1.5),
    )


def sample_shape(breast: Breast, view: str, rng: np.random.Generator) -> Shape:
    """How the breast was positioned for one picture."""
    depth = breast.depth * rng.uniform(0.95, 1.05)
    if view == "CC":
        middle, half = 0.5 + rng.normal(0, 0.02), breast.height * rng.uniform(0.96, 1.04)
        return Shape(view, depth, middle, half, half, 0.0, 0.0, 1.0)
    middle = rng.uniform(0.55, 0.63)
    muscle, slope = breast.muscle * rng.uniform(0.9, 1.1), breast.slope * rng.uniform(0.95, 1.05)
    base = min(muscle + rng.uniform(0.04, 0.1), 0.8 * depth)
    return Shape(view, depth * 1.05, middle, middle + 0.02, rng.uniform(0.3, 0.36), base, muscle, slope)


def border(shape: Shape, y: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """x of the skin at each y; 0 where there is no breast."""
    up = np.clip((shape.middle - y) / shape.above, 0, 1)
    down = np.clip((y - shape.middle) / shape.below, 0, 1)
    upper = shape.base + (shape.depth - shape.base) * np.sqrt(1 - up**2.3)
    lower = shape.depth * np.sqrt(1 - down**2.6)
    return np.where(y < shape.middle, np.where(up < 1, upper, 0), lower).astype(np.float32)


def power_law(size: int, rng: np.random.Generator, count: int) -> Float[np.ndarray, "count size size"]:
    """Fields of unit variance with the spectrum 1 / f^BETA, flat below three cycles per picture."""
    f = np.hypot(scipy.fft.fftfreq(size)[:, None], scipy.fft.fftfreq(size)[None]).astype(np.float32) * size
    amplitude = np.maximum(f, 3) ** (-BETA / 2)
    fields = []
    for _ in range((count + 1) // 2):  # the real and the imaginary part are two fields
        noise = rng.standard_normal((2, size, size), dtype=np.float32)
        both = scipy.fft.ifft2((noise[0] + 1j * noise[1]) * amplitude)
        fields += [both.real, both.imag]
    stack = np.stack(fields[:count])
    stack -= stack.mean((1, 2), keepdims=True)
    return stack / stack.std((1, 2), keepdims=True)


def make_textures(
    size: int, person: np.random.Generator, look: np.random.Generator, breasts: int = 2
) -> Float[np.ndarray, "views size size"]:
    """Textures of L_CC, L_MLO, R_CC, R_MLO (or of one breast): the two CC views share a part, and so do the two MLO views."""
    common = power_law(size, person, 2)
    own = power_law(size, look, 2 * breasts)
    return SHARED * np.concatenate([common] * breasts) + np.float32(np.sqrt(1 - SHARED**2)) * own


def make_scene(breast: Breast, shape: Shape, texture: Float[np.ndarray, "size size"], size: int) -> Scene:
    """Fat, gland, skin and muscle of one view."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = grid[None], grid[:, None]
    skin = border(shape, y)
    mask = (x < skin).astype(np.uint8)
    deep = cv2.distanceTransform(mask, cv2.DIST_L2, 5) / size  # picture edges do not count as skin
    inside = np.sqrt(1 - (1 - np.clip(deep / 0.085, 0, 1)) ** 2)
    half = np.where(y < shape.middle, shape.above, shape.below) * 0.72
    disc = 1 - ((x - 0.5 * shape.depth) / (0.48 * shape.depth)) ** 2 - ((y - shape.middle) / half) ** 2
    muscle = _muscle(shape, x, y)
    share = expit(1.7 * (0.8 * texture + 1.7 * np.clip(disc, -1.5, 0.8) + breast.density)) * np.clip(deep / 0.03 - 0.3, 0, 1)
    share *= (1 + 0.16 * texture) * (1 - muscle)
    folded = np.abs(texture - np.roll(texture, (size // 3, size // 5), (0, 1)))  # zero along lines: ligaments and vessels
    strands = np.exp(-((folded / 0.06) ** 2)) * 0.05 * np.clip(deep / 0.02, 0, 1)
    level = inside * (0.22 + 0.035 * texture + breast.contrast * share + 0.4 * muscle) + strands
    rim = np.exp(-(((deep - 0.007) / 0.005) ** 2)) * mask
    return Scene(shape, inside, level + 0.13 * rim, breast)


def _muscle(shape: Shape, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 inside the pectoral muscle: a triangle with a slightly convex edge at the upper end of the chest wall."""
    if not shape.muscle:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    return expit((shape.muscle * (1 - y / shape.slope) * (1 + 0.5 * y / shape.slope) - x) / 0.008)


def add_stray_calcifications(scene: Scene, rng: np.random.Generator) -> None:
    """Single benign calcifications anywhere; they belong to no lesion and change no label."""
    for _ in range(rng.poisson(1.2)):
        x, y = scene.place(rng.uniform(0.1, 0.9), rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8))
        add_dot(scene, x, y, rng.uniform(0.15, 0.4), rng.uniform(0.0025, 0.005))


def add_dot(scene: Scene, x: float, y: float, height: float, sigma: float) -> None:
    """A bright spot; `sigma` is a fraction of the picture, at least half a pixel (a smaller one is spread and fainter);
    none outside the breast or in the skin."""
    wanted = sigma * scene.size
    sigma = max(wanted, 0.5)
    reach = int(np.ceil(3 * sigma))
    column, row = int(x), int(y)
    if not (reach <= column < scene.size - reach and reach <= row < scene.size - reach and scene.inside[row, column] > 0.5):
        return
    along = np.arange(-reach, reach + 1, dtype=np.float32)
    across = np.exp(-0.5 * ((along + column + 0.5 - x) / sigma) ** 2)
    down = np.exp(-0.5 * ((along + row + 0.5 - y) / sigma) ** 2)
    spot = np.float32(height * min(1.0, wanted / sigma)) * down[:, None] * across[None]
    scene.level[row - reach : row + reach + 1, column - reach : column + reach + 1] += spot


def display(scene: Scene, rng: np.random.Generator) -> UInt8[np.ndarray, "size size"]:
    """Detector blur, quantum noise (stronger in dense tissue), film-like gray levels; black outside."""
    level = cv2.GaussianBlur(scene.level, (0, 0), 0.5)
    level += rng.standard_normal(level.shape, dtype=np.float32) * (0.012 + 0.016 * level) * (scene.inside > 0)
    gray = (1 - np.exp(-SHOULDER * np.maximum(level, 0))) ** np.float32(scene.breast.gamma)
    return np.round(255 * gray).astype(np.uint8)
