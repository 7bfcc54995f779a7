"""Figures of the comparison: a forest plot of the AUCs and their differences, and the mean ROC curves in one plot."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxmed.evaluate.compare_runs import ComparedRun
from jaxmed.evaluate.compare_tables import p_text, shown, span
from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.roc import curves_on_grid
from jaxmed.evaluate.style import BLACK, BLUE, CYCLE, MUTED, RED, new_figure, styled, unit_axes

LINES = ("-", "--", "-.")  # a second and third round of the colours


@styled
def forest_plot(result: dict) -> Figure:
    """Left: AUC of every run with its interval, small circles are folds. Right: differences to the reference, with p."""
    names = list(result["runs"])
    figure = new_figure(11.5, 1.5 + 0.5 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    for row, name in enumerate(names):
        run, tested = result["runs"][name], result["differences"].get(name)
        if len(run["auc_per_fold"]) > 1:
            areas = list(run["auc_per_fold"].values())
            left.plot(areas, [row] * len(areas), "o", color=BLUE, markersize=5, alpha=0.35, markeredgewidth=0)
        found = run["metrics"]["auc"]
        _row(left, row, found, BLUE, f"{shown(found.value)}\n{span(found)}")
        if tested is None:
            _beside(right, row, "reference")
        else:
            p = f"p {p_text(tested['p_value'])}, Holm {p_text(tested['p_holm'])}"
            _row(right, row, tested["auc"], _color(tested), f"{shown(tested['auc'].value, '+')}\n{p}")
    right.axvline(0, color=MUTED, linewidth=1, linestyle=":")
    left.set_yticks(range(len(names)), names)
    left.set(ylim=(len(names) - 0.4, -0.6), xlabel="AUC" + ", mean over folds" * (result["folds"] > 1))
    right.set_xlabel(f"AUC minus {result['reference']}")
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    return figure


def _color(tested: dict) -> str:
    return RED if tested["p_holm"] < 0.05 else BLACK


def _row(ax: Axes, row: int, found: Estimate, color: str, text: str) -> None:
    if not np.isnan(found.value):
        error = np.nan_to_num(np.maximum([[found.value - found.low], [found.high - found.value]], 0))
        ax.errorbar(found.value, row, xerr=error, color=color, marker="s", markersize=7, capsize=3, linewidth=1.8)
    _beside(ax, row, text)


def _beside(ax: Axes, row: int, text: str) -> None:
    ax.text(1.02, row, text, transform=ax.get_yaxis_transform(), va="center", fontsize=9, linespacing=1.25)


@styled
def roc_comparison(runs: Sequence[ComparedRun], result: dict) -> Figure:
    """Each run's mean curve over folds and repeats (and over one class against the rest, where there are more than two)."""
    figure = new_figure(5.6, 5.6)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    for number, run in enumerate(runs):
        classes = range(len(run.table.classes))
        curves = [curves_on_grid(run.parts, k) for k in (classes[-1:] if len(classes) == 2 else classes)]
        mean = np.mean([curve for _, curve in curves], axis=(0, 1))
        style = {"color": CYCLE[number % len(CYCLE)], "linestyle": LINES[number // len(CYCLE) % len(LINES)]}
        area = shown(result["runs"][run.name]["metrics"]["auc"].value)
        ax.plot(curves[0][0], mean, **style, label=f"{run.name}, AUC {area}")
    unit_axes(ax, "1 - specificity (false alarms)", "sensitivity")
    ax.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none", fontsize=9)
    return figure
