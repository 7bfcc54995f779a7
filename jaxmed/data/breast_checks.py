"""`--mode=check_data` for breasts of two views: reads every view, and says what is wrong and what is worth knowing.

As in `checks.py`, errors make the data unusable, warnings deserve a look. Pictures are compared as they are read: mirrored
and perhaps cropped.
"""

from collections.abc import Callable

import numpy as np

from jaxmed.data.breasts import PAIR, BreastSource
from jaxmed.data.checks import (
    ERROR,
    FACT,
    OK,
    WARNING,
    Report,
    balance,
    counted,
    shared_patients,
    split_balance,
    split_rows,
)
from jaxmed.data.reading import Progress, parallel_map
from jaxmed.data.split_table import Split
from jaxmed.data.study_checks import Look, look_at, pictures, same_pictures


def check_breasts(source: BreastSource, split: Split | None = None, *, log: Callable[[str], None] = print) -> Report:
    """Looks at every breast of `source`, and at `split` (or the source's own splits) for leaks; findings name the files.

    Sources without any label (folders for prediction) get a warning, no error.
    """
    looks = _read_all(source, log)
    report = Report(f"Data check of '{source.name}': {counted(len(source), 'breast')}, classes {', '.join(source.classes)}")
    for note in source.notes:
        report.add(FACT, note)
    if faults := [look.fault for look in looks if look.fault]:
        report.add(ERROR, f"{counted(len(faults), 'breast')} cannot be read", faults)
    else:
        report.add(OK, "every view can be read")
    if any(item.label >= 0 for item in source.breasts):
        balance(report, source)
    else:
        report.add(WARNING, "no breast has a label: good for prediction only")
    _sizes(report, looks)

    def named(index: int, view: str) -> str:
        item = source.breasts[index]
        return f"{item.case_id} {view} ({getattr(item, view)})"

    pictures(report, looks, named)
    rows = split_rows(source, split)
    same_pictures(report, looks, rows, named)
    if rows is not None:
        split_balance(report, source, rows)
        if not shared_patients(report, rows):
            report.add(OK, "no leak: no patient is in two splits")
    return report


def _read_all(source: BreastSource, log: Callable[[str], None]) -> list[Look]:
    progress = Progress(f"checking {counted(len(source), 'breast')} of '{source.name}'", len(source), log, "breasts")
    looks = []
    for look in parallel_map(lambda k: look_at(source.breasts[k].case_id, lambda: source.read(k)), len(source)):
        looks.append(look)
        progress.step()
    progress.end()
    return looks


def _sizes(report: Report, looks: list[Look]) -> None:
    for view in PAIR:
        if sizes := [look.sizes[view] for look in looks if look.sizes]:
            (low, narrow), (high, wide) = np.min(sizes, 0), np.max(sizes, 0)
            report.add(FACT, f"{view}: {low} to {high} pixels high, {narrow} to {wide} wide")
