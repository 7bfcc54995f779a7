"""Mask metrics of a split, from the columns of `mask_scores` in predictions.csv, with their intervals.

Every metric is a sum over images divided by another one, in one of four ways, because publications mix them:

    lesions   mean over the images with a lesion
    all       mean over all images, where an empty mask of an image without lesion counts 1
    pooled    from the pixels of all images together
    normal    about the images without lesion
"""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmed.evaluate.intervals import NOT_LINKED, Estimate, describe_bootstrap, exact_estimate, percentile_interval
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.repeats import Kind, summarise_networks
from jaxmed.evaluate.resample import RESAMPLES, SEED, case_counts, draw_clusters

LABELS = {
    "lesions/iou": "IoU", "lesions/dice": "Dice", "lesions/dice_of_mean_iou": "Dice, from the mean IoU",
    "lesions/sensitivity": "Sensitivity (pixels)", "lesions/precision": "Precision (pixels)",
    "lesions/hd95": "Hausdorff 95 % (pixels)", "lesions/asd": "Surface distance (pixels)", "lesions/missed": "Missed lesions",
    "all/iou": "IoU", "all/dice": "Dice",
    "pooled/iou": "IoU", "pooled/dice": "Dice", "pooled/sensitivity": "Sensitivity (pixels)",
    "pooled/precision": "Precision (pixels)",
    "normal/false_alarm": "False alarms",
}  # fmt: skip
HEADS = {
    "lesions": "mean over images with a lesion", "all": "mean over all images, two empty masks count 1",
    "pooled": "pixels of all images together", "normal": "images without a lesion",
}  # fmt: skip
SHARES = ("lesions/missed", "normal/false_alarm")
DERIVED, SOURCE = "lesions/dice_of_mean_iou", "lesions/iou"
Sums = dict[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]


def has_lesion(table: Predictions) -> Bool[np.ndarray, " n"]:
    """Which images have a true mask that is not empty."""
    return table.extras["lesion_pixels"] > 0


def is_drawn(table: Predictions) -> Bool[np.ndarray, " n"]:
    """Where the network drew something."""
    return table.extras["predicted_pixels"] > 0


def is_missed(table: Predictions) -> Bool[np.ndarray, " n"]:
    """Lesions of which the network found no pixel."""
    return has_lesion(table) & (table.extras["mask_tp"] == 0)


def mask_sums(table: Predictions) -> Sums:
    """{metric: (what to sum, what to divide the sum by)} per image, of `LABELS` without the derived one."""
    column, lesion, drawn = table.extras, has_lesion(table), is_drawn(table)
    found, extra, lost = (column[f"mask_{name}"] for name in ("tp", "fp", "fn"))

    def mean(values: np.ndarray, over: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.where(over, values, 0.0), over.astype(float)

    every, outlined = np.ones(len(table), bool), lesion & drawn
    return {
        "lesions/iou": mean(column["iou"], lesion), "lesions/dice": mean(column["dice"], lesion),
        "lesions/sensitivity": mean(column["mask_sensitivity"], lesion),
        "lesions/precision": mean(column["mask_precision"], outlined),
        "lesions/hd95": mean(column["hd95"], outlined), "lesions/asd": mean(column["asd"], outlined),
        "lesions/missed": mean(is_missed(table), lesion),
        "all/iou": mean(column["iou"], every), "all/dice": mean(column["dice"], every),
        "pooled/iou": (found, found + extra + lost), "pooled/dice": (2 * found, 2 * found + extra + lost),
        "pooled/sensitivity": (found, found + lost), "pooled/precision": (found, found + extra),
        "normal/false_alarm": mean(drawn, ~lesion),
    }  # fmt: skip


def weighted_masks(table: Predictions, counts: Int[np.ndarray, "r n"]) -> dict[str, Float[np.ndarray, " r"]]:
    """The metrics of r samples, in which image i appears counts[:, i] times; nan where nothing is there to divide by."""
    values = {}
    for name, (part, whole) in mask_sums(table).items():
        total = counts @ whole
        values[name] = np.divide(counts @ part, total, out=np.full(len(counts), np.nan), where=total > 0)
    values[DERIVED] = 2 * values[SOURCE] / (1 + values[SOURCE])
    return {name: values[name] for name in LABELS}


def mask_values(table: Predictions) -> dict[str, float]:
    """The metrics of one trained network."""
    return {name: float(value[0]) for name, value in weighted_masks(table, np.ones((1, len(table)), int)).items()}


def resampled_masks(table: Predictions, draws: np.ndarray, clusters: np.ndarray) -> dict[str, Float[np.ndarray, " resamples"]]:
    """The metrics in every resample; arguments as of `resample.resampled_metrics`."""
    blocks = [weighted_masks(table, counts) for counts in case_counts(draws, clusters)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in LABELS}


MASKS = Kind(strata=lambda table: has_lesion(table).astype(int), values=mask_values, resampled=resampled_masks)


def mask_estimates(
    table: Predictions, linked: bool = True, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Estimate]:
    """Every metric of `LABELS` with a 95 % interval, over several networks with mean and SD; {} without known masks.

    Draws the same resamples of patients or duplicate groups as the metrics of classes, except that one without any
    lesion, or without any normal image where there are such, is drawn again instead of one that lacks a class.

    Args:
        table: one split's rows.
        linked: whether copies of a picture share a group; False in a leaky split.
    """
    table = table.with_mask()
    if not len(table):
        return {}
    parts = table.parts()
    estimates = summarise_networks(MASKS, parts, resamples, seed, linked) if len(parts) > 1 else _single(
        table, linked, resamples, seed)
    return {name: _with_left_out(name, estimates[name], table) for name in LABELS}


def _single(table: Predictions, linked: bool, resamples: int, seed: int) -> dict[str, Estimate]:
    clusters = table.clusters()
    draws = draw_clusters(clusters, MASKS.strata(table), resamples, seed)
    sampled, values, sums = resampled_masks(table, draws, clusters), mask_values(table), mask_sums(table)
    method = describe_bootstrap(table, resamples) + ("" if linked else f"; {NOT_LINKED}")
    groups = {name: len(np.unique(clusters[whole > 0])) for name, (_, whole) in sums.items()} | {DERIVED: 0}
    return {name: _estimate(name, values[name], sampled[name], method, groups[name]) for name in LABELS}


def _estimate(name: str, value: float, sampled: np.ndarray, method: str, groups: int) -> Estimate:
    if math.isnan(value):
        return Estimate(value, method="not defined: no such image")
    low, high = percentile_interval(sampled)
    if high - low >= 1e-12:
        return Estimate(value, low, high, method)
    if name in SHARES and value in (0.0, 1.0):
        return exact_estimate(value, groups, "all" if value else "none")
    return Estimate(value, method="no interval: every resample gives this value")


def _with_left_out(name: str, estimate: Estimate, table: Predictions) -> Estimate:
    """Says of how many lesions a distance or a precision is not defined, because nothing was drawn."""
    lesion = has_lesion(table)
    lost = int((lesion & ~is_drawn(table)).sum())
    if name not in ("lesions/hd95", "lesions/asd", "lesions/precision") or not lost:
        return estimate
    together = ", all networks together" if len(table.parts()) > 1 else ""
    note = f"{lost} of {lesion.sum()} lesions without a drawn mask left out{together}"
    return replace(estimate, method=f"{estimate.method}; {note}")
