"""How much a network listens to each view, where it was taken and where it is missing."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxmed.evaluate.breasts import views_present
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.style import BLUE, MUTED, YELLOW, new_figure, styled

FEWEST = 5  # dots below which quartiles say nothing: no box
_KINDS = (("present", BLUE, "o", -0.2), ("missing", YELLOW, "D", 0.2))


@styled
def view_weights_plot(table: Predictions, names: list[str]) -> Figure:
    """One place per view, a dot per study, a box (quartiles, whiskers 5 to 95 %); missing views beside present ones.

    Args:
        table: one row per study, with the extras `views` and gate_<name> of every name.
    """
    figure = new_figure(9.6, 4.2)
    ax = figure.subplots()
    present = views_present(table, names)
    highest = 1 / len(names)
    for k, name in enumerate(names):
        weights, known = table.extras[f"gate_{name}"], ~np.isnan(table.extras[f"gate_{name}"])
        for (_, color, marker, shift), rows in zip(_KINDS, (present[:, k], ~present[:, k]), strict=True):
            _strip(ax, k + shift, weights[rows & known], color, marker)
        highest = max(highest, np.max(weights[known], initial=0))
    ax.axhline(1 / len(names), color=MUTED, linewidth=1, linestyle=(0, (1, 3)), zorder=1)
    counts = [f"{name}\n{there.sum()} present, {(~there).sum()} missing" for name, there in zip(names, present.T, strict=True)]
    ax.set_xticks(range(len(names)), counts)
    ax.set(ylabel="view weight", xlim=(-0.6, len(names) - 0.4), ylim=(-0.02 * highest, min(1.02, 1.1 * highest)))
    ax.grid(axis="x", visible=False)
    handles = [Line2D([], [], linestyle="", marker=m, color=c, label=f"view {text}") for text, c, m, _ in _KINDS]
    handles.append(Line2D([], [], color=MUTED, linewidth=1, linestyle=(0, (1, 3)), label="equal share"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _strip(ax: Axes, place: float, weights: np.ndarray, color: str, marker: str) -> None:
    jitter = np.random.default_rng(0).uniform(-0.1, 0.1, len(weights))
    ax.scatter(place + jitter, weights, s=16, marker=marker, color=color, alpha=0.5, linewidths=0)
    if len(weights) >= FEWEST:
        ax.boxplot(weights, positions=[place], widths=0.3, whis=(5, 95), showfliers=False, manage_ticks=False,
                   medianprops={"color": color, "linewidth": 2.5}, boxprops={"color": color, "linewidth": 1.4},
                   whiskerprops={"color": color}, capprops={"color": color})
