"""How much each decoder level takes over from the other task: weights of the Uncertainty-Proxy Attention (paper, Fig. 3)."""

import re

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxmed.evaluate.panels import Panel, make_panel
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.style import BLUE, INK, YELLOW, new_figure, styled
from jaxmed.evaluate.wording import averaged_over, plural
from jaxmed.evaluate.workdir import Workdir

PUBLISHED = {"d1": 0.34, "d2": 0.28, "d3": 0.67, "d4": 0.81}  # mean segmentation weights of Fig. 3; its others are 1 - these
_PUBLISHED = {"color": "black", "marker": "<", "markersize": 8, "linestyle": ""}


def upa_levels(table: Predictions) -> list[str]:
    """The decoder levels whose weights were recorded (columns upa_<level>_seg and upa_<level>_cls), in their order."""
    found = [match[1] for name in table.extras if (match := re.fullmatch(r"upa_(.+)_seg", name))]
    return [level for level in found if f"upa_{level}_cls" in table.extras]


def upa_panels(workdir: Workdir) -> list[Panel]:
    """The stacked bars of mean weights; none where no weights were recorded."""
    table, levels = workdir.table.select(split=workdir.split).average_repeats(), upa_levels(workdir.table)
    if not levels:
        return []
    means = {level: (_mean(table, level, "seg"), _mean(table, level, "cls")) for level in levels}
    caption = (f"Means over {plural(len(table), workdir.unit)}; whiskers: one standard deviation between them. D1 is the "
               "coarsest level. A high segmentation weight means that the decoder's features take in much of what the "
               "classifier knows, a high classification weight the reverse; the two add up to 1.")
    caption += " Black triangles: where the paper's means meet." if any(level in PUBLISHED for level in levels) else ""
    caption += (" Look for levels that differ, and for whiskers: where there are none, the weights do not depend on the "
                "case, and nothing is adapted.")
    caption += f" Weights are means over {over}." if (over := averaged_over(workdir.table.select(split=workdir.split))) else ""
    alt = "Weights by decoder level: " + "; ".join(f"{k.upper()} segmentation {s:.2f}, classification {c:.2f}"
                                                   for k, (s, c) in means.items()) + "."
    figure = upa_plot(table, levels)
    return [make_panel(workdir, figure, "upa_weights", "Weights of the two tasks by decoder level", caption, alt)]


@styled
def upa_plot(table: Predictions, levels: list[str]) -> Figure:
    """A bar per level: the mean weight of segmentation below, of classification above."""
    figure = new_figure(8.0, 3.8)
    ax = figure.subplots()
    for k, level in enumerate(levels):
        below, above = (_mean(table, level, task) for task in ("seg", "cls"))
        ax.bar(k, below, color=BLUE, width=0.62)
        ax.bar(k, above, bottom=below, color=YELLOW, width=0.62)
        ax.errorbar(k + 0.2, below, yerr=np.nanstd(table.extras[f"upa_{level}_seg"]), color=INK, capsize=3, linewidth=1.2)
        ax.text(k, below / 2, f"{below:.2f}", ha="center", va="center", color="white", fontweight="bold")
        ax.text(k, below + above / 2, f"{above:.2f}", ha="center", va="center", color=INK, fontweight="bold")
        if level in PUBLISHED:
            ax.plot(k + 0.36, PUBLISHED[level], **_PUBLISHED)
    ax.set_xticks(range(len(levels)), [level.upper() for level in levels])
    ax.set(ylabel="mean weight", ylim=(0, 1.02), xlim=(-0.6, len(levels) - 0.4))
    ax.grid(axis="x", visible=False)
    handles = [Line2D([], [], color=color, linewidth=8, label=label)
               for color, label in ((BLUE, "segmentation"), (YELLOW, "classification"))]
    if any(level in PUBLISHED for level in levels):
        handles.append(Line2D([], [], **_PUBLISHED, label="published border (Fig. 3)"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _mean(table: Predictions, level: str, task: str) -> float:
    return float(np.nanmean(table.extras[f"upa_{level}_{task}"]))
