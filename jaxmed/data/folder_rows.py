"""What a CSV file and a folder tree both become: rows, and one error that lists every bad one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jaxmed.data.image_io import IMAGE_SUFFIXES
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


def order_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Class names sorted, except that normal and benign come first and malignant last: the last one is positive."""
    rank = {"normal": -2, "benign": -1, "malignant": 1}
    return tuple(sorted(set(names), key=lambda name: (rank.get(name.lower(), 0), name)))


def is_image(path: Path) -> bool:
    """A picture file by its suffix; hidden files (".DS_Store", "._a.png") are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
