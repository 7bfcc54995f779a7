"""The ROC curve with a confidence band from the same resamples as the intervals."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmed.evaluate.metrics import area_under_curve, confusion_matrix
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.resample import case_counts, draw_clusters, threshold_counts
from jaxmed.evaluate.style import BLACK, BLUE, MUTED, class_colors, new_figure, styled, unit_axes

GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Roc:
    """Sensitivity at the false positive rates of `GRID`: of the data, and the limits of the 95 % band."""

    sensitivity: np.ndarray
    low: np.ndarray
    high: np.ndarray


def roc_points(
    positive: np.ndarray, score: np.ndarray, counts: Int[np.ndarray, "r n"]
) -> tuple[Float[np.ndarray, "r levels"], Float[np.ndarray, "r levels"]]:
    """False positive rate and sensitivity at every threshold, from (0, 0) to (1, 1), one row per sample."""
    rates = []
    for count in threshold_counts(positive, score, counts):
        above = np.cumsum(count[:, ::-1], axis=1) / count.sum(axis=1, keepdims=True)
        rates.append(np.concatenate([np.zeros((len(count), 1)), above], axis=1))
    return rates[1], rates[0]


def roc_on_grid(positive: np.ndarray, score: np.ndarray, counts: np.ndarray) -> Float[np.ndarray, "r grid"]:
    """Sensitivity at the false positive rates of `GRID`, at a step's upper end, one row per sample."""
    false_positive, sensitivity = roc_points(positive, score, counts)
    return np.stack([np.interp(GRID, f, s) for f, s in zip(false_positive, sensitivity, strict=True)])


def roc_with_band(table: Predictions) -> Roc:
    """The curve of the positive class and its pointwise 95 % band (cluster bootstrap, as for the intervals)."""
    positive, score = table.target == len(table.classes) - 1, table.probabilities[:, -1]
    clusters = table.clusters()
    draws = draw_clusters(clusters, table.target)
    sampled = [roc_on_grid(positive, score, counts) for counts in case_counts(draws, clusters)]
    low, high = np.percentile(np.concatenate(sampled), [2.5, 97.5], axis=0)
    return Roc(roc_on_grid(positive, score, np.ones((1, len(table)), int))[0], low, high)


@styled
def roc_plot(parts: list[Predictions], area: str) -> Figure:
    """ROC of one network with its band, of several networks with their mean, or one curve per class.

    Args:
        parts: one table per trained network, every class present in each.
        area: the text of the legend, e.g. "AUC 0.95 (0.91 to 0.98)".
    """
    figure = new_figure(5.0, 5.0)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="chance")
    if len(parts[0].classes) > 2:
        _one_curve_per_class(ax, parts)
    elif len(parts) > 1:
        _many_networks(ax, parts, area)
    else:
        _one_network(ax, parts[0], area)
    unit_axes(ax, "1 - specificity (false alarms)", "sensitivity")
    ax.legend(loc="lower right", frameon=True, framealpha=0.8, edgecolor="none")
    return figure


def _one_network(ax: Axes, table: Predictions, area: str) -> None:
    positive, score = table.target == 1, table.probabilities[:, 1]
    band = roc_with_band(table)
    ax.fill_between(GRID, band.low, band.high, color=BLUE, alpha=0.18, linewidth=0, label="95 % band")
    false_positive, sensitivity = roc_points(positive, score, np.ones((1, len(table)), int))
    ax.plot(false_positive[0], sensitivity[0], color=BLUE, label=area)
    (tn, fp), (fn, tp) = confusion_matrix(table.target, table.probabilities)
    ax.plot(fp / (fp + tn), tp / (tp + fn), "o", color=BLACK, markersize=8, label="threshold 0.5")


def curves_on_grid(tables: list[Predictions], k: int) -> tuple[Float[np.ndarray, " rates"], Float[np.ndarray, "tables rates"]]:
    """False positive rates and, for every table, the sensitivity of class k against the rest; each starts in the corner."""
    ones = [np.ones((1, len(table)), int) for table in tables]
    curves = [roc_on_grid(t.target == k, t.probabilities[:, k], one)[0] for t, one in zip(tables, ones, strict=True)]
    return np.append(0, GRID), np.pad(curves, ((0, 0), (1, 0)))


def _mean_curve(ax: Axes, tables: list[Predictions], k: int, color: str, label: str) -> None:
    rate, curves = curves_on_grid(tables, k)
    if len(curves) > 1:
        for curve in curves:
            ax.plot(rate, curve, color=color, alpha=0.25, linewidth=0.8)
    ax.plot(rate, np.mean(curves, axis=0), color=color, label=label)


def _many_networks(ax: Axes, parts: list[Predictions], area: str) -> None:
    _mean_curve(ax, parts, 1, BLUE, f"mean of {len(parts)} networks\n{area}")


def _one_curve_per_class(ax: Axes, parts: list[Predictions]) -> None:
    classes = parts[0].classes
    for k, (name, color) in enumerate(zip(classes, class_colors(classes), strict=True)):
        areas = [_against_rest(table, k) for table in parts]
        _mean_curve(ax, parts, k, color, f"{name} against the rest: {np.mean(areas):.3f}")


def _against_rest(table: Predictions, k: int) -> float:
    score = table.probabilities[:, k]
    return area_under_curve((table.target == k).astype(int), np.stack([1 - score, score], axis=1))
