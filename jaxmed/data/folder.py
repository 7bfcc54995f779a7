"""Your own images: a CSV (`image,mask,label,patient_id,split`), or one folder per class, perhaps inside train/, val/, test/."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxmed.data import image_io
from jaxmed.data.cases import Case, Source
from jaxmed.data.folder_csv import read_csv
from jaxmed.data.folder_rows import Problems, Row, order_classes, with_patients
from jaxmed.data.folder_sets import as_test_set, check_patients_apart, parse_test_sets
from jaxmed.data.folder_tree import read_tree
from jaxmed.errors import UserError


class FolderSource(Source):
    """The cases of `data.dir`, a .csv file or a folder.

    `data.classes` fixes the classes and their order (the last one is positive); without it they are the labels found,
    sorted, benign before malignant. `data.patient_pattern` finds patient ids in file names
    (`folder_rows.with_patients`), `data.test_sets` names further folders or CSVs that are tested (`folder_sets`). With
    predict=True labels are optional and a plain folder of images will do.

    Raises:
        UserError: see `folder_csv.read_csv` and `folder_tree.read_tree`; labels that `data.classes` does not name; patients of
            the training data in a test set.
    """

    name = "folder"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("image",), predict: bool = False):
        super().__init__()
        path = _find(data.get("dir"))
        classes = tuple(data.get("classes") or ())
        pattern = data.get("patient_pattern", "")
        self._rows, self.notes, self.mask_origin = _read(path, classes, needs, predict, pattern)
        sets = parse_test_sets(data.get("test_sets", ""))
        self.test_sets = tuple(sets)
        read = {name: _read(place, classes, needs, predict, pattern)[0] for name, place in sets.items()}
        tested = [row for name, rows in read.items() for row in as_test_set(name, rows)]
        check_patients_apart(self._rows, tested)
        self._rows += tested
        if pattern:
            patients = len({row.patient_id for row in self._rows})
            self.notes.append(f"patient ids from file names ({pattern}): {patients} patients")
        self.classes = classes or order_classes(row.label for row in self._rows if row.label)
        _check_labels(path, self._rows, self.classes, predict)
        self.cases = [self._case(row) for row in self._rows]
        self._note_masks()

    def _case(self, row: Row) -> Case:
        label = self.classes.index(row.label) if row.label else -1
        return Case(row.case_id, label, row.patient_id, row.split)

    def _note_masks(self) -> None:
        masked = sum(bool(row.masks) for row in self._rows)
        several = sum(len(row.masks) > 1 for row in self._rows)
        self.has_masks = masked == len(self._rows)
        if not self.has_masks:
            self.mask_origin = ""
        if 0 < masked < len(self._rows):
            self.notes.append(f"only {masked} of {len(self._rows)} images have a mask: masks are not used")
        if several:
            self.notes.append(f"{several} images have several masks: united")

    def read(self, index: int) -> dict[str, np.ndarray]:
        row = self._rows[index]
        image = image_io.decode_gray(row.image)
        if not self.has_masks:
            return {"image": image}
        names = [str(path) for path in row.masks]
        mask = image_io.unite([image_io.decode_mask(path) for path in row.masks], names)
        image_io.check_same_size(image, mask, str(row.image), names[0])
        return {"image": image, "mask": mask}

    def fingerprint(self, index: int) -> str:
        row = self._rows[index]
        digest = hashlib.sha256()
        for path in (row.image, *(row.masks if self.has_masks else ())):
            digest.update(hashlib.sha256(image_io.read_file(path)).digest())
        return digest.hexdigest()


def _read(
    path: Path, classes: tuple[str, ...], needs: tuple[str, ...], predict: bool, pattern: str
) -> tuple[list[Row], list[str], str]:
    """(rows, notes, whose masks they have) of one folder or CSV."""
    if path.is_dir():
        rows, notes = read_tree(path, classes, needs, predict)
        origin = f"files '<image>_mask*' or masks/ under {path.name}"
    else:
        rows, notes, origin = read_csv(path, needs, predict), [], f"column 'mask' of {path.name}"
    return with_patients(path, rows, pattern) if pattern else rows, notes, origin


def _find(path: str | Path | None) -> Path:
    if not path:
        raise UserError("data.dir is not set; pass --config.data.dir=<a .csv file, or a folder per class>")
    path = Path(path).expanduser()
    if not path.exists():
        raise UserError(f"data.dir={str(path)!r} does not exist; it must be a .csv file or a folder")
    if path.is_file() and path.suffix.lower() != ".csv":
        raise UserError(f"data.dir={str(path)!r} is neither a .csv file nor a folder")
    return path


def _check_labels(path: Path, rows: list[Row], classes: tuple[str, ...], predict: bool) -> None:
    problems = Problems(path)
    for row in rows:
        if row.label and row.label not in classes:
            problems.add(row.where, f"unknown label {row.label!r}")
            problems.hint = f"data.classes={classes}: correct the labels, or add the class"
    problems.raise_if_any()
    if len(classes) < 2 and not predict:
        raise UserError(f"{path}: training needs at least two classes, found {classes}")
