"""metrics.json, and the table a run ends with in the terminal."""

import json
import os
from pathlib import Path

import numpy as np

from jaxmed.evaluate.breasts import TaskPart, task_parts
from jaxmed.evaluate.entries import NOT_DEFINED, count_entry, entry_of, format_range, format_value
from jaxmed.evaluate.intervals import NO_ECE, NOT_LINKED, Estimate
from jaxmed.evaluate.levels import IMAGE, PATIENT, Levels, estimates_by_level
from jaxmed.evaluate.mask_summary import mask_entries, mask_lines
from jaxmed.evaluate.metrics import LABELS
from jaxmed.evaluate.predictions import STUDY, Predictions
from jaxmed.evaluate.prior import Priors, correction_of_table
from jaxmed.evaluate.repeats import estimate
from jaxmed.evaluate.workdir import known_splits, read_workdir

COUNTS = ("cases", "groups", "networks")
IN_TASK_TABLE = ("auc", "macro_f1", "accuracy")
IN_LEVEL_TABLE = ("accuracy", "recall", "specificity", "precision", "f1", "auc")
TaskEstimates = tuple[TaskPart, dict[str, Estimate]]


def task_estimates(table: Predictions, first: str, linked: bool = True) -> list[TaskEstimates]:
    """`estimate` of every task, on the left and right breasts and on both; nothing for tables without sides and tasks.

    Args:
        table: one split's rows, the truth of any task known.
        first: the name of the first task.
    """
    return [(part, estimate(part.table, linked)) for part in task_parts(table, first)]


def write_metrics(workdir: str | Path) -> dict:
    """Computes all metrics from predictions.csv (and the kind of split from run.json) and writes metrics.json.

    Returns:
        {split: {metric: {"value", "low", "high", "method"}}} for every split with known targets, the headline split
        first; several networks add "sd" and "runs". A value that is not defined is None. "cases", "groups" (independent
        patients or duplicate groups) and "networks" are entries of the same form. Tables with sides or further tasks
        add "studies" and, for every task and side, "<task>/<side>/<metric>" and "<task>/<side>/cases". Where patients
        have several images there are "patient/<metric>" and "patient/patients"; where run.json has the priors of a
        sampler, "ece_prior_corrected"; where there are masks, "mask/<kind>/<metric>" and "mask/<kind>/images" (`masks.LABELS`).
    """
    workdir = Path(workdir)
    run = read_workdir(workdir)
    first, linked = run.split, not run.leaky
    splits = sorted(known_splits(run.table), key=lambda name: name != first)
    metrics = {}
    for split in splits:
        rows = run.table.select(split=split)
        levels = estimates_by_level(rows, linked)
        metrics[split] = (_split_metrics(rows.known(), levels[IMAGE], linked) | _task_metrics(rows, run.task, linked)
                          | _patient_metrics(rows.known(), levels) | _prior_metrics(rows.known(), run.priors)
                          | mask_entries(rows, linked))
    temporary = workdir / "metrics.json.tmp"
    temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, workdir / "metrics.json")
    return metrics


def _split_metrics(table: Predictions, estimates: dict[str, Estimate], linked: bool) -> dict[str, dict]:
    counts = {
        "cases": len(np.unique(table.case_id)),
        "groups": len(np.unique(table.clusters())),
        "networks": len(table.parts()),
    }
    if STUDY in table.extras:
        counts["studies"] = len(np.unique(table.extras[STUDY]))
    entries = {name: count_entry(value) for name, value in counts.items()}
    entries["groups"]["method"] = "count" if linked else NOT_LINKED
    return entries | {name: entry_of(value) for name, value in estimates.items()}


def _task_metrics(table: Predictions, first: str, linked: bool) -> dict[str, dict]:
    entries = {}
    for part, values in task_estimates(table, first, linked):
        start = f"{part.task}/{part.side}/"
        entries[start + "cases"] = count_entry(len(np.unique(part.table.case_id)))
        entries |= {start + name: entry_of(value) for name, value in values.items()}
    return entries


def _patient_metrics(table: Predictions, levels: Levels) -> dict[str, dict]:
    if PATIENT not in levels:
        return {}
    entries = {f"{PATIENT}/patients": count_entry(len(np.unique(table.patient_id)))}
    return entries | {f"{PATIENT}/{name}": entry_of(value) for name, value in levels[PATIENT].items()}


