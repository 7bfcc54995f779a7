"""Tables with one row per breast: sides, and further tasks beside the first.

Such a table has the extras `study_id`, `side` ("left", "right"), `views` ("L_CC+R_CC": the pictures that exist) and
gate_<view>. A further task has the columns <task>_target (class name, "" where not known) and <task>_prob_<class>.
Nothing here knows the names of tasks and classes: they are those of the columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from jaxmed.evaluate.predictions import STUDY, Predictions

SIDE, VIEWS = "side", "views"
TEXT_EXTRAS = (STUDY, SIDE, VIEWS)  # text even where every cell looks like a number
FIRST_TASK = "label"  # the first task's name where run.json does not give it
SIDES = ("left", "right")
BOTH, ALL = "both", "all"


@dataclass(frozen=True)
class TaskPart:
    """The rows of one task and side whose truth for this task is known; side is "both", or "all" without sides."""

    task: str
    side: str
    table: Predictions


def target_column(task: str) -> str:
    """The column of a further task's true class names."""
    return f"{task}_target"


def prob_column(task: str, name: str) -> str:
    """The column of a further task's probabilities of one class."""
    return f"{task}_prob_{name}"


def second_tasks(columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """{task: its classes} of every task beside the first, in the order of the columns."""
    columns, found = list(columns), {}
    for column in columns:
        task, is_target = column.removesuffix("_target"), column.endswith("_target")
        classes = tuple(c.removeprefix(prob_column(task, "")) for c in columns if c.startswith(prob_column(task, "")))
        if is_target and len(classes) >= 2:
            found[task] = classes
    return found


def of_task(table: Predictions, task: str) -> Predictions:
    """The same rows with a further task's classes, targets (-1: not known) and probabilities in place of the first's."""
    classes = second_tasks(table.extras)[task]
    index = {name: k for k, name in enumerate(classes)} | {"": -1}
    target = np.array([index[name] for name in table.extras[target_column(task)].tolist()], int)
    probabilities = np.stack([table.extras[prob_column(task, name)] for name in classes], axis=1)
    used = {target_column(task), *(prob_column(task, name) for name in classes)}
    extras = {name: values for name, values in table.extras.items() if name not in used}
    return replace(table, classes=classes, target=target, probabilities=probabilities, extras=extras)


def task_parts(table: Predictions, first: str = FIRST_TASK) -> list[TaskPart]:
    """Every task on every side and on both, where any truth is known; nothing for a table without sides and further tasks."""
    names = second_tasks(table.extras)
    if not names and SIDE not in table.extras:
        return []
    tables = {first: table} | {task: of_task(table, task) for task in names}
    parts = [TaskPart(task, side, rows.known()) for task, every in tables.items() for side, rows in by_side(every).items()]
    return [part for part in parts if len(part.table)]


def by_side(table: Predictions) -> dict[str, Predictions]:
    """{"left": rows, "right": rows, "both": all rows}, the sides that there are; {"all": all rows} without sides."""
    if SIDE not in table.extras:
        return {ALL: table}
    values = table.extras[SIDE]
    names = sorted(set(values.tolist()), key=lambda side: (SIDES.index(side) if side in SIDES else len(SIDES), side))
    return {side: table.take(values == side) for side in names} | {BOTH: table}


def missing_classes(table: Predictions) -> tuple[str, ...]:
    """Classes without a row in some trained network's part of the table: AUC and mean F1 are then not defined."""
    return tuple(name for k, name in enumerate(table.classes) if not all((part.target == k).any() for part in table.parts()))


def unit_of(table: Predictions) -> str:
    """What a row is about: a "breast" where the table has sides, else a "case"."""
    return "breast" if SIDE in table.extras else "case"


def one_per_study(table: Predictions) -> Predictions:
    """The first row of every study, means over repeats: for what both breasts of a study share (view weights)."""
    table = table.average_repeats()
    return table.take(np.sort(np.unique(table.extras[STUDY], return_index=True)[1]))


def view_names(table: Predictions) -> list[str]:
    """The views whose weights were recorded; none where gates are not about views."""
    if VIEWS not in table.extras:
        return []
    return [name.removeprefix("gate_") for name in table.extras if name.startswith("gate_")]


def rows_about(table: Predictions, name: str) -> Bool[np.ndarray, " n"]:
    """The rows that a gate's name is about: of a view ("L_CC") the breasts of its side that have it; of an expert all."""
    if name not in view_names(table):
        return np.ones(len(table), bool)
    rows, letter = views_present(table, [name])[:, 0], name.split("_")[0].lower()
    if SIDE in table.extras and letter in {side[:1] for side in SIDES}:
        rows = rows & np.array([side[:1] == letter for side in table.extras[SIDE].tolist()], bool)
    return rows


def views_present(table: Predictions, names: list[str]) -> Bool[np.ndarray, "n views"]:
    """Which of the views each row's study has."""
    there = [set(text.split("+")) for text in table.extras[VIEWS].tolist()]
    return np.array([[name in views for name in names] for views in there], bool).reshape(len(table), len(names))
