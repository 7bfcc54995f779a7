"""report.html: one page, complete in itself, that a radiologist can read and a reviewer can check."""

import json
import math
import os
from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jaxmed.evaluate import panels
from jaxmed.evaluate.gate_panels import gate_kind, gate_panels
from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.level_table import level_table, set_table
from jaxmed.evaluate.levels import IMAGE, estimates_by_level
from jaxmed.evaluate.mask_panels import mask_panels
from jaxmed.evaluate.mask_table import mask_cards, mask_set_table, mask_table
from jaxmed.evaluate.mask_words import mask_sentence
from jaxmed.evaluate.masks import mask_estimates
from jaxmed.evaluate.methods import explain, methods, published_table
from jaxmed.evaluate.metrics import LABELS, LOWER_IS_BETTER
from jaxmed.evaluate.router_panels import router_panels
from jaxmed.evaluate.style import to_png
from jaxmed.evaluate.summary import task_estimates
from jaxmed.evaluate.task_table import task_table
from jaxmed.evaluate.upa import upa_panels
from jaxmed.evaluate.wording import averaged_over, interval, networks, number, summary, title, uses_masks, warnings
from jaxmed.evaluate.workdir import Workdir, read_workdir
from jaxmed.evaluate.wrong import WrongCase, wrong_cases, wrong_strip

TEMPLATES = Path(__file__).parent / "templates"
CARDS = ("recall", "specificity", "auc", "accuracy")


def write_report(workdir: str | Path) -> Path:
    """Writes report.html and figures/*.png from the files of the workdir alone.

    Needs predictions.csv; uses run.json, config.json, metrics.jsonl, splits.csv, features.npz, masks/ and figures/cases/
    where they exist. Gate figures appear where gates were recorded; a table of several folds or repeats gives mean and SD.

    Raises:
        UserError: a file is missing or broken; the message names it.
    """
    run = read_workdir(workdir)
    page = environment().get_template("report.html.j2").render(**page_content(run))
    path = run.path / "report.html"
    temporary = path.with_name("report.html.tmp")
    temporary.write_text(page, encoding="utf-8")
    os.replace(temporary, path)
    return path


def environment(*folders: Path) -> Environment:
    """Where pages find their templates: in `folders`, then among the report's."""
    found = Environment(loader=FileSystemLoader([*folders, TEMPLATES]), autoescape=True, undefined=StrictUndefined,
                        trim_blocks=True, lstrip_blocks=True)
    found.filters["text"] = lambda text: str(text).replace(" %", "\N{NO-BREAK SPACE}%")
    return found


def page_content(run: Workdir) -> dict:
    """Everything the template shows."""
    names = run.test_sets if run.split in run.test_sets else [run.split]
    by_set = {name: estimates_by_level(run.table.select(split=name), not run.leaky) for name in names}
    estimates = by_set[run.split][IMAGE]
    by_task = task_estimates(run.table.select(split=run.split), run.task, not run.leaky)
    masks_by_set = {name: mask_estimates(run.table.select(split=name), not run.leaky) for name in names}
    masks = masks_by_set[run.split]
    cases = wrong_cases(run.path, run.headline)
    if any(case.picture for case in cases):
        to_png(wrong_strip(cases), run.path / "figures" / "most_wrong.png")
    rows, notes = metric_rows(estimates, run.table.classes, run.unit)
    return {
        "title": title(run),
        "subtitle": subtitle(run),
        "summary": f"{summary(run, estimates, by_task)} {mask_sentence(masks)}".strip(),
        "warnings": warnings(run),
        "cards": [row for name in CARDS for row in rows if row["name"] == name] + mask_cards(masks),
        "rows": rows,
        "scale_start": scale_start(estimates),
        "method_notes": notes,
        "has_sd": len(run.parts) > 1,
        "published": published_table(run, estimates, by_task, masks),
        "result_panels": panels.result_panels(run, estimates),
        "unit": run.unit,
        "tasks": task_table(by_task),
        "task_panels": panels.task_panels(run, [part for part, _ in by_task]),
        "levels": level_table(run, by_set[run.split]),
        "sets": set_table(run, by_set),
        "masks": mask_table(run, masks),
        "mask_sets": mask_set_table(run, masks_by_set),
        "mask_panels": mask_panels(run),
        "upa_panels": upa_panels(run),
        "router_panels": router_panels(run),
        "training_panels": panels.training_panels(run),
        "gate_panels": gate_panels(run),
        "gate_kind": gate_kind(run),
        "feature_panels": panels.feature_panels(run),
        "wrong_averaged": averaged_over(run.headline) if len(run.headline) > len(run.headline.average_repeats()) else "",
        "wrong": [wrong_entry(case, run.unit) for case in cases],
        "split_table": split_table(run),
        "data_notes": data_notes(run),
        "facts": facts(run),
        "config": json.dumps(run.config, indent=2, sort_keys=True) if run.config else "",
        "methods": methods(run, estimates, masks),
    }


def subtitle(run: Workdir) -> str:
    """Model, data and split on one line."""
    source = run.data.get("source")
    split = run.data.get("split_kind")
    parts = [run.run.get("model"), f"data: {source}" if source else "", f"split: {split}" if split else ""]
    return " · ".join(str(part) for part in parts if part)


