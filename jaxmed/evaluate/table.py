"""predictions.csv: one row per case (and trained network), from which every number and plot is computed."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.breasts import TEXT_EXTRAS, prob_column, second_tasks, target_column
from jaxmed.evaluate.predictions import COUNT_COLUMNS, MASK, PREFIX, TEXT_COLUMNS, Predictions, concatenate

__all__ = ["Predictions", "concatenate", "read_predictions", "write_predictions"]


def write_predictions(path: str | Path, rows: Iterable[Mapping[str, object]] | Predictions) -> None:
    """Writes the table atomically; floats in full (repr), so that metrics recompute exactly.

    Args:
        rows: mappings with case_id, patient_id, group, split, fold, repeat, target (class name, "" if not known),
            prob_<class> for every class in order (none of a network without classes), then extras; the same keys in
            every row.

    Raises:
        UserError: rows that do not share their columns, or no row at all.
    """
    path = Path(path)
    rows = list(rows.rows() if isinstance(rows, Predictions) else rows)
    if not rows:
        raise UserError(f"{path}: no predictions to write")
    header = list(rows[0])
    _check_header(path, header)
    for number, row in enumerate(rows, start=2):
        if list(row) != header:
            raise UserError(f"{path}, line {number}: columns {list(row)} differ from those of the first row, {header}")
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([[_cell(value) for value in row.values()] for row in rows])
    os.replace(temporary, path)


def _cell(value: object) -> str:
    """float32 is widened first: its repr as float64 is exact, and reading it back gives the same float32."""
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value.item() if isinstance(value, np.generic) else value)


def read_predictions(path: str | Path) -> Predictions:
    """Reads predictions.csv.

    Raises:
        UserError: a missing file or column, a value that cannot be read, an unknown target, a case that appears twice
            in one split, fold and repeat; the message names file and line (the header is line 1).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: an evaluation writes it; run --mode=eval on this workdir first")
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    header, body = (lines[0] if lines else []), lines[1:]
    classes = _check_header(path, header)
    if not body:
        raise UserError(f"{path} has a header and no rows: evaluate at least one case")
    for number, line in enumerate(body, start=2):
        if len(line) != len(header):
            raise UserError(f"{path}, line {number}: {len(line)} cells, the header has {len(header)}")
    columns = dict(zip(header, map(list, zip(*body, strict=True)), strict=True))
    table = _from_columns(path, classes, columns)
    _check_unique(path, table)
    return table


def _check_header(path: Path, header: list[str]) -> tuple[str, ...]:
    missing = [name for name in (*TEXT_COLUMNS, *COUNT_COLUMNS, "target") if name not in header]
    if missing:
        raise UserError(f"{path}: the header lacks {', '.join(missing)}; it has {', '.join(header) or 'nothing'}")
    if len(set(header)) != len(header):
        raise UserError(f"{path}: the header names a column twice: {', '.join(header)}")
    classes = tuple(name.removeprefix(PREFIX) for name in header if name.startswith(PREFIX))
    if len(classes) < 2 and (classes or MASK not in header):
        raise UserError(f"{path}: needs one column prob_<class> for each of two or more classes, or for masks without classes "
                        f"a column {MASK}; found {classes}")
    return classes


def _from_columns(path: Path, classes: tuple[str, ...], columns: dict[str, list[str]]) -> Predictions:
    probabilities = [_probabilities(path, PREFIX + name, columns[PREFIX + name]) for name in classes]
    probabilities = np.stack(probabilities, axis=1) if classes else np.zeros((len(columns["target"]), 0))
    classes = classes or tuple(sorted(set(columns["target"]) - {""}))
    known = {*TEXT_COLUMNS, *COUNT_COLUMNS, "target", *(PREFIX + name for name in classes)}
    extras = {name: _extra(values) for name, values in columns.items() if name not in known}
    extras |= {name: np.array(columns[name], dtype=str) for name in TEXT_EXTRAS if name in columns}
    for task, names in second_tasks(columns).items():
        column = target_column(task)
        _targets(path, names, columns[column], column)
        extras[column] = np.array(columns[column], dtype=str)
        extras |= {prob_column(task, name): _probabilities(path, prob_column(task, name), columns[prob_column(task, name)])
                   for name in names}
    return Predictions(
        classes,
        **{name: np.array(columns[name], dtype=str) for name in TEXT_COLUMNS},
        **{name: _integers(path, name, columns[name]) for name in COUNT_COLUMNS},
        target=_targets(path, classes, columns["target"]),
        probabilities=probabilities,
        extras=extras,
    )


def _probabilities(path: Path, column: str, cells: list[str]) -> np.ndarray:
    values = np.empty(len(cells))
    for i, cell in enumerate(cells):
        try:
            values[i] = float(cell)
        except ValueError:
            values[i] = np.nan
        if not 0 <= values[i] <= 1:
            raise UserError(f"{path}, line {i + 2}: {column} is {cell!r}, not a number from 0 to 1")
    return values


def _integers(path: Path, column: str, cells: list[str]) -> np.ndarray:
    for i, cell in enumerate(cells):
        if cell and not cell.lstrip("-").isdigit():
            raise UserError(f"{path}, line {i + 2}: {column} is {cell!r}, not a whole number")
    return np.array([int(cell or 0) for cell in cells])


def _targets(path: Path, classes: tuple[str, ...], cells: list[str], column: str = "target") -> np.ndarray:
    index = {name: k for k, name in enumerate(classes)} | {"": -1}
    for i, cell in enumerate(cells):
        if cell not in index:
            raise UserError(f"{path}, line {i + 2}: {column} {cell!r} is none of the classes {', '.join(classes)}")
    return np.array([index[cell] for cell in cells])


def _extra(cells: list[str]) -> np.ndarray:
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells, dtype=str)


def _check_unique(path: Path, table: Predictions) -> None:
    seen: dict[tuple, int] = {}
    keys = zip(table.case_id, table.split, table.fold, table.repeat, strict=True)
    for line, key in enumerate(keys, start=2):
        if not key[0]:
            raise UserError(f"{path}, line {line}: case_id is empty")
        if key in seen:
            raise UserError(f"{path}, line {line}: case {key[0]} was already on line {seen[key]} in the same split, "
                            "fold and repeat; each case counts once")
        seen[key] = line
