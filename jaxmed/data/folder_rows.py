"""What a CSV file and a folder tree both become: rows, and one error that lists every bad one."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jaxmed.data.image_io import IMAGE_SUFFIXES
from jaxmed.data.sources import first_ten
from jaxmed.errors import UserError

SHOWN = 10  # offending rows printed in full


@dataclass(frozen=True)
class Row:
    """One image as the user described it; `where` is how errors call it ("line 3", or the file)."""

    where: str
    case_id: str
    image: Path
    masks: tuple[Path, ...] = ()
    label: str = ""
    patient_id: str = ""
    split: str = ""


class Problems:
    """Collects everything wrong with a data set, so that a user fixes it in one go and not file by file."""

    def __init__(self, source: Path):
        self.source = source
        self.found: list[str] = []
        self.hint = ""  # the fix, said once for all of them

    def add(self, where: str, what: str) -> None:
        self.found.append(f"{where}: {what}")

    def raise_if_any(self) -> None:
        if self.found:
            more = len(self.found) - SHOWN
            lines = self.found[:SHOWN] + ([f"... and {more} more"] if more > 0 else [])
            lines += [self.hint] if self.hint else []
            count = f"{len(self.found)} problem{'s' if len(self.found) > 1 else ''}"
            raise UserError(f"{self.source}: {count}\n  " + "\n  ".join(lines))

    def raise_or_note(self, skip: bool, what: str) -> list[str]:
        """As `raise_if_any`; with `skip` instead one note: "3 DICOM files left out: ..."."""
        if not skip:
            self.raise_if_any()
        return [f"{len(self.found)} {what} left out: {first_ten(self.found)}"] if self.found else []


def with_patients(path: Path, rows: list[Row], pattern: str) -> list[Row]:
    """The rows with patient ids from their file names: the first group of the regular expression `pattern`.

    Searched in the name without its folder, "^([^_]+)_" is the name up to the first "_". Raises a UserError: a pattern
    that is none or has no group, rows that have patient ids already, and all at once the names that it does not match.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"data.patient_pattern={pattern!r} is not a regular expression: {error}") from error
    if not expression.groups:
        raise UserError(f'data.patient_pattern={pattern!r} needs a group around the patient id, for example "^([^_]+)_"')
    if any(row.patient_id for row in rows):
        raise UserError(f"{path}: the column patient_id and data.patient_pattern={pattern!r} both name patients; keep one")
    problems = Problems(path)
    problems.hint = f"data.patient_pattern={pattern!r} must find the patient id in every file name: correct it, or the names"
    found = []
    for row in rows:
        match = expression.search(row.image.name)
        if not match or not match[1]:
            problems.add(row.where, f"no patient id in the name {row.image.name!r}")
        found.append(replace(row, patient_id=match[1] or "" if match else ""))
    problems.raise_if_any()
    return found


def order_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names sorted, except that normal and benign come first and malignant last: the last one is positive."""
    rank = {"normal": -2, "benign": -1, "malignant": 1}
    return tuple(sorted(set(names), key=lambda name: (rank.get(name.lower(), 0), name)))


def is_image(path: Path) -> bool:
    """A picture file by its suffix; hidden files (".DS_Store", "._a.png") are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
