"""What every source of mammography studies gives: a table of studies, and the four views of each of them.

BI-RADS subsets (spec of the CNN-VSSM hybrid, section 5): with `data.birads_subset` = (1, 5), (1, 3, 5) or (1, 2, 3, 4, 5),
a breast whose BI-RADS is none of them (or not known) gets -1 for both tasks and its views stay as context;
`data.keep_label=True` keeps its diagnostic label. Studies without a valid breast are dropped, and counted in the notes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from jaxmed.data import breast, dicom, image_io
from jaxmed.data.cases import Case
from jaxmed.errors import UserError

VIEWS = ("L_CC", "L_MLO", "R_CC", "R_MLO")  # the order of every array of views
SIDES = ("L", "R")
LABELS = ("non-malignant", "malignant")  # normal and benign are one class
BIRADS = (1, 2, 3, 4, 5)
PICTURE_VERSION = 1  # part of every fingerprint: raise it when `read_view` changes


@dataclass(frozen=True)
class Study:
    """The mammograms of one visit, with what is known about each breast.

    `views` maps names of VIEWS to files (phantoms: to any text); a view that is not there, or None, is missing.
    `label` and `birads` are (left, right): label 0 non-malignant, 1 malignant; birads 1 to 5; -1 where not known.
    """

    study_id: str
    patient_id: str = ""
    views: Mapping[str, Path | str | None] = field(default_factory=dict)
    label: tuple[int, int] = (-1, -1)
    birads: tuple[int, int] = (-1, -1)
    split: str = ""

    @property
    def present(self) -> Bool[np.ndarray, "4"]:
        """Which of VIEWS there are."""
        return np.array([self.views.get(name) is not None for name in VIEWS])


class StudySource:
    """A random-access table of studies; the base class of `cmmd`, `folder_views`,
    `study_records` and `phantom_mammo`.

    Attributes:
        name: the source's name in `config.data.source`.
        classes: names of the diagnostic classes.
        birads_classes: the BI-RADS categories of the second task, in the order of its class indices.
        studies: one `Study` per index, after the subset rule.
        notes: facts worth printing ("3 studies dropped: ...").
    """

    name: str = ""
    classes = LABELS
    test_sets: tuple[str, ...] = ()
    people: str = "patients"
    birads_classes: tuple[int, ...] = BIRADS

    def __init__(
        self, studies: Sequence[Study] = (), notes: Sequence[str] = (), data: Mapping | None = None, predict: bool = False
    ):
        """`predict=True` keeps every study, whatever its BI-RADS category."""
        data = data or {}
        self.notes = list(notes)
        self.studies = [blank_missing_sides(study) for study in studies]
        subset = tuple(data.get("birads_subset") or ())
        if subset:
            self.birads_classes = check_subset(subset)
        if subset and not predict:
            self.studies, more = select_birads(self.studies, subset, bool(data.get("keep_label", False)))
            self.notes += more
        self.notes.append(describe(self.studies))

    def __len__(self) -> int:
        return len(self.studies)

    @cached_property
    def cases(self) -> list[Case]:
        """One case per study, for splits, which are stratified by its label: the worse breast's.

        Where only BI-RADS is known, 4 and 5 are stratified with the malignant ones. Nothing else reads these labels.
        """
        return [Case(study.study_id, stratum(study), study.patient_id, study.split) for study in self.studies]

    def targets(self, index: int) -> dict[str, int]:
        """Class indices of the four heads: left_label, right_label, left_birads, right_birads; -1 where not known."""
        study = self.studies[index]
        targets = {"left_label": study.label[0], "right_label": study.label[1]}
        for side, value in zip(("left", "right"), study.birads, strict=True):
            known = value in self.birads_classes
            targets[f"{side}_birads"] = self.birads_classes.index(value) if known else -1
        return targets

    def read(self, index: int) -> dict[str, np.ndarray]:
        """The pixels of one study.

        Returns:
            "views": uint8 [4, h, w] in the order of VIEWS, chest wall on the left, zeros for missing views;
            "present": bool [4].

        Raises:
            UserError: a file is missing, broken or of an unsupported kind; the message names it.
        """
        raise NotImplementedError

    def fingerprint(self, index: int) -> str:
        """A text that changes when the pixels of this study change."""
        raise NotImplementedError


class FileStudySource(StudySource):
    """Studies whose views are files: DICOM, or pictures of 8 or 16 bits.

    `data.size` (default 512; or (height, width)) is the size of a view, `data.crop_breast` cuts the breast out first.
    """

    def __init__(self, studies: Sequence[Study], notes: Sequence[str], data: Mapping, predict: bool = False):
        super().__init__(studies, notes, data, predict)
        self.size = view_size(data)
        self.crop = bool(data.get("crop_breast", False))

    def read(self, index: int) -> dict[str, np.ndarray]:
        study = self.studies[index]
        views = np.zeros((len(VIEWS), *self.size), np.uint8)
        for row, name in enumerate(VIEWS):
            if study.views.get(name) is not None:
                views[row] = read_view(Path(study.views[name]), name, self.size, self.crop)
        return {"views": views, "present": study.present}

    def fingerprint(self, index: int) -> str:
        """From the files' sizes and times of change: studies are too large to be read for it (100 MB and more)."""
        parts = [f"v{PICTURE_VERSION}", f"{self.size}", f"crop {self.crop}"]
        for name in VIEWS:
            if (path := self.studies[index].views.get(name)) is not None:
                parts.append(f"{name} {path} {file_state(Path(path))}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_view(path: Path, name: str, size: tuple[int, int], crop: bool = False) -> UInt8[np.ndarray, "h w"]:
    """One view from its file: gray levels stretched to 0..255, chest wall on the left, perhaps cropped, resized.

    Args:
        name: which of VIEWS it is; it wins over a DICOM header.
    """
    return breast.to_uint8(breast.resize(read_oriented(path, name, crop), size))


def read_oriented(path: Path, name: str, crop: bool = False) -> UInt16[np.ndarray, "h w"]:
    """One view at native size: gray levels stretched to 0..65535, chest wall on the left, perhaps cropped to the breast.

    Args:
        name: which of VIEWS it is; it wins over a DICOM header.
    """
    side, view = name.split("_")
    pixels = dicom.read_dicom(path, side, view).pixels if dicom.is_dicom(path) else _stretch(path)
    pixels = breast.orient(pixels, side)
    return breast.crop_breast(pixels) if crop else pixels


def _stretch(path: Path) -> np.ndarray:
    """A PNG, JPEG, BMP or TIFF as DICOM files come: its darkest value 0, its brightest 65535."""
    pixels = image_io.decode_gray(path, deep=True).astype(np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if low == high:
        raise UserError(f"{path}: every pixel has the same gray level; the file holds no picture: take it out")
    return np.round((pixels - low) * (dicom.WHITE / (high - low))).astype(np.uint16)


def view_size(data: Mapping, default: int | tuple[int, int] = 512) -> tuple[int, int]:
    """`data.size` as (height, width)."""
    size = data.get("size") or default
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    if min(height, width) < 32:
        raise UserError(f"data.size={size}: views need at least 32 x 32 pixels")
    return int(height), int(width)


def stratum(study: Study) -> int:
    """0 or 1, for stratified splits; -1 where nothing is known."""
    if max(study.label) >= 0 or max(study.birads) < 0:
        return max(study.label)
    return int(max(study.birads) >= 4)


def blank_missing_sides(study: Study) -> Study:
    """A breast without any picture has no label: -1 for both tasks."""
    seen = study.present.reshape(2, 2).any(1)
    label = tuple(int(value) if there else -1 for value, there in zip(study.label, seen, strict=True))
    birads = tuple(int(value) if there else -1 for value, there in zip(study.birads, seen, strict=True))
    return replace(study, label=label, birads=birads)


def check_subset(subset: Sequence[int]) -> tuple[int, ...]:
    """A UserError unless these are two or more different BI-RADS categories of 1 to 5, ascending."""
    if len(subset) < 2 or sorted(set(subset)) != list(subset) or not set(subset) <= set(BIRADS):
        raise UserError(f"data.birads_subset={tuple(subset)}: name ascending categories of 1 to 5, for example (1, 3, 5)")
    return tuple(subset)


def select_birads(studies: Sequence[Study], subset: Sequence[int], keep_label: bool) -> tuple[list[Study], list[str]]:
    """The subset rule at the top of this file: the studies that are left, and notes with counts."""
    chosen, breasts, dropped = [], 0, 0
    for study in studies:
        inside = [value in subset for value in study.birads]
        known = [label >= 0 or value > 0 for label, value in zip(study.label, study.birads, strict=True)]
        breasts += sum(have and not keep for have, keep in zip(known, inside, strict=True))
        label = tuple(v if keep or keep_label else -1 for v, keep in zip(study.label, inside, strict=True))
        birads = tuple(v if keep else -1 for v, keep in zip(study.birads, inside, strict=True))
        if max(*label, *birads) < 0:
            dropped += 1
        else:
            chosen.append(replace(study, label=label, birads=birads))
    names = ", ".join(str(value) for value in subset)
    what = "have no BI-RADS class" if keep_label else "are not used as targets"
    text = f"BI-RADS subset {{{names}}}: {breasts} breasts outside it {what}"
    return chosen, [f"{text}; {dropped} studies without a valid breast dropped"]


def describe(studies: Sequence[Study]) -> str:
    """Counts of studies, patients, missing views, labels and BI-RADS as one sentence."""
    labels = [value for study in studies for value in study.label]
    birads = [value for study in studies for value in study.birads]
    missing = sum(not study.present.all() for study in studies)
    patients = len({study.patient_id for study in studies if study.patient_id})
    parts = [f"{len(studies)} studies of {patients} patients, {missing} with missing views; breasts: "]
    parts.append(", ".join(f"{labels.count(k)} {name}" for k, name in enumerate(LABELS)))
    parts.append("; BI-RADS " + ", ".join(f"{k}: {birads.count(k)}" for k in BIRADS))
    return "".join(parts)


def file_state(path: Path) -> str:
    """Size and time of change of a file, as a text; UserError if there is no such file."""
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and permissions") from error
    return f"{state.st_size} {state.st_mtime_ns}"
