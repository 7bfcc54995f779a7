"""The report's tables about masks: every metric with its interval, the worst lesions, several test sets."""

import numpy as np

from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.level_table import cell
from jaxmed.evaluate.mask_sizes import lesion_size, lesions
from jaxmed.evaluate.mask_summary import image_counts, shown_kinds
from jaxmed.evaluate.mask_words import findings
from jaxmed.evaluate.masks import HEADS, LABELS
from jaxmed.evaluate.wording import averaged_over, interval, networks, number, plural
from jaxmed.evaluate.workdir import Workdir

CARDS = ("lesions/iou", "lesions/dice", "lesions/missed", "normal/false_alarm")
IN_SET_TABLE = {"lesions/iou": "IoU", "lesions/dice": "Dice", "lesions/hd95": "Hausdorff 95 %", "pooled/iou": "IoU, pooled",
                "lesions/missed": "Missed", "normal/false_alarm": "False alarms"}
WORST = 10
EXPLAIN = {
    "iou": "shared pixels out of those of either mask", "dice": "twice the shared pixels out of the sum of both masks",
    "dice_of_mean_iou": "2 IoU / (1 + IoU) of the mean IoU: how the paper's Dice follows from its IoU",
    "sensitivity": "share of the lesion's pixels that were drawn", "precision": "share of the drawn pixels that are lesion",
    "hd95": "the larger of two distances: 95 % of each contour lies within it of the other contour",
    "asd": "mean distance from a contour to the other one, both directions together",
    "missed": "share of lesions of which no pixel was found",
    "false_alarm": "share of images without a lesion that have a drawing",
}  # fmt: skip


def mask_table(workdir: Workdir, estimates: dict[str, Estimate]) -> dict:
    """{"groups": [{"head", "rows"}], "notes", "findings", "worst", "averaged"} for the template; {} without masks.

    estimates: what `mask_estimates` gives of the headline split. Methods are referred to by number (from 1).
    """
    if not estimates:
        return {}
    counts = image_counts(workdir.masked)
    methods = list(dict.fromkeys(value.method for value in estimates.values()))
    groups = [
        {"head": f"{HEADS[kind].capitalize()} ({plural(counts[kind], 'image')})",
         "rows": [mask_row(name, value, methods) for name, value in estimates.items() if name.startswith(f"{kind}/")]}
        for kind in shown_kinds(counts)
    ]
    used = sorted({row["note"] for group in groups for row in group["rows"]})
    return {"groups": groups, "notes": [(k, methods[k - 1]) for k in used], "findings": findings(workdir),
            "worst": worst_lesions(workdir), "averaged": averaged_over(workdir.masked)}


def mask_row(name: str, value: Estimate, methods: list[str]) -> dict:
    """A metric for the template, as `report.metric_rows` gives those of classes; without a bar."""
    kind = name.split("/")[1]
    return {"name": name, "label": LABELS[name].removesuffix(" (pixels)"), "explain": EXPLAIN[kind],
            "value": number(kind, value.value), "sd": number(kind, value.sd) if value.sd is not None else "",
            "interval": interval(kind, value), "note": methods.index(value.method) + 1, "at": None}


def mask_cards(estimates: dict[str, Estimate]) -> list[dict]:
    """The large numbers at the top of the page."""
    cards = [mask_row(name, estimates[name], [estimates[name].method]) for name in CARDS if name in estimates]
    labels = {"lesions/iou": "IoU of lesions", "lesions/dice": "Dice of lesions"}
    return [card | {"label": labels.get(card["name"], card["label"])} for card in cards if card["value"] != "not defined"]


def worst_lesions(workdir: Workdir) -> list[dict]:
    """The lesions with the lowest IoU, worst first."""
    table = lesions(workdir.masked)
    rows = []
    for i in np.argsort(table.extras["iou"], kind="stable")[:WORST]:
        row = table.take(np.array([i]))
        value = {name: float(column[0]) for name, column in row.extras.items() if column.dtype.kind == "f"}
        rows.append({
            "case_id": row.case_id[0], "truth": row.classes[row.target[0]] if row.target[0] >= 0 else "–",
            "iou": f"{value['iou']:.3f}", "dice": f"{value['dice']:.3f}",
            "hd95": "–" if np.isnan(value["hd95"]) else f"{value['hd95']:.1f} px",
            "size": f"{100 * lesion_size(row)[0]:.2f} %",
            "drawn": f"{100 * value['predicted_pixels'] / value['mask_pixels']:.2f} %", "remark": remark(value),
        })
    return rows


def remark(value: dict[str, float]) -> str:
    """What is wrong with a mask, where it is plain."""
    if value["predicted_pixels"] == 0:
        return "nothing drawn"
    if value["mask_tp"] == 0:
        return "drawn elsewhere"
    ratio = value["predicted_pixels"] / value["lesion_pixels"]
    return "far too large" if ratio > 2 else "far too small" if ratio < 0.5 else ""


def mask_set_table(workdir: Workdir, by_set: dict[str, dict[str, Estimate]]) -> dict:
    """{"heads", "rows", "methods"} of several test sets with masks, a row each; {} with less than two."""
    by_set = {name: estimates for name, estimates in by_set.items() if estimates}
    if len(by_set) < 2:
        return {}
    methods = list(dict.fromkeys(values[name].method for values in by_set.values() for name in IN_SET_TABLE))
    rows = [
        {"set": name, "images": image_counts(workdir.table.select(split=name))["all"],
         "cells": [cell(key.split("/")[1], values[key]) for key in IN_SET_TABLE],
         "notes": sorted({methods.index(values[key].method) + 1 for key in IN_SET_TABLE})}
        for name, values in by_set.items()
    ]
    return {"heads": list(IN_SET_TABLE.values()), "rows": rows, "methods": methods, "spread": networks(workdir)}
