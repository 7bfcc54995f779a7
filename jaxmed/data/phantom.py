"""Breast-ultrasound phantoms made on the fly: no files, deterministic by index, masks included.

They exist so that the first command works on a machine with nothing on it, and so that tests have a task of known
difficulty. They are not a substitute for patients: a number measured on them says only that the code works.
"""

from collections.abc import Mapping

import numpy as np

from jaxmed.data import phantom_lesion as lesions
from jaxmed.data.cases import Case, Source
from jaxmed.data.phantom_scan import OVERSAMPLE, Scanner, detect, echo_envelope
from jaxmed.data.phantom_tissue import sample_breast, tissue_map
from jaxmed.errors import UserError

VERSION = 1  # part of every fingerprint: raise it when a change alters pixels
BLOCK = 16  # cases per block: 12 patients with one image, 2 with two; half of each malignant
CLASSES = ("benign", "malignant")


class PhantomSource(Source):
    """`data.num_cases` phantoms of `data.phantom_size` pixels; `data.phantom_seed` gives another set."""

    name = "phantom"
    classes = CLASSES
    has_masks = True
    mask_origin = "phantom (exact)"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("image",), predict: bool = False):
        super().__init__()
        self.seed = int(data.get("phantom_seed", 0))
        self.size = int(data.get("phantom_size", 160))
        count = int(data.get("num_cases", 480))
        if count < 1 or self.size < 32:
            raise UserError(f"data.num_cases={count}, data.phantom_size={self.size}: at least 1 case of 32 pixels")
        if tuple(data.get("classes") or CLASSES) != CLASSES:
            raise UserError(f"data.classes={tuple(data['classes'])}: phantoms have the classes {CLASSES}, in this order")
        self.cases = [self._case(index) for index in range(count)]
        pairs = count - len({case.patient_id for case in self.cases})
        self.notes = [f"phantoms made on the fly (seed {self.seed}, {self.size} px); {pairs} patients have two images"]

    def _case(self, index: int) -> Case:
        patient, label, _ = who(self.seed, index)
        return Case(f"phantom {index:05d}", label, f"patient {patient:05d}")

    def read(self, index: int) -> dict[str, np.ndarray]:
        patient, label, plane = who(self.seed, index)
        image, mask = make_phantom(self.seed, patient, plane, bool(label), self.size)
        return {"image": image, "mask": mask}

    def fingerprint(self, index: int) -> str:
        return f"phantom-v{VERSION}-seed{self.seed}-{self.size}px-{index}"


def who(seed: int, index: int) -> tuple[int, int, int]:
    """Patient number, label and plane (0 or 1) of one case.

    Every block of 16 cases holds 8 of each class and 14 patients, two of them (one per class) with two planes.
    """
    block, slot = divmod(index, BLOCK)
    order = np.random.default_rng([seed, block, 0xB10C]).permutation(BLOCK)
    member = int(order[slot])
    label, place = divmod(member, BLOCK // 2)
    patient = min(place, BLOCK // 2 - 2)
    return block * (BLOCK - 2) + label * (BLOCK // 2 - 1) + patient, label, place - patient


def make_phantom(seed: int, patient: int, plane: int, malignant: bool, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One picture and its mask, uint8 [size, size].

    The patient's generator draws the breast and the lesion, the plane's generator everything that a second look changes.
    """
    person = np.random.default_rng([seed, patient])
    depth = person.uniform(30, 44)
    pixel = depth / size
    breast = sample_breast(person, depth)
    lesion = lesions.sample_lesion(person, malignant)
    look = np.random.default_rng([seed, patient, plane + 1])
    scanner = sample_scanner(look, pixel)
    points = lesions.outline(lesion, look) + _place(lesion, depth, look)
    echo = tissue_map(breast, size, pixel, look)
    echo, attenuation = lesions.insert(echo, points, lesion, pixel, look)
    scatterers = look.standard_normal(echo.shape, dtype=np.float32) * np.power(10, echo / 20, dtype=np.float32)
    image = detect(echo_envelope(scatterers, scanner), attenuation, depth_gain(depth, size, look), scanner, look)
    return image, lesions.fill(points, (size, size), (1 / pixel, 1 / pixel))


def sample_scanner(rng: np.random.Generator, pixel: float) -> Scanner:
    """Resolution and gain differ from picture to picture, as between operators."""
    return Scanner(
        pixel=pixel,
        axial=rng.uniform(0.13, 0.2),
        lateral=rng.uniform(0.2, 0.34),
        focus=rng.uniform(10, 22),
        dynamic_range=rng.uniform(50, 62),
        gain=rng.normal(0, 3.0),
        gamma=rng.uniform(0.9, 1.25),
    )


def depth_gain(depth: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """What the depth gain gets wrong, dB: a slope and a bend that the operator did not correct."""
    z = np.linspace(0, 1, size * OVERSAMPLE, dtype=np.float32)[:, None]
    return rng.normal(-4, 4) * z - np.abs(rng.normal(0, 8)) * np.clip(z - 0.55, 0, None) ** 2 * 4


def _place(lesion: lesions.Lesion, depth: float, rng: np.random.Generator) -> np.ndarray:
    """The centre in mm: anywhere the lesion fits, mostly in the upper half."""
    half_width = 0.5 * lesion.size / np.sqrt(lesion.aspect)
    half_height = 0.5 * lesion.size * np.sqrt(lesion.aspect)
    x = rng.uniform(min(half_width + 1, depth / 2), max(depth - half_width - 1, depth / 2))
    z = np.clip(rng.normal(0.42, 0.1) * depth, half_height + 3, depth - half_height - 3)
    return np.array([x, z])
