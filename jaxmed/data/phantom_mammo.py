"""Four-view mammogram phantoms made on the fly: no files, deterministic by index, labels and BI-RADS per breast.

They exist so that the first command works on a machine with nothing on it, and so that tests have a task of known
difficulty. They are not a substitute for patients: a number measured on them says only that the code works.

All views have the chest wall on the left, as `breast.orient` leaves real ones. A study's two breasts share half of their
tissue, a lesion lies at one place in space that both of its views show, and some views are missing.

Difficulty, malignant against all other breasts: a network of four convolutions (61,362 parameters) on CC and MLO of one
breast at 128 x 128, trained on 80 % of 560 studies for 15 epochs, reached an AUC of 0.89 on the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from jaxmed.data import phantom_mammo_lesion as lesions
from jaxmed.data import phantom_mammo_tissue as tissue
from jaxmed.data.studies import LABELS, SIDES, VIEWS, Study, StudySource
from jaxmed.errors import UserError

VERSION = 1  # part of every fingerprint: raise it when a change alters pixels
BLOCK = 8  # studies per block: 7 patients, one of them with a second visit
FINDINGS = ("LM", "LM", "RM", "RM", "LB", "RB", "")  # one per patient of a block: side and kind (malignant, benign)
OTHER_BENIGN = 0.2  # share of breasts without a main finding that have a benign lesion
ONE_MISSING, SIDE_MISSING, THREE_MISSING = 0.08, 0.05, 0.02  # shares of studies


@dataclass(frozen=True)
class Person:
    """Who a study shows: the block's slot decides about the finding, the person's generator about all the rest."""

    number: int
    visit: int  # 0 or 1
    finding: str  # the main finding, an entry of FINDINGS


class PhantomMammoSource(StudySource):
    """`data.num_cases` studies of `data.phantom_size` pixels; `data.phantom_seed` gives another set."""

    name = "phantom_mammo"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("views",), predict: bool = False):
        self.seed = int(data.get("phantom_seed", 0))
        self.size = int(data.get("phantom_size", 256))
        count = int(data.get("num_cases", 240))
        if count < 1 or self.size < 64:
            raise UserError(f"data.num_cases={count}, data.phantom_size={self.size}: at least 1 study of 64 pixels")
        if tuple(data.get("classes") or LABELS) != LABELS:
            raise UserError(f"data.classes={tuple(data['classes'])}: phantoms have exactly the classes {LABELS}")
        studies = [make_study(self.seed, index) for index in range(count)]
        notes = [f"four-view phantoms made on the fly (seed {self.seed}, {self.size} px)"]
        super().__init__(studies, notes, data, predict)
        self._index = {study.study_id: index for index, study in enumerate(studies)}  # a BI-RADS subset leaves some out

    def read(self, index: int) -> dict[str, np.ndarray]:
        study = self.studies[index]
        views = make_views(self.seed, self._index[study.study_id], self.size)
        return {"views": views * study.present[:, None, None].astype(np.uint8), "present": study.present}

    def fingerprint(self, index: int) -> str:
        number = self._index[self.studies[index].study_id]
        return f"phantom-mammo-v{VERSION}-seed{self.seed}-{self.size}px-{number}"


def who(seed: int, index: int) -> Person:
    """The person of a study. Of 8 studies in a block, the last slot is a second visit of the one before it."""
    block, slot = divmod(index, BLOCK)
    order = np.random.default_rng([seed, block, 0xB10C]).permutation(len(FINDINGS))
    member = min(slot, BLOCK - 2)
    return Person(block * (BLOCK - 1) + member, slot - member, FINDINGS[int(order[member])])


def sample_lesions(person: Person, rng: np.random.Generator) -> tuple[lesions.Lesion | None, ...]:
    """The lesion of the left and of the right breast, or None."""
    found = []
    for side in SIDES:
        chance = rng.random() < OTHER_BENIGN
        kind = person.finding[1:] if person.finding[:1] == side else ("B" if chance else "")
        lesion = lesions.sample_lesion(rng, kind == "M")  # drawn in any case: both sides use up the same random numbers
        found.append(lesion if kind else None)
    return tuple(found)


def make_study(seed: int, index: int) -> Study:
    """Labels, BI-RADS and missing views of one study; no pixels."""
    person = who(seed, index)
    found = sample_lesions(person, of_person(seed, person, "lesions"))
    label = tuple(0 if lesion is None else int(lesion.malignant) for lesion in found)
    birads = tuple(1 if lesion is None else lesion.birads for lesion in found)
    gone = missing_views(np.random.default_rng([seed, index, 0x3155]))
    name = f"phantom {index:05d}"
    views = {view: None if view in gone else f"{name} {view}" for view in VIEWS}
    return Study(name, f"patient {person.number:05d}", views, label, birads)


def missing_views(rng: np.random.Generator) -> tuple[str, ...]:
    """Usually none; sometimes one, both of a side, or three."""
    chance, order = rng.random(), rng.permutation(len(VIEWS))
    if chance < ONE_MISSING:
        return (VIEWS[order[0]],)
    if chance < ONE_MISSING + SIDE_MISSING:
        return VIEWS[:2] if order[0] < 2 else VIEWS[2:]
    if chance < ONE_MISSING + SIDE_MISSING + THREE_MISSING:
        return tuple(VIEWS[k] for k in order[:3])
    return ()


def make_views(seed: int, index: int, size: int) -> UInt8[np.ndarray, "4 size size"]:
    """The pixels of all four views, in the order of VIEWS, missing ones too."""
    person = who(seed, index)
    found = sample_lesions(person, of_person(seed, person, "lesions"))
    build = tissue.sample_breast(of_person(seed, person, "breast"))
    look = np.random.default_rng([seed, person.number, person.visit, 0x100C])
    textures = tissue.make_textures(size, np.random.default_rng([seed, person.number, size]), look)
    views = np.zeros((len(VIEWS), size, size), np.uint8)
    for row, name in enumerate(VIEWS):
        side, view = name.split("_")
        views[row] = make_view(build, view, textures[row], found[SIDES.index(side)], look)
    return views


def make_view(
    build: tissue.Breast, view: str, texture: np.ndarray, lesion: lesions.Lesion | None, look: np.random.Generator
) -> UInt8[np.ndarray, "size size"]:
    """The pixels of one view."""
    scene = tissue.make_scene(build, tissue.sample_shape(build, view, look), texture, len(texture))
    tissue.add_stray_calcifications(scene, look)
    if lesion is not None:
        lesions.insert(scene, lesion, look)
    return tissue.display(scene, look)


def of_person(seed: int, person: Person, part: str) -> np.random.Generator:
    """Random numbers of a person that both visits share."""
    return np.random.default_rng([seed, person.number, {"lesions": 1, "breast": 2}[part]])
