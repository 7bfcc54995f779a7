"""Figures of the result: confusion matrix, calibration, and gate weights by class."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmed.evaluate.breasts import rows_about, unit_of
from jaxmed.evaluate.calibration import bin_of, confidence_and_outcome, reliability
from jaxmed.evaluate.curves import expert_color
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.resample import case_counts, draw_clusters
from jaxmed.evaluate.style import BLUE, INK, MUTED, RED, class_colors, new_figure, styled, unit_axes

_CROWDED = 60  # letters of class names side by side, above which they are written at a slant


@styled
def confusion_plot(matrix: np.ndarray, classes: tuple[str, ...]) -> Figure:
    """Counts and row percentages; rows are the truth, so a row adds up to 100 %."""
    figure = new_figure(5.0, 5.0)
    ax = figure.subplots()
    total = matrix.sum(axis=1, keepdims=True)
    share = np.divide(matrix, total, out=np.zeros(matrix.shape), where=total > 0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1.15)
    for (row, column), value in np.ndenumerate(matrix):
        color = "white" if share[row, column] > 0.6 else INK
        text = {"ha": "center", "color": color}
        ax.text(column, row - 0.03, f"{round(float(value), 1):g}", fontsize=19, fontweight="bold", va="bottom", **text)
        ax.text(column, row + 0.07, f"{share[row, column]:.1%}".replace("%", " %"), fontsize=11, va="top", **text)
    ticks = range(len(classes))
    size = {"fontsize": 9} if sum(map(len, classes)) > 40 else {}
    ax.set_xticks(ticks, classes, **size)
    ax.set_yticks(ticks, classes, rotation=90, va="center", **size)
    ax.set(xlabel="network says", ylabel="truth")
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return figure


@styled
def calibration_plot(
    table: Predictions, label: str, bins: int = 10, *, corrected: Predictions | None = None, corrected_label: str = ""
) -> Figure:
    """Observed against predicted probability with 95 % bars (cluster bootstrap), and how many cases each bin holds.

    corrected: the same rows with other probabilities (another class prior): a second curve, without bars and counts.
    """
    curve = reliability(table.target, table.probabilities, bins)
    low, high = _observed_interval(table, bins)
    figure = new_figure(5.0, 5.9)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="perfect calibration")
    full = curve.count > 0
    error = np.stack([curve.observed - low, high - curve.observed])[:, full]
    top.errorbar(curve.predicted[full], curve.observed[full], yerr=np.maximum(error, 0), color=BLUE, marker="o",
                 markersize=6, linewidth=1.6, elinewidth=1.2, capsize=3, label=label)
    if corrected is not None:
        other = reliability(corrected.target, corrected.probabilities, bins)
        top.plot(other.predicted[other.count > 0], other.observed[other.count > 0], color=RED, linestyle="--", linewidth=1.6,
                 marker="s", markersize=7, markerfacecolor="none", label=corrected_label)
    binary = len(table.classes) == 2
    said = f"predicted probability of {table.classes[-1]}" if binary else "probability of the chosen class"
    unit_axes(top, "", f"share that was {table.classes[-1]}" if binary else "share that was right")
    top.set_aspect("auto")  # so that both panels share their left and right ends
    top.legend(loc="lower right" if corrected is None else "upper left", frameon=True, framealpha=0.85, edgecolor="none")
    bottom.bar(curve.edges[:-1], curve.count, width=1 / bins * 0.94, align="edge", color=BLUE, alpha=0.55)
    for edge, count in zip(curve.edges, curve.count, strict=False):
        if count:
            bottom.text(edge + 0.5 / bins, count, str(count), ha="center", va="bottom", fontsize=9)
    bottom.set(xlabel=said, ylabel=f"{unit_of(table)}s", ylim=(0, curve.count.max() * 1.25))
    bottom.set_xticks(np.linspace(0, 1, 6))
    return figure


def _observed_interval(table: Predictions, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """2.5 and 97.5 percentile of the observed share per bin over resamples that have cases in it."""
    confidence, outcome = confidence_and_outcome(table.target, table.probabilities)
    member = np.eye(bins)[bin_of(confidence, bins)]
    clusters = table.clusters()
    draws = draw_clusters(clusters, table.target)
    shares = []
    for counts in case_counts(draws, clusters):
        total, hits = counts @ member, counts @ (member * outcome[:, None])
        shares.append(np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0))
    stacked = np.concatenate(shares)
    limits = np.full((2, bins), np.nan)
    used = ~np.isnan(stacked).all(axis=0)
    limits[:, used] = np.nanpercentile(stacked[:, used], [2.5, 97.5], axis=0)
    return limits[0], limits[1]


@styled
def gate_by_class(table: Predictions, names: list[str], kind: str = "expert") -> Figure:
    """Gate weight of every case, one panel per expert or view, one box (quartiles, whiskers 5 to 95 %) per class.

    A view is shown for the breasts of its own side that have it.
    """
    figure = new_figure(9.6, 4.0)
    axes = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    for position, (name, ax) in enumerate(zip(names, axes, strict=True)):
        rows = table.take(rows_about(table, name))
        _boxes(ax, rows, rows.extras[f"gate_{name}"])
        ax.set_title(f"{kind}: {name}", color=INK)
        ax.axhline(1 / len(names), color=MUTED, linewidth=1, linestyle=(0, (1, 3)), zorder=1)
        ax.spines["bottom"].set(color=expert_color(name, position), linewidth=4)
        if len(names) * sum(map(len, table.classes)) > _CROWDED:
            slant = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"} if len(table.classes) <= 3 else {"rotation": 90}
            ax.set_xticks(range(len(table.classes)), table.classes, **slant)
    highest = max(np.nanmax(table.extras[f"gate_{name}"]) for name in names)
    axes[0].set(ylabel="gate weight", ylim=(0, min(1.0, 1.1 * highest)))
    return figure


def _boxes(ax: Axes, table: Predictions, weights: np.ndarray) -> None:
    jitter = np.random.default_rng(0).uniform(-0.16, 0.16, len(table))
    for k, color in enumerate(class_colors(table.classes)):
        rows = (table.target == k) & ~np.isnan(weights)
        if not rows.any():
            continue
        ax.scatter(k + jitter[rows], weights[rows], s=9, color=color, alpha=0.35, linewidths=0)
        ax.boxplot(weights[rows], positions=[k], widths=0.5, whis=(5, 95), showfliers=False, manage_ticks=False,
                   medianprops={"color": color, "linewidth": 2.5}, boxprops={"color": color, "linewidth": 1.4},
                   whiskerprops={"color": color}, capprops={"color": color})
    ax.set_xticks(range(len(table.classes)), table.classes)
    ax.set_xlim(-0.6, len(table.classes) - 0.4)
    ax.grid(axis="x", visible=False)
