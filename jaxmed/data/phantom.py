"""Breast-ultrasound phantoms made on the fly: no files, deterministic by index, masks included.

They exist so that the first command works on a machine with nothing on it, and so that tests have a task of known
difficulty. They are not a substitute for patients: a number measured on them says only that the code works.
"""

from collections.abc import Mapping

import numpy as np

from jaxmed.data import phantom_lesion as lesions
from jaxmed.data.cases import Case, Source
from jaxmed.data.phantom_scan import display, echo_power, sample_scanner
from jaxmed.data.phantom_tissue import sample_breast, scatterers, tissue_maps, uneven_loss
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
            raise UserError(f"data.classes={tuple(data['classes'])}: phantoms have exactly the classes {CLASSES}")
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

    The patient's generator draws the breast and the lesion; the plane's generator all that a second look changes.
    """
    person = np.random.default_rng([seed, patient])
    depth = person.uniform(30, 42)
    breast, lesion = sample_breast(person, depth), lesions.sample_lesion(person, malignant)
    look = np.random.default_rng([seed, patient, plane + 1])
    pixel = depth / size
    scanner = sample_scanner(look, pixel)
    points = lesions.outline(lesion, look)
    points += lesions.centre(points, depth, look)
    mask = lesions.fill(points, pixel, size)
    level, mirrors = tissue_maps(breast, size, pixel, look)
    loss = lesions.insert(level, mirrors, mask, points, lesion, pixel, look)
    loss += uneven_loss(breast, size, pixel, look)
    echo = echo_power(mirrors + scatterers(level, breast.density, look), scanner)
    return display(echo, loss, depth_gain(size, look), scanner), mask


def depth_gain(size: int, rng: np.random.Generator) -> np.ndarray:
    """dB by which the depth gain misses: a slope, and a drop in the deep half that nobody corrected."""
    z = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    return rng.normal(-3, 4) * z - np.float32(abs(rng.normal(0, 40))) * np.clip(z - 0.5, 0, None) ** 2
