"""A file of human reads -> one predictions table per reader, on the model's cases.

    case_id,reader,read,experience
    test/Benign/p1_a.png,Reader 1,benign,senior

`read` is a class name, 0 or 1 (1 is the positive class), or a rating from 1 to 5; one scale in the whole file.
`experience` is optional: any text that names a group of readers.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.predictions import Predictions

COLUMNS = ("case_id", "reader", "read")
RATINGS = range(1, 6)
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Reader:
    """One human reader.

    Attributes:
        rows: the rows of the model's table that this reader has read, in order.
        table: the same rows with the reader's answers as probabilities: 0 or 1 for yes/no reads; for ratings a score that
            keeps their order and is above 0.5 from the positive rating on.
    """

    name: str
    experience: str
    rows: np.ndarray
    table: Predictions


@dataclass(frozen=True)
class Reads:
    """All readers of a file, and whether they gave ratings instead of yes/no answers."""

    readers: tuple[Reader, ...]
    rated: bool


def read_readers(path: str | Path, model: Predictions, positive_from: int = 4) -> Reads:
    """Reads the file.

    Args:
        model: one row per case, all targets known, two classes.
        positive_from: the lowest rating that means the positive class.

    Raises:
        UserError: a missing file or column, an answer on no known scale, two answers of a reader to one case, a case that
            the model's table lacks, two experiences of one reader; the message names the line (the header is line 1).
    """
    path = Path(path)
    lines = _read_lines(path)
    scores, rated = _scores(path, [line["read"] for line in lines], model.classes, positive_from)
    index = {name: row for row, name in enumerate(model.case_id.tolist())}
    answers: dict[str, dict[int, float]] = {}
    experience: dict[str, str] = {}
    unknown = []
    for number, (line, score) in enumerate(zip(lines, scores, strict=True), start=2):
        row, name = index.get(line["case_id"]), line["reader"]
        if row is None:
            unknown.append(f"line {number}: {line['case_id']!r}")
            continue
        if not name or row in answers.setdefault(name, {}):
            what = f"{name} has read case {line['case_id']} already" if name else "reader is empty"
            raise UserError(f"{path}, line {number}: {what}; each reader counts once per case")
        if experience.setdefault(name, line["experience"]) != line["experience"]:
            raise UserError(f"{path}, line {number}: experience of {name} is {line['experience']!r} here and "
                            f"{experience[name]!r} above; give one")
        answers[name][row] = score
    if unknown:
        more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        found = ", ".join(unknown[:SHOWN])
        raise UserError(f"{path}: cases that the predictions lack (or whose truth is unknown): {found}{more}; "
                        f"case ids must be those of predictions.csv, such as '{model.case_id[0]}'")
    readers = (_reader(name, experience[name], found, model) for name, found in answers.items())
    return Reads(tuple(readers), rated)


def _reader(name: str, experience: str, answers: dict[int, float], model: Predictions) -> Reader:
    rows = np.array(sorted(answers))
    scores = np.array([answers[row] for row in rows])
    table = replace(model.take(rows), probabilities=np.stack([1 - scores, scores], axis=1), extras={})
    return Reader(name, experience, rows, table)


def _read_lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; it is a CSV with the columns {', '.join(COLUMNS)} and perhaps experience")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(f"{path}: no column {missing[0]!r}; the columns are {', '.join(COLUMNS)} and perhaps experience")
        names = (*COLUMNS, "experience")
        lines = [{name: (line.get(name) or "").strip() for name in names} for line in reader]
    if not lines:
        raise UserError(f"{path} has a header and no rows; it needs one row per reader and case")
    return lines


def _scores(path: Path, answers: list[str], classes: tuple[str, ...], positive_from: int) -> tuple[list[float], bool]:
    """Every answer as a score, and whether the answers are ratings: one scale for the whole file, since 1 is in two."""
    if len(classes) != 2:
        raise UserError(f"readers are compared for two classes; the predictions have {len(classes)}: {', '.join(classes)}")
    if positive_from not in RATINGS[1:]:
        raise UserError(f"positive_from={positive_from} must be 2, 3, 4 or 5")
    folded = [answer.casefold() for answer in answers]
    yes_no = {"0": 0.0, "1": 1.0}
    named = {name.casefold(): float(k) for k, name in enumerate(classes)}
    rated = {str(k): 0.5 + (k - positive_from + 0.5) / 10 for k in RATINGS}
    for scale in (named, yes_no, rated):
        if set(folded) <= set(scale):
            return [scale[answer] for answer in folded], scale is rated
    known = {**named, **rated} if set(folded) & {"2", "3", "4", "5"} else {**named, **yes_no}
    wrong = next((k for k, answer in enumerate(folded) if answer not in known), None)
    scales = f"{' / '.join(classes)}, or 0 / 1, or ratings 1 to 5"
    if wrong is not None:
        raise UserError(f"{path}, line {wrong + 2}: read {answers[wrong]!r} is on no scale; use {scales}")
    raise UserError(f"{path}: the column read mixes scales; use one of {scales} in the whole file")
