"""A split as a table: one row per case, checked, written to and read from `splits.csv`."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxmed.data.cases import Source
from jaxmed.data.views import shorten
from jaxmed.errors import UserError

COLUMNS = ("case_id", "label", "patient_id", "group", "split", "fold")
SPLITS = ("train", "val", "test")
DROPPED = "dropped"
GROUPED = "grouped"
LEAKY = "leaky, for comparison"
FROM_FILE = "read from a file"
PAPER = ", paper's protocol: selected and tested on the same cases"  # appended to the kind


@dataclass
class Split:
    """One row (keys `COLUMNS`) per case of the source, in its order; what to tell the reader; how it was made.

    `test_sets` are the splits that are tested: "test", or sets of their own that the source brings (other hospitals).
    """

    rows: list[dict]
    notes: list[str] = field(default_factory=list)
    kind: str = GROUPED
    test_sets: tuple[str, ...] = ("test",)

    def indices(self, split: str) -> np.ndarray:
        """Rows of source.cases in one split ("train", "val", a test set or "dropped"), in order.

        In the paper's protocol "val" and the first test set are the same cases: both of them.
        """
        shared = {"val", self.test_sets[0]} if self.selects_on_test else set()
        wanted = shared if split in shared else {split}
        return np.flatnonzero([row["split"] in wanted for row in self.rows])

    @property
    def selects_on_test(self) -> bool:
        """Whether the cases of the first test set also choose the epoch."""
        return self.kind.endswith(PAPER)

    @property
    def reported(self) -> tuple[str, ...]:
        """The splits that predictions are kept of, the headline first."""
        return self.test_sets if self.selects_on_test else (*self.test_sets, "val")

    def groups(self) -> np.ndarray:
        """Group id (str) of every case: the unit of resampling for intervals."""
        return np.array([row["group"] for row in self.rows])


def label_name(source: Source, label: int) -> str:
    """The class name of a label, "" where it is not known."""
    return source.classes[label] if label >= 0 else ""


def check_split(split: Split, classes: Sequence[str]) -> None:
    """Raises UserError: an unknown split name, a patient or group in two splits, a split without cases of a class."""
    known = ("train", "val", *split.test_sets, DROPPED)
    for row in split.rows:
        if row["split"] not in known:
            raise UserError(f"case {row['case_id']}: split {row['split']!r} is unknown; choose one of {', '.join(known)}")
    together = "give all its cases the same split"
    _check_shared(split, "patient_id", "patient", together)
    _check_shared(split, "group", "duplicate group", f"{together}, or accept the leak: data.group_duplicates=False")
    for name in SPLITS if split.test_sets == ("test",) else ("train", "val"):
        counts = Counter(split.rows[i]["label"] for i in split.indices(name))
        for label in classes:
            if not counts[label]:
                total = sum(row["label"] == label for row in split.rows)
                raise UserError(
                    f"split {name!r} has no case of class {label!r}, of which the source has {total}; "
                    "add cases, choose other data.classes or another split seed"
                )


def shared_across(rows: Sequence[Mapping], key: str) -> dict[str, list[Mapping]]:
    """Values of `key` (patient_id or group) found in several splits, with their rows. Dropped cases do not count."""
    members: dict[str, list] = {}
    for row in rows:
        if row[key] and row["split"] != DROPPED:
            members.setdefault(row[key], []).append(row)
    return {value: found for value, found in members.items() if len({row["split"] for row in found}) > 1}


def members_text(rows: Sequence[Mapping]) -> str:
    """ "p1_a in train, p1_b in test"."""
    return shorten([f"{row['case_id']} in {row['split']}" for row in rows], 6)


def write_split(path: Path | str, split: Split) -> None:
    """Writes `splits.csv`, and its notes and kind beside it as `splits.json`."""
    path = Path(path)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(split.rows)
    about = {"kind": split.kind, "test_sets": split.test_sets, "notes": split.notes}
    path.with_suffix(".json").write_text(json.dumps(about, indent=1))


def read_split(path: Path | str, source: Source) -> Split:
    """Reads `splits.csv` into the source's order and checks it.

    Without `splits.json` beside it the kind is "read from a file".

    Raises:
        UserError: a missing file or column, a case in only one of the two, another label, what `check_split` finds.
    """
    path = Path(path)
    found = _by_case(path)
    _check_same_cases(path, {case.case_id for case in source.cases}, set(found))
    rows = [found[case.case_id] for case in source.cases]
    for case, row in zip(source.cases, rows, strict=True):
        if row["label"] != (label := label_name(source, case.label)):
            raise UserError(f"{path}: case {case.case_id} is {row['label']!r} there and {label!r} in the data")
    split = Split([_typed(row) for row in rows], **_about(path))
    check_split(split, source.classes)
    return split


def _check_shared(split: Split, key: str, what: str, fix: str) -> None:
    shared = shared_across(split.rows, key)
    for value, members in shared.items():
        raise UserError(f"{what} {value!r} is in several splits: {members_text(members)}; {fix} ({len(shared)} such)")


def _by_case(path: Path) -> dict[str, dict]:
    if not path.exists():
        raise UserError(f"{path}: no such split file")
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(f"{path}: column {missing[0]!r} is missing; the columns are {', '.join(COLUMNS)}")
        rows = list(reader)
    names = Counter(row["case_id"] for row in rows)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"{path}: case {twice[0]!r} is there {names[twice[0]]} times")
    return {row["case_id"]: row for row in rows}


def _check_same_cases(path: Path, known: set[str], found: set[str]) -> None:
    fix = "the data and the split do not belong together: use the data the split was made from, or a new workdir"
    if lost := sorted(known - found):
        raise UserError(f"{path}: case {lost[0]!r} of the data is missing there ({len(lost)} such); {fix}")
    if extra := sorted(found - known):
        raise UserError(f"{path}: case {extra[0]!r} is not in the data ({len(extra)} such); {fix}")


def _about(path: Path) -> dict:
    """What `splits.json` says besides the rows."""
    about = path.with_suffix(".json")
    if not about.exists():
        return {"kind": FROM_FILE, "notes": [f"the split was read from {path.name}"]}
    try:
        found = json.loads(about.read_text())
        return {"kind": found["kind"], "notes": found["notes"], "test_sets": tuple(found.get("test_sets", ("test",)))}
    except (ValueError, KeyError) as error:
        raise UserError(f"{about}: damaged ({error}); delete it to read the split without its notes") from error


def _typed(row: Mapping) -> dict:
    return {key: int(row[key]) if key == "fold" and row[key] else row[key] for key in COLUMNS}
