"""metrics.json, and the table a run ends with in the terminal."""

import json
import math
import os
from pathlib import Path

import numpy as np

from jaxmed.evaluate.intervals import NOT_LINKED, Estimate, metric_intervals
from jaxmed.evaluate.metrics import LABELS
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.repeats import summarise_repeats
from jaxmed.evaluate.workdir import read_workdir

COUNTS = ("cases", "groups", "networks")
NOT_DEFINED = "not defined"


def estimate(table: Predictions, linked: bool = True) -> dict[str, Estimate]:
    """Every metric of a split's rows: of one trained network, or summarised over several.

    linked: whether copies of a picture share a group; False in a leaky split.
    """
    parts = table.parts()
    return summarise_repeats(parts, linked=linked) if len(parts) > 1 else metric_intervals(table, linked=linked)


def write_metrics(workdir: str | Path) -> dict:
    """Computes all metrics from predictions.csv (and the kind of split from run.json) and writes metrics.json.

    Returns:
        {split: {metric: {"value", "low", "high", "method"}}} for every split with known targets, the headline split
        first; several networks add "sd" and "runs". A value that is not defined is None. "cases", "groups" (independent
        patients or duplicate groups) and "networks" are entries of the same form.
    """
    workdir = Path(workdir)
    run = read_workdir(workdir)
    table, first = run.table.known(), run.split
    splits = sorted(set(table.split.tolist()), key=lambda name: name != first)
    metrics = {split: _split_metrics(table.select(split=split), not run.leaky) for split in splits}
    temporary = workdir / "metrics.json.tmp"
    temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, workdir / "metrics.json")
    return metrics


def _split_metrics(table: Predictions, linked: bool) -> dict[str, dict]:
    counts = {
        "cases": len(np.unique(table.case_id)),
        "groups": len(np.unique(table.clusters())),
        "networks": len(table.parts()),
    }
    entries = {name: {"value": value, "low": None, "high": None, "method": "count"} for name, value in counts.items()}
    entries["groups"]["method"] = "count" if linked else NOT_LINKED
    return entries | {name: _entry(value) for name, value in estimate(table, linked).items()}


def _entry(value: Estimate) -> dict:
    entry = {"value": _finite(value.value), "low": _finite(value.low), "high": _finite(value.high)}
    entry["method"] = value.method
    if value.sd is not None:
        entry |= {"sd": _finite(value.sd), "runs": [_finite(run) for run in value.runs]}
    return entry


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def format_table(metrics: dict) -> str:
    """The metrics of `write_metrics` as text; the headline split comes last, nearest to the prompt."""
    return "\n\n".join(_format_split(split, metrics[split]) for split in reversed(list(metrics)))


def _format_split(split: str, entries: dict[str, dict]) -> str:
    cases, groups, networks = (entries[name]["value"] for name in COUNTS)
    title = f"{split or 'all cases'}: {cases} cases"
    if entries["groups"]["method"] == NOT_LINKED:
        title += " (leaky split: copies are not linked)"
    else:
        title += f" in {groups} independent groups" if groups != cases else ", all independent"
    title += f", {networks} trained networks" if networks > 1 else ""
    title += " (used to choose the epoch: optimistic)" if split == "val" else ""
    methods = list(dict.fromkeys(entries[name]["method"] for name in LABELS))
    spread = "SD" if networks > 1 else ""
    lines = [title, f"  {'':<26}{'value':>12}  {spread:>6}  {'95 % interval':<18}method"]
    for name, label in LABELS.items():
        entry = entries[name]
        sd = format_value(entry.get("sd")) if spread else ""
        number = methods.index(entry["method"]) + 1
        lines.append(f"  {label:<26}{format_value(entry['value']):>12}  {sd:>6}  {_range(entry):<18}[{number}]")
    return "\n".join(lines + [f"  [{number}] {method}" for number, method in enumerate(methods, start=1)])


def format_value(value: float | None) -> str:
    """Three decimals, or "not defined"."""
    return NOT_DEFINED if value is None or math.isnan(value) else f"{value:.3f}"


def _range(entry: dict) -> str:
    return "-" if entry["low"] is None else f"{entry['low']:.3f} to {entry['high']:.3f}"
