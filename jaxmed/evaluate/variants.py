"""Several variants of a config that ran on the same folds, side by side: the form of ablation tables."""

import csv
from collections.abc import Mapping
from pathlib import Path

from jaxmed.evaluate.entries import format_range, format_value

HEADS = {
    "mask/lesions/iou": "IoU", "mask/lesions/dice": "Dice", "accuracy": "Accuracy", "macro_f1": "F1, classes", "auc": "AUC",
    "recall": "Sensitivity", "specificity": "Specificity",
}  # fmt: skip
COLUMNS = ("variant", "metric", "value", "sd", "low", "high")


def write_variants(workdir: Path, metrics: Mapping[str, Mapping]) -> str:
    """Writes variants.csv, a row per variant and metric of the headline split; returns the table for the terminal.

    metrics: {variant: what `write_metrics` returns}. IoU and Dice are means over the images with a lesion.
    """
    first = {name: next(iter(found.values())) for name, found in metrics.items()}
    shown = [key for key in HEADS if any(key in entries for entries in first.values())]
    with open(workdir / "variants.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, entries in first.items():
            writer.writerows([name, key, *(entries[key].get(part) for part in COLUMNS[2:])] for key in shown if key in entries)
    width = max(len("variant"), *map(len, first))
    lines = [f"{'variant':<{width}}" + "".join(f"  {HEADS[key]:<24}" for key in shown)]
    for name, entries in first.items():
        lines.append(f"{name:<{width}}" + "".join(f"  {_cell(entries.get(key)):<24}" for key in shown))
    return "\n".join(line.rstrip() for line in lines)


def _cell(entry: Mapping | None) -> str:
    """ "0.745 (0.690 to 0.801)" """
    if entry is None:
        return "-"
    return format_value(entry["value"]) + (f" ({format_range(entry)})" if entry["low"] is not None else "")
