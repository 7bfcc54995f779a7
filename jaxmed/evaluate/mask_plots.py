"""Figures of masks: contours on pictures, IoU against lesion size, and how often which IoU comes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jaxmed.evaluate.mask_files import CaseMasks
from jaxmed.evaluate.mask_sizes import lesion_size, size_groups
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.style import INK, MARKERS, MUTED, SKY, YELLOW, class_colors, new_figure, styled

TRUE_LINE = {"colors": YELLOW, "linestyles": "solid"}
DRAWN_LINE = {"colors": SKY, "linestyles": "dashed"}
BINS = 20


@dataclass(frozen=True)
class Strip:
    """A row of pictures: what they have in common, and each with a text of two or three short lines."""

    name: str
    cases: list[tuple[CaseMasks, str]]


@styled
def overlay_plot(strips: list[Strip]) -> Figure:
    """The pictures with the contours of the true (orange, solid) and the drawn mask (blue, dashed)."""
    columns = max(len(strip.cases) for strip in strips)
    figure = new_figure(0.5 + 1.9 * columns, 2.35 * len(strips) + 0.4)
    grid = figure.subplots(len(strips), columns, squeeze=False)
    for axes, strip in zip(grid, strips, strict=True):
        for ax in axes:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            ax.grid(False)
        axes[0].set_ylabel(strip.name, fontweight="bold", fontsize=12)
        for ax, (case, text) in zip(axes, strip.cases, strict=False):
            _overlay(ax, case)
            ax.set_title(text, fontsize=8.5, fontweight="normal", loc="left")
    handles = [Line2D([], [], color=line["colors"], linestyle=line["linestyles"], label=label)
               for line, label in ((TRUE_LINE, "true mask"), (DRAWN_LINE, "drawn by the network"))]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _overlay(ax: Axes, case: CaseMasks) -> None:
    ax.imshow(case.picture, cmap="gray", vmin=0, vmax=255)
    for mask, line in ((case.true, TRUE_LINE), (case.predicted, DRAWN_LINE)):
        if mask.any():
            _contour(ax, mask, line)
    height, width = case.picture.shape
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _contour(ax: Axes, mask: Bool[np.ndarray, "h w"], line: dict) -> None:
    """Closed also where the mask touches the edge of the picture."""
    height, width = mask.shape
    x, y = np.arange(-1, width + 1), np.arange(-1, height + 1)
    ax.contour(x, y, np.pad(mask, 1).astype(float), [0.5], linewidths=1.5, **line)


def by_class(table: Predictions) -> Iterator[tuple[str, Bool[np.ndarray, " n"], str, str]]:
    """(class, rows, colour, marker) of the classes that occur; "unknown" for cases without one."""
    colors = class_colors(table.classes)
    for k, name in enumerate(table.classes):
        if (table.target == k).any():
            yield name, table.target == k, colors[k], MARKERS[k % len(MARKERS)]
    if (table.target < 0).any():
        yield "unknown", table.target < 0, MUTED, "x"


@styled
def size_plot(table: Predictions) -> Figure:
    """IoU of every lesion against its size, with the mean of each third of the sizes.

    table: what `mask_sizes.lesions` gives.
    """
    figure = new_figure(5.6, 4.6)
    ax = figure.subplots()
    size = 100 * lesion_size(table)
    for name, rows, color, marker in by_class(table):
        look = {"color": color, "marker": marker, "alpha": 0.6, "linewidths": 0.8}
        ax.scatter(size[rows], table.extras["iou"][rows], s=24, label=name, **look)
    for group in size_groups(table):
        ends = 100 * np.array([group.smallest, group.largest])
        ax.fill_between(ends, group.low, group.high, color=INK, alpha=0.15, linewidth=0)
        ax.plot(ends, [group.mean, group.mean], color=INK, linewidth=2.2)
        ax.annotate(f"{group.mean:.2f}", (np.sqrt(ends.prod()), group.mean), xytext=(0, 3), textcoords="offset points",
                    ha="center", fontsize=10, fontweight="bold",
                    bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.8})
    ax.set(xscale="log", ylim=(-0.03, 1.03), xlabel="lesion size (% of the picture)", ylabel="IoU")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    handles, labels = ax.get_legend_handles_labels()
    handles.append(Line2D([], [], color=INK, linewidth=2.2))
    figure.legend(handles, [*labels, "mean of a third, 95 % interval"], loc="outside lower center", ncols=len(labels) + 1)
    return figure


@styled
def overlap_histogram(table: Predictions) -> Figure:
    """How many lesions have which IoU, classes stacked; mean and median marked.

    table: what `mask_sizes.lesions` gives.
    """
    figure = new_figure(5.6, 4.6)
    ax = figure.subplots()
    overlap = table.extras["iou"]
    groups = list(by_class(table))
    ax.hist([overlap[rows] for _, rows, *_ in groups], bins=np.linspace(0, 1, BINS + 1), stacked=True, alpha=0.75,
            color=[color for *_, color, _ in groups], label=[name for name, *_ in groups], edgecolor="white", linewidth=0.6)
    for value, name, style in ((overlap.mean(), "mean", "-"), (np.median(overlap), "median", ":")):
        ax.axvline(value, color=INK, linestyle=style, label=f"{name} {value:.2f}")
    ax.set(xlabel="IoU", ylabel="lesions", xlim=(-0.02, 1.02))
    ax.yaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=len(groups) + 2)
    return figure
