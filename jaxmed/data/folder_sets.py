"""Test sets that a folder source brings: other hospitals, scanners or patient groups, each with a name.

    data.dir=classification_data/train
    data.test_sets="multi=classification_data/val,single=classification_data/test_3,high_risk=classification_data/test"

is the published liver set, whose `val` folder is its multi-centre test set.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jaxmed.data.folder_csv import SPLITS
from jaxmed.data.folder_rows import Row
from jaxmed.data.sources import first_ten
from jaxmed.errors import UserError


def parse_test_sets(text: str) -> dict[str, Path]:
    """ "multi=DIR,single=DIR" -> name -> folder or CSV.

    Raises:
        UserError: a part without "=", a name given twice or that of a split, a path that does not exist.
    """
    sets: dict[str, Path] = {}
    for part in filter(None, (word.strip() for word in text.split(","))):
        name, _, path = part.partition("=")
        if not name or not path:
            raise UserError(f"data.test_sets: {part!r} is not name=DIR; give for example multi=other_hospitals,single=mine.csv")
        if name in sets or name in SPLITS:
            raise UserError(f"data.test_sets: the name {name!r} is taken; call this set something else")
        sets[name] = Path(path).expanduser()
        if not sets[name].exists():
            raise UserError(f"data.test_sets: {name}={sets[name]} does not exist")
    return sets


def as_test_set(name: str, rows: Sequence[Row]) -> list[Row]:
    """The rows of a test set: its name is their split, and stands before their case_id."""
    return [replace(row, where=f"{name}: {row.where}", case_id=f"{name}/{row.case_id}", split=name) for row in rows]


def check_patients_apart(trained: Sequence[Row], tested: Sequence[Row]) -> None:
    """Raises a UserError that names patients found in the training data and in a test set."""
    known = {row.patient_id for row in trained} - {""}
    for name in dict.fromkeys(row.split for row in tested):
        if shared := sorted(known & {row.patient_id for row in tested if row.split == name}):
            fix = f"take their images out of one of the two; {len(shared)} such patients"
            raise UserError(f"test set {name!r} shares patients with the training data: {first_ten(shared)}; {fix}")
