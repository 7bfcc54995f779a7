"""The report's table of tasks and sides: how many breasts, AUC, mean F1 and accuracy, each with its interval."""

import numpy as np

from jaxmed.evaluate.breasts import missing_classes, unit_of
from jaxmed.evaluate.metrics import LABELS
from jaxmed.evaluate.summary import IN_TASK_TABLE, TaskEstimates
from jaxmed.evaluate.wording import interval, number


def task_table(entries: list[TaskEstimates]) -> dict:
    """{"unit", "heads", "rows", "methods", "notes"} for the template; {} without tasks and sides.

    Methods are referred to by number (from 1); notes name the classes that a part lacks.
    """
    if not entries:
        return {}
    used = [values[name].method for _, values in entries for name in IN_TASK_TABLE]
    methods = list(dict.fromkeys(used))
    rows = []
    for position, (part, values) in enumerate(entries):
        first = position == 0 or entries[position - 1][0].task != part.task
        rows.append({
            "task": part.task if first else "", "classes": ", ".join(part.table.classes) if first else "", "side": part.side,
            "number": len(np.unique(part.table.case_id)), "cells": [_cell(name, values) for name in IN_TASK_TABLE],
            "notes": sorted({methods.index(values[name].method) + 1 for name in IN_TASK_TABLE}),
        })
    unit = unit_of(entries[0][0].table)
    return {"unit": unit, "heads": [LABELS[name] for name in IN_TASK_TABLE], "rows": rows, "methods": methods,
            "notes": [note for entry in entries for note in _notes(entry, unit)]}


def _cell(name: str, values: dict) -> dict:
    value = values[name]
    spread = "" if value.sd is None or np.isnan(value.sd) else f"SD {number(name, value.sd)}"
    return {"value": number(name, value.value), "interval": interval(name, value), "sd": spread}


def _notes(entry: TaskEstimates, unit: str) -> list[str]:
    part, values = entry
    missing = missing_classes(part.table)
    if not missing or not any(np.isnan(values[name].value) for name in IN_TASK_TABLE):
        return []
    where = "part of the cases of one of the networks" if len(part.table.parts()) > 1 else f"{unit}s"
    return [f"{part.task}, {part.side}: no {' and no '.join(missing)} among these {where}, so that what needs every class "
            "(AUC, F1) is not defined."]
