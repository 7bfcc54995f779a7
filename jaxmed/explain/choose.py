"""Which cases are worth a look."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.metrics import from_positive

Row = Mapping[str, Any]  # of predictions.csv
WRONG, UNSURE, CERTAIN, ASKED = "most wrong", "least sure", "most certain", "asked for"


def choose(rows: Sequence[Row], classes: Sequence[str], unit: Callable[[Row], str], count: int) -> dict[str, str]:
    """{unit: why}: the first half are the cases whose true class got the lowest probability (without any labels the least
    certain ones), the second half those with the highest probability of the predicted class.

    unit: what gets a figure; the rows of two breasts may be one study.
    """
    probs = from_positive(probabilities(rows, classes))
    top, labelled = probs.max(1), [k for k, row in enumerate(rows) if row["target"]]
    if labelled:
        truth = [probs[k, list(classes).index(rows[k]["target"])] for k in labelled]
        first = [labelled[k] for k in np.argsort(truth, kind="stable")]
    else:
        first = list(np.argsort(top, kind="stable"))
    chosen: dict[str, str] = {}
    count = min(count, len({unit(row) for row in rows}))
    for k in first:
        if len(chosen) < -(-count // 2):
            wrong = rows[k]["target"] and classes[int(probs[k].argmax())] != rows[k]["target"]
            chosen.setdefault(unit(rows[k]), WRONG if wrong else UNSURE)
    for k in np.argsort(-top, kind="stable"):
        if len(chosen) < count:
            chosen.setdefault(unit(rows[k]), CERTAIN)
    return chosen


def asked(wanted: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """{unit: why} of the wanted case ids; `known` is {case id: unit}. UserError for unknown ids, with close matches."""
    problems = []
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or sorted(known)[:3]
            problems.append(f"{name!r} (close: {', '.join(near)})")
    if problems:
        raise UserError(f"--cases names cases that the data does not have: {'; '.join(problems)}")
    return {known[name]: ASKED for name in wanted}


def probabilities(rows: Sequence[Row], classes: Sequence[str]) -> np.ndarray:
    """[n, classes]."""
    return np.array([[float(row[f"prob_{name}"]) for name in classes] for row in rows])
