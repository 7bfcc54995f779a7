"""The mask metrics of metrics.json and of the table in the terminal."""

import numpy as np

from jaxmed.evaluate.entries import count_entry, entry_of
from jaxmed.evaluate.masks import HEADS, LABELS, has_lesion, mask_estimates
from jaxmed.evaluate.predictions import Predictions

PREFIX = "mask/"


def mask_entries(table: Predictions, linked: bool = True) -> dict[str, dict]:
    """{"mask/lesions/iou": entry, ...} of a split's rows, and how many images each average is about; {} without masks."""
    estimates = mask_estimates(table, linked)
    if not estimates:
        return {}
    counts = {f"{PREFIX}{kind}/images": count_entry(amount) for kind, amount in image_counts(table).items()}
    return counts | {PREFIX + name: entry_of(value) for name, value in estimates.items()}


def image_counts(table: Predictions) -> dict[str, int]:
    """How many images with a known mask each kind of average is about, however many networks read them."""
    table = table.with_mask()
    lesion = has_lesion(table)
    rows = {"lesions": lesion, "all": np.ones(len(table), bool), "pooled": np.ones(len(table), bool), "normal": ~lesion}
    return {kind: len(np.unique(table.case_id[rows[kind]])) for kind in HEADS}


def shown_kinds(counts: dict[str, int]) -> list[str]:
    """The averages worth a place: without normal images the mean over all images is that over lesions."""
    return [kind for kind in HEADS if counts["normal"] or kind in ("lesions", "pooled")]


def mask_lines(entries: dict[str, dict]) -> list[tuple[str, dict | None]]:
    """(label, entry) of every printed mask metric; a head (without entry) above those of each kind."""
    if f"{PREFIX}all/images" not in entries:
        return []
    counts, lines = {kind: entries[f"{PREFIX}{kind}/images"]["value"] for kind in HEADS}, []
    for kind in shown_kinds(counts):
        lines.append((f"masks, {HEADS[kind]} ({counts[kind]})", None))
        lines += [(label, entries[PREFIX + name]) for name, label in LABELS.items() if name.startswith(f"{kind}/")]
    return lines
