"""Liver-ultrasound phantoms made on the fly: a convex sector with one focal lesion, one to three pictures per patient.

They exist so that the first command works on a machine with nothing on it, and so that tests have a task of known
difficulty. They are not a substitute for patients: a number measured on them says only that the code works.

Difficulty: a network of three convolutions (12, 24 and 48 channels) on 64 x 64 pixels, trained on 1,200 cases for 20
epochs, reached an AUC of 0.91 on 400 others.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from jaxmed.data import phantom_lesion
from jaxmed.data import phantom_liver_lesion as lesions
from jaxmed.data.cases import Case, Source
from jaxmed.data.phantom import CLASSES, depth_gain
from jaxmed.data.phantom_liver_scan import sample_scanner, sample_sector
from jaxmed.data.phantom_liver_tissue import liver_maps, sample_liver
from jaxmed.data.phantom_scan import display, echo_power
from jaxmed.data.phantom_tissue import scatterers
from jaxmed.errors import UserError

VERSION = 1  # part of every fingerprint: raise it when a change alters pixels
IMAGES = (1, 1, 1, 2, 3)  # pictures of the five patients that each class has in a block
BLOCK = 2 * sum(IMAGES)  # cases per block


class PhantomLiverSource(Source):
    """`data.num_cases` phantoms of `data.phantom_size` pixels; `data.phantom_seed` gives another set."""

    name = "phantom_liver"
    classes = CLASSES

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("image",), predict: bool = False):
        super().__init__()
        self.seed = int(data.get("phantom_seed", 0))
        self.size = int(data.get("phantom_size", 160))
        count = int(data.get("num_cases", 480))
        if count < 1 or self.size < 64:
            raise UserError(f"data.num_cases={count}, data.phantom_size={self.size}: at least 1 case of 64 pixels")
        if tuple(data.get("classes") or CLASSES) != CLASSES:
            raise UserError(f"data.classes={tuple(data['classes'])}: phantoms have exactly the classes {CLASSES}")
        self.cases = [self._case(index) for index in range(count)]
        patients = len({case.patient_id for case in self.cases})
        made = f"liver phantoms made on the fly (seed {self.seed}, {self.size} px)"
        self.notes = [f"{made}; {patients} patients have 1 to {max(IMAGES)} images each"]

    def _case(self, index: int) -> Case:
        patient, label, _ = who(self.seed, index)
        return Case(f"liver phantom {index:05d}", label, f"patient {patient:05d}")

    def read(self, index: int) -> dict[str, np.ndarray]:
        patient, label, plane = who(self.seed, index)
        return {"image": make_phantom(self.seed, patient, plane, bool(label), self.size)}

    def fingerprint(self, index: int) -> str:
        return f"phantom-liver-v{VERSION}-seed{self.seed}-{self.size}px-{index}"


def who(seed: int, index: int) -> tuple[int, int, int]:
    """Patient number, label and plane (0, 1 or 2) of one case; every block of 16 cases holds 8 of each class."""
    block, slot = divmod(index, BLOCK)
    order = np.random.default_rng([seed, block, 0x11FE]).permutation(BLOCK)
    label, place = divmod(int(order[slot]), BLOCK // 2)
    ends = np.cumsum(IMAGES)
    member = int(np.searchsorted(ends, place, side="right"))
    plane = place - int(ends[member] - IMAGES[member])
    return (2 * block + label) * len(IMAGES) + member, label, plane


def make_phantom(seed: int, patient: int, plane: int, malignant: bool, size: int) -> UInt8[np.ndarray, "size size"]:
    """One picture.

    The patient's generator draws the lesion and the liver; the plane's generator all that a second look changes.
    """
    person = np.random.default_rng([seed, patient, 0x11FE])
    lesion = lesions.sample_lesion(person, malignant)
    liver = sample_liver(person, lesion.coarse)
    look = np.random.default_rng([seed, patient, plane + 1, 0x11FE])
    sector = sample_sector(look, size)
    scanner = sample_scanner(look, sector)
    points = lesions.place(phantom_lesion.outline(lesion, look), sector, liver.wall, look)
    level, mirrors, loss = liver_maps(liver, sector, look)
    loss += lesions.insert(level, mirrors, points, lesion, sector, look)
    echo = echo_power(mirrors + scatterers(level, liver.density, look), scanner)
    return sector.to_picture(display(echo, loss, 0.6 * depth_gain(size, look), scanner))
