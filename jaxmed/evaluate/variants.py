"""Several variants of a config that ran on the same folds, side by side: the form of ablation tables."""

import csv
from collections.abc import Mapping
from pathlib import Path

from jaxmed.evaluate.entries import format_range, format_value

HEADS = {
    "mask/lesions/iou": "IoU", "mask/lesions/dice": "Dice", "mask/lesions/sensitivity": "Sensitivity (pixels)",
    "mask/lesions/precision": "Precision (pixels)", "accuracy": "Accuracy", "macro_f1": "F1, mean of classes", "auc": "AUC",
    "recall": "Sensitivity", "specificity": "Specificity", "precision": "Precision",
}  # fmt: skip
COLUMNS = ("variant", "metric", "value", "sd", "low", "high")


def write_variants(workdir: Path, metrics: Mapping[str, Mapping]) -> str:
    """Writes variants.csv, a row per variant and metric of the headline split; returns the terminal's table, a column each.

    metrics: {variant: what `write_metrics` returns}. Mask metrics are means over the images with a lesion.
    """
    first = {name: next(iter(found.values())) for name, found in metrics.items()}
    shown = [key for key in HEADS if any(key in entries for entries in first.values())]
    with open(workdir / "variants.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, entries in first.items():
            writer.writerows([name, key, *(entries[key].get(part) for part in COLUMNS[2:])] for key in shown if key in entries)
    lines = [["", *first], *([HEADS[key], *(_cell(entries.get(key)) for entries in first.values())] for key in shown)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cell(entry: Mapping | None) -> str:
    """ "0.745 (0.690 to 0.801)" """
    if entry is None:
        return "-"
    return format_value(entry["value"]) + (f" ({format_range(entry)})" if entry["low"] is not None else "")
