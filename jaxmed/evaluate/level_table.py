"""The report's tables of image and patient level, and of several test sets: each metric with its spread and interval."""

import numpy as np

from jaxmed.evaluate.breasts import SIDE
from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.levels import IMAGE, PATIENT, Levels
from jaxmed.evaluate.metrics import LABELS
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.summary import IN_LEVEL_TABLE
from jaxmed.evaluate.wording import interval, mean_sd, networks, plural
from jaxmed.evaluate.workdir import Workdir


def level_table(workdir: Workdir, levels: Levels) -> dict:
    """{"heads", "rows", "methods", "text", "spread"} for the template, a row per metric; {} without a patient level.

    levels: what `estimates_by_level` gives of the headline split.
    """
    if PATIENT not in levels:
        return {}
    table = workdir.headline
    methods = list(dict.fromkeys(values[name].method for values in levels.values() for name in IN_LEVEL_TABLE))
    rows = []
    for name in IN_LEVEL_TABLE:
        notes = sorted({methods.index(values[name].method) + 1 for values in levels.values()})
        rows.append({"label": LABELS[name], "cells": [cell(name, values[name]) for values in levels.values()], "notes": notes})
    heads = [plural(len(np.unique(table.case_id)), _row(table)), plural(len(np.unique(table.patient_id)), "patient")]
    return {"heads": heads, "rows": rows, "methods": methods, "text": _rule(table), "spread": networks(workdir)}


def _rule(table: Predictions) -> str:
    """What a patient's probability and truth are made of."""
    row = _row(table)
    text = f"A patient's probability is the mean over the patient's {row}s. "
    if row != "image":
        text = f"A patient's probability is that of the {row} which is most probably {table.classes[-1]}. "
    if len(table.classes) == 2:
        text += f"A patient is {table.classes[1]} if any of the {row}s is. "
    return text + (f"On the {row} level a patient with several {row}s counts several times; the intervals of both levels "
                   "resample patients.")


def _row(table: Predictions) -> str:
    """What a row is about, beside patients."""
    return "breast" if SIDE in table.extras else IMAGE


def set_table(workdir: Workdir, by_set: dict[str, Levels]) -> dict:
    """{"heads", "rows", "methods", "notes", "leveled", "unit", "spread"} for the template; {} with less than two test sets.

    by_set: what `estimates_by_level` gives of every test set; a set has a row for its images, and one for its patients
    where they have several images.
    """
    if len(by_set) < 2 or workdir.table.masks_only:
        return {}
    lines = [(name, level, values) for name, levels in by_set.items() for level, values in levels.items()]
    methods = list(dict.fromkeys(values[name].method for *_, values in lines for name in IN_LEVEL_TABLE))
    rows = []
    for name, level, values in lines:
        table = workdir.table.select(split=name).known()
        first = level == IMAGE
        rows.append({
            "set": name if first else "", "level": _row(table) if first else level,
            "cases": len(np.unique(table.case_id)) if first else "",
            "patients": _patients(table) if first else "", "cells": [cell(key, values[key]) for key in IN_LEVEL_TABLE],
            "notes": sorted({methods.index(values[key].method) + 1 for key in IN_LEVEL_TABLE}),
        })
    heads = [LABELS[name].split(" (")[0] for name in IN_LEVEL_TABLE]
    return {"heads": heads, "rows": rows, "methods": methods, "notes": _notes(workdir),
            "leveled": any(PATIENT in levels for levels in by_set.values()), "unit": workdir.unit,
            "spread": networks(workdir)}


def _patients(table: Predictions) -> str:
    return str(len(np.unique(table.patient_id))) if all(table.patient_id) else "–"


def _notes(workdir: Workdir) -> list[str]:
    notes = [f"Everything else on this page is about {workdir.split}."]
    if "paper's protocol" in str(workdir.data.get("split_kind")):
        notes.append(f"The {workdir.unit}s of {workdir.split} also chose the epoch: its numbers are too good.")
    return notes


def cell(name: str, value: Estimate) -> dict:
    """A metric for the template: mean ± SD (or the value of one network) above its interval."""
    return {"value": mean_sd(name, value), "interval": interval(name, value)}