def _prior_metrics(table: Predictions, priors: Priors) -> dict[str, dict]:
    return {"ece_prior_corrected": entry_of(Estimate(correction_of_table(table, priors)[1], method=NO_ECE))} if priors else {}


def format_table(metrics: dict) -> str:
    """The metrics of `write_metrics` as text; the headline split comes last, nearest to the prompt."""
    return "\n\n".join(_format_split(split, metrics[split]) for split in reversed(list(metrics)))


def _format_split(split: str, entries: dict[str, dict]) -> str:
    cases, groups, networks = (entries[name]["value"] for name in COUNTS)
    title = f"{split or 'all cases'}: {cases} cases"
    if "studies" in entries:
        title = f"{split or 'all studies'}: {cases} breasts in {entries['studies']['value']} studies"
    if entries["groups"]["method"] == NOT_LINKED:
        title += " (leaky split: copies are not linked)"
    else:
        joined = " of" if "studies" in entries else " in"
        title += f"{joined} {groups} independent groups" if groups != cases else ", all independent"
    title += f", {networks} trained networks" if networks > 1 else ""
    title += " (used to choose the epoch: optimistic)" if split == "val" else ""
    shown = [(label, entries[name]) for name, label in LABELS.items() if name in entries] + mask_lines(entries)
    methods = list(dict.fromkeys(entry["method"] for _, entry in shown if entry))
    spread = "SD" if networks > 1 else ""
    lines = [title, f"  {'':<26}{'value':>12}  {spread:>6}  {'95 % interval':<18}method"]
    for label, entry in shown:
        if entry is None:
            lines += ["", f"  {label}"]
            continue
        sd = format_value(entry.get("sd")) if spread else ""
        number = methods.index(entry["method"]) + 1
        lines.append(f"  {label:<26}{format_value(entry['value']):>12}  {sd:>6}  {format_range(entry):<18}[{number}]")
    lines += [f"  [{number}] {method}" for number, method in enumerate(methods, start=1)]
    return "\n".join([*lines, *_format_patients(entries), *_format_tasks(entries)])


def _format_patients(entries: dict[str, dict]) -> list[str]:
    """The patient level, two metrics to a line; none where patients have one image each."""
    if f"{PATIENT}/patients" not in entries:
        return []
    cells = []
    for name in IN_LEVEL_TABLE:
        entry = entries[f"{PATIENT}/{name}"]
        sd = f" ± {format_value(entry['sd'])}" if entry.get("sd") is not None and entry["value"] is not None else ""
        span = f" ({format_range(entry)})" if entry["low"] is not None else ""
        cells.append(f"  {LABELS[name]:<22}{format_value(entry['value'])}{sd}{span}")
    lines = [f"{left:<58}{right}".rstrip() for left, right in zip(cells[::2], cells[1::2], strict=True)]
    what = "the most suspicious breast" if "studies" in entries else "the mean probability over the images"
    return ["", f"  {entries[f'{PATIENT}/patients']['value']} patients, {what} of each", *lines]


def _format_tasks(entries: dict[str, dict]) -> list[str]:
    """Lines of the table of tasks and sides: count, then value and interval of `IN_TASK_TABLE`; none without tasks."""
    parts = [name.removesuffix("/cases") for name in entries if name.endswith("/cases")]
    if not parts:
        return []
    heads = ["AUC", "F1, mean over classes", "Accuracy"]
    unit = "breasts" if "studies" in entries else "cases"
    lines = ["", f"  {'task and side':<20}{unit:>8}  " + "".join(f"{head:<26}" for head in heads).rstrip()]
    for part in parts:
        shown = [entries[f"{part}/{name}"] for name in IN_TASK_TABLE]
        spans = [f" ({format_range(entry)})" if entry["low"] is not None else "" for entry in shown]
        cells = [format_value(entry["value"]) + span for entry, span in zip(shown, spans, strict=True)]
        number = entries[f"{part}/cases"]["value"]
        lines.append(f"  {part.replace('/', ', '):<20}{number:>8}  " + "".join(f"{cell:<26}" for cell in cells).rstrip())
    if any(entries[f"{part}/{name}"]["value"] is None for part in parts for name in IN_TASK_TABLE):
        where = " of one of the networks" if entries["networks"]["value"] > 1 else ""
        lines.append(f"  {NOT_DEFINED}: a class is missing among the {unit}{where}")
    return lines
