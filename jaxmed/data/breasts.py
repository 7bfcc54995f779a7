"""What every source of breasts gives: a table of breasts, and the CC and the MLO view of each of them at native size."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from jaxmed.data import breast
from jaxmed.data.cases import Case, Source
from jaxmed.data.sources import first_ten
from jaxmed.data.studies import LABELS, PICTURE_VERSION, Study, file_state, read_oriented, view_size
from jaxmed.errors import UserError

PAIR = ("cc", "mlo")  # the views of a breast, in the order in which two-view networks take them
SIZE = (2688, 896)  # (height, width) of the paper's inputs


@dataclass(frozen=True)
class Breast:
    """The two views of one breast, with what is known about it.

    case_id is "<study_id>:left" or "<study_id>:right". label is an index into the source's `classes`, -1 where not known;
    birads is 1 to 5 or -1. cc and mlo are files (phantoms: any text). split "" means that the source does not fix it.
    """

    case_id: str
    label: int
    cc: Path | str
    mlo: Path | str
    side: str
    study_id: str = ""
    patient_id: str = ""
    split: str = ""
    birads: int = -1


class BreastSource(Source):
    """A random-access table of breasts; the base class of `folder_pairs`, `vindr_mammo`, `cbis_ddsm` and `phantom_pairs`.

    `cases` has one `Case` per breast. Where no patient is known the study stands for it, so both breasts stay together.

    Attributes:
        breasts: one `Breast` per index.
        notes: facts worth printing ("3 breasts lack a view: left out").
    """

    classes = LABELS

    def __init__(self, breasts: Sequence[Breast], notes: Sequence[str] = (), predict: bool = False):
        """Breasts without a label are left out and counted, unless `predict`.

        Raises:
            UserError: no breast is left.
        """
        super().__init__()
        self.notes = list(notes)
        unknown = [item.case_id for item in breasts if item.label < 0]
        if unknown and not predict:
            self.notes.append(f"{len(unknown)} breasts have no label: left out ({first_ten(unknown)})")
            breasts = [item for item in breasts if item.label >= 0]
        if not breasts:
            raise UserError(f"data.source={self.name!r}: no breast to use. {'; '.join(self.notes) or 'The table is empty'}")
        self.breasts = list(breasts)
        self.cases = [Case(item.case_id, item.label, item.patient_id or item.study_id, item.split) for item in self.breasts]
        if not any(item.patient_id for item in self.breasts):
            self.people = "studies"
        self.notes.append(describe(self.breasts, self.classes))

    def columns(self, index: int) -> dict[str, str]:
        return {"study_id": self.breasts[index].study_id, "side": self.breasts[index].side}

    def read(self, index: int) -> dict[str, UInt16[np.ndarray, "h w"]]:
        """The pixels of one breast at native size, chest wall on the left: "cc" and "mlo", uint16 [h, w] of their own sizes.

        Raises:
            UserError: a file is missing, broken or of an unsupported kind; the message names it.
        """
        raise NotImplementedError


class FileBreastSource(BreastSource):
    """Breasts whose views are files: DICOM, or pictures of 8 or 16 bits.

    `data.crop_breast=True` cuts the breast out. `data.pad=True` then adds black to the ratio height : width of `data.size`
    (default SIZE) on the side away from the chest wall, or above and below, so that the later resize does not distort.
    """

    def __init__(self, breasts: Sequence[Breast], notes: Sequence[str], data: Mapping, predict: bool = False):
        """Raises UserError: `data.classes` that are not the source's, and as `BreastSource`."""
        asked = tuple(data.get("classes") or self.classes)
        if asked != self.classes:
            raise UserError(f"data.classes={asked}: data.source={self.name!r} has exactly the classes {self.classes}")
        super().__init__(breasts, notes, predict)
        self.crop = bool(data.get("crop_breast", False))
        self.ratio = view_size(data, SIZE) if data.get("pad", False) else None

    def read(self, index: int) -> dict[str, UInt16[np.ndarray, "h w"]]:
        item = self.breasts[index]
        views = {}
        for name in PAIR:
            pixels = read_oriented(Path(getattr(item, name)), f"{item.side[0].upper()}_{name.upper()}", self.crop)
            views[name] = breast.pad_to_ratio(pixels, self.ratio) if self.ratio else pixels
        return views

    def fingerprint(self, index: int) -> str:
        """From the files' sizes and times of change: they are too large to be read for it."""
        parts = [f"v{PICTURE_VERSION}", f"crop {self.crop}", f"ratio {self.ratio}"]
        for name in PAIR:
            path = Path(getattr(self.breasts[index], name))
            parts.append(f"{name} {path} {file_state(path)}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def pair_views(studies: Sequence[Study]) -> tuple[list[Breast], list[str]]:
    """The breasts of these studies that have both views, left before right, and a note that counts the others."""
    breasts, lacking = [], []
    for study in studies:
        for k, side in enumerate(("left", "right")):
            cc, mlo = (study.views.get(f"{side[0].upper()}_{name.upper()}") for name in PAIR)
            case_id = f"{study.study_id}:{side}"
            if cc is not None and mlo is not None:
                facts = (study.study_id, study.patient_id, study.split, study.birads[k])
                breasts.append(Breast(case_id, study.label[k], cc, mlo, side, *facts))
            elif cc is not None or mlo is not None:
                lacking.append(case_id)
    note = f"{len(lacking)} breasts lack their CC or their MLO view: left out ({first_ten(lacking)})"
    return breasts, [note] if lacking else []


def describe(breasts: Sequence[Breast], classes: Sequence[str]) -> str:
    """Counts of breasts, studies, patients and labels as one sentence."""
    labels = [item.label for item in breasts]
    studies = len({item.study_id for item in breasts})
    patients = len({item.patient_id for item in breasts} - {""})
    people = f"{patients} patients" if patients else "no patient ids: the breasts of a study stay together"
    counts = ", ".join(f"{labels.count(k)} {name}" for k, name in enumerate(classes))
    unknown = f", {labels.count(-1)} not known" if -1 in labels else ""
    return f"{len(breasts)} breasts of {studies} studies ({people}): {counts}{unknown}"