def scale_start(estimates: dict[str, Estimate]) -> int:
    """Where the bars begin, in per cent: at 50 if nothing lies below, so that good values can be told apart."""
    shown = [estimates[name] for name in LABELS if name in estimates and name not in LOWER_IS_BETTER]
    ends = [end for value in shown for end in (value.value, value.low) if not math.isnan(end)]
    return 50 if min(ends, default=0) >= 0.5 else 0


def metric_rows(
    estimates: dict[str, Estimate], classes: tuple[str, ...], unit: str = "case"
) -> tuple[list[dict], list[str]]:
    """Rows of the metrics table, and the methods they refer to by number (from 1); none of a network without classes."""
    notes = list(dict.fromkeys(estimates[name].method for name in LABELS if name in estimates))
    start, rows = scale_start(estimates), []
    for name, label in LABELS.items() if estimates else ():
        value = estimates[name]
        bar = name not in LOWER_IS_BETTER and not math.isnan(value.value)
        rows.append({
            "name": name, "label": label, "explain": explain(name, classes, unit), "value": number(name, value.value),
            "sd": number(name, value.sd) if value.sd is not None else "", "interval": interval(name, value),
            "note": notes.index(value.method) + 1,
            "at": _on_bar(value.value, start) if bar else None,
            "low": _on_bar(value.low, start) if bar else None,
            "high": _on_bar(value.high, start) if bar else None,
        })
    return rows, notes


def _on_bar(value: float, start: int) -> float | None:
    """Position in per cent of a bar that runs from `start` per cent to 100 per cent."""
    return None if math.isnan(value) else (100 * value - start) / (100 - start) * 100


def wrong_entry(case: WrongCase, unit: str = "case") -> dict:
    """A most wrong case for the template, its picture embedded."""
    uri = panels.data_uri(case.picture.read_bytes()) if case.picture else ""
    kind = "misread" if case.wrong else "least certain"
    return {"case_id": case.case_id, "caption": case.caption, "wrong": case.wrong, "uri": uri,
            "alt": f"Picture of {unit} {case.case_id}, {kind}: truth {case.truth}, network says {case.said}."}


def split_table(run: Workdir) -> dict:
    """Cases (studies, breasts) per class and split, and groups per split, from splits.csv (or of the evaluated split alone)."""
    known = run.headline.average_repeats()
    rows = run.cases or [
        {"split": split, "label": known.classes[target] if target >= 0 else "", "group": str(cluster)}
        for split, target, cluster in zip(known.split, known.target, known.clusters(), strict=True)
    ]
    places = [row.get("split") or f"fold {row.get('fold') or '?'}" for row in rows]
    order = ["train", "val", "test", *run.test_sets]
    names = sorted(set(places), key=lambda name: (order.index(name) if name in order else len(order), name))
    counts = Counter(zip((row["label"] for row in rows), places, strict=True))
    groups = {name: {row.get("group") or i for i, row in enumerate(rows) if places[i] == name} for name in names}
    labels = list(dict.fromkeys([*run.table.classes, *(row["label"] for row in rows)]))
    if run.split_unit == "study" and run.cases:  # their labels are perhaps not the first task's classes
        labels = [label for label in labels if any(counts[label, name] for name in names)]
    return {
        "head": "Studies, by the worse breast" if run.split_unit == "study" and run.cases else f"{run.unit.capitalize()}s",
        "splits": names,
        "rows": [(label or "unknown", [counts[label, name] for name in names]) for label in labels],
        "total": [sum(counts[label, name] for label in labels) for name in names],
        "groups": [len(groups[name]) for name in names],
        "groups_label": "groups (copies not linked)" if run.leaky else "independent groups",
    }


def data_notes(run: Workdir) -> list[str]:
    """What the data source and the split have to say, then whose masks were used."""
    notes = [f"The table shows the split of the first of {networks(run)}."] if networks(run) and run.cases else []
    notes += [*run.data.get("notes", ()), *run.data.get("split_notes", ())]
    if run.data.get("mask_origin"):
        use = " (what the network learns to draw)" if len(run.masked) else "" if uses_masks(run) else " (not used)"
        notes.append(f"Lesion masks: {run.data['mask_origin']}{use}")
    return [str(note) for note in notes]


def facts(run: Workdir) -> list[tuple[str, str]]:
    """The reproducibility table: only what run.json knows."""
    info = run.run
    entries = {
        "Command": info.get("command"), "Model": info.get("model"), "Parameters": _params(info.get("params")),
        "Paper": info.get("paper"), "Preset": info.get("preset"), "Seed": _named(info.get("seeds", info.get("seed"))),
        "Device": info.get("device"), "Training time": _duration(info.get("seconds")),
        "Epoch kept": info.get("best_epoch") if len(run.parts) == 1 else None, "Git revision": info.get("git"),
        "Versions": _named(info.get("versions")),
        "Workdir": run.path.resolve().name,
    }
    return [(name, str(value)) for name, value in entries.items() if value not in (None, "")]


def _named(value: object) -> object:
    """{"init": 42, "order": 42} as "init 42, order 42"; other values as they are."""
    return ", ".join(f"{key} {entry}" for key, entry in value.items()) if isinstance(value, dict) else value


def _params(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_params(count)}" for name, count in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value or "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
