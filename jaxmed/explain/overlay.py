"""A case as a figure: its pictures, and beside them the same pictures under their heat maps."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxmed.evaluate.style import SKY, new_figure, styled
from jaxmed.explain.localise import Localisation, localise, upsampled

COLUMNS = 4
PANEL = 2.7  # inches
TALL = 2.0  # height : width from which pictures stand eight to a row instead of four
OPAQUE, FAINT = 0.65, 0.4  # of the hottest cell, and of computed windows: what lies below stays visible
GRAD_CAM, ATTENTION, CROSS, WINDOWS, SALIENCY = "Grad-CAM", "query attention", "cross-attention", "pruned windows", "saliency"
OF_A_MASK = ("core", "boundary")  # inputs that show a part of the picture


@dataclass(frozen=True)
class Box:
    """A rectangle over a picture, in its pixels; row and column are those of the upper left corner. text: written beside it."""

    row: float
    column: float
    height: float
    width: float
    text: str = ""


@dataclass(frozen=True)
class HeatMap:
    """heat: [h, w] in 0..1, all zero where nothing speaks for the class, or where the picture is missing.

    picture: the name of the input that it lies over. kind: one of those above. peak: the maximum before it was scaled to 1;
    of attention in units of equal attention everywhere, of windows the number of blocks. layer: where in the network it was
    taken. explains: the class (and breast). gate: the network's weight for the picture. says: numbers for the caption.
    """

    name: str
    picture: str
    heat: Float[np.ndarray, "h w"]
    peak: float
    layer: str
    kind: str = GRAD_CAM
    explains: str = ""
    gate: float | None = None
    says: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is no heat at all."""
        return not self.peak > 0

    @property
    def cells(self) -> str:
        """The grid in words."""
        return f"{self.heat.shape[0]} x {self.heat.shape[1]} cells"


@dataclass(frozen=True)
class Explained:
    """All there is to see of a case. pictures: the network's inputs by name, as stored. mask: of the lesion, if there is one.
    headings: truth and answer, one line per diagnosis. why: how the case was chosen. facts: columns of cases.csv. boxes: drawn
    over the pictures themselves."""

    case_id: str
    pictures: Mapping[str, UInt8[np.ndarray, "h w"]]
    maps: tuple[HeatMap, ...]
    headings: tuple[str, ...]
    why: str
    mask: np.ndarray | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    boxes: Mapping[str, tuple[Box, ...]] = field(default_factory=dict)

    @property
    def aspect(self) -> float:
        """Height : width of the pictures."""
        height, width = next(iter(self.pictures.values())).shape[:2]
        return height / width

    def localisation(self, heat: HeatMap) -> Localisation | None:
        """Heat and mask; see `localise`."""
        return localise(heat.heat, self.mask)


def colours(alpha: float | None = None) -> ListedColormap:
    """Matplotlib's inferno (perceptually uniform), the more opaque the hotter; or all but zero as opaque as `alpha`."""
    table = matplotlib.colormaps["inferno"](np.linspace(0.15, 1, 256))
    share = np.linspace(0, 1, 256)
    table[:, 3] = OPAQUE * share**0.8 if alpha is None else alpha * (share > 0)
    return ListedColormap(table)


@styled
def case_figure(case: Explained) -> Figure:
    """The pictures, then every heat map over its picture, windows in rows of their own; a masked lesion is outlined."""
    per_row, width, caption = (COLUMNS, PANEL, 0.5) if case.aspect < TALL else (2 * COLUMNS, 0.6 * PANEL, 0.65)
    rows = _rows(case, per_row)
    columns, height = max(map(len, rows)), width * case.aspect + caption
    figure = new_figure(width * columns + 0.6, height * len(rows) + 0.3 + 0.2 * len(case.headings))
    figure.get_layout_engine().set(h_pad=0.08)
    axes = np.asarray(figure.subplots(len(rows), columns, squeeze=False))
    for ax in axes.ravel():
        ax.axis("off")
    letters = int(width * 16)  # that fit into a line of a caption
    for of_row, panels in zip(axes, rows, strict=True):
        for ax, (name, heat) in zip(of_row, panels, strict=False):
            _panel(ax, case, name, heat, letters)
    figure.suptitle("\n".join([case.case_id, *case.headings]), fontsize=10, x=0.01, ha="left")
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours()), ax=list(axes.ravel()), fraction=0.02, pad=0.01)
    bar.ax.set_facecolor("0.35")
    bar.set_label("share of the map's maximum", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _rows(case: Explained, per_row: int) -> list[list[tuple[str, HeatMap | None]]]:
    """(picture, map over it or None) of every panel, by row."""
    shown = [name for name in case.pictures if name not in OF_A_MASK] or list(case.pictures)[:1]
    first = [(name, None) for name in shown] + [(heat.picture, heat) for heat in case.maps if heat.kind != WINDOWS]
    second = [(heat.picture, heat) for heat in case.maps if heat.kind == WINDOWS]
    return [part[k : k + per_row] for part in (first, second) for k in range(0, len(part), per_row)]


def _panel(ax: Axes, case: Explained, name: str, heat: HeatMap | None, letters: int) -> None:
    picture = case.pictures[name]
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    if case.mask is not None and np.any(case.mask):
        ax.contour(case.mask > 0, levels=[0.5], colors=[SKY], linewidths=1.2)
    if heat is None:
        for box in case.boxes.get(name, ()):
            _draw_box(ax, box)
        text = f"{name}" if len(case.pictures) > 1 else "input"
        ax.set_title(text, fontsize=9)
        return
    if not heat.empty:
        low = float(heat.heat.min()) if heat.kind in (ATTENTION, CROSS) else 0.0  # attention has no zero
        size = picture.shape[:2]
        fine = upsampled(heat.heat, size, smooth=heat.kind != WINDOWS)
        alpha = FAINT if heat.kind == WINDOWS else None  # large areas in one colour
        ax.imshow(fine, cmap=colours(alpha), vmin=min(low, 0.999), vmax=1)
    lines = [textwrap.fill(line, letters) for line in _caption(case, heat)]
    ax.set_title("\n".join(lines), fontsize=8, fontweight="normal")


def _draw_box(ax: Axes, box: Box) -> None:
    ax.add_patch(Rectangle((box.column, box.row), box.width, box.height, fill=False, edgecolor=SKY, linewidth=1.2))
    under = {"facecolor": "black", "alpha": 0.5, "linewidth": 0, "pad": 0.6}
    place = {"textcoords": "offset points", "va": "top", "bbox": under}
    ax.annotate(box.text, (box.column, box.row), (2, -2), color=SKY, fontsize=6, **place)


def _caption(case: Explained, heat: HeatMap) -> list[str]:
    lines = [heat.name + ("" if heat.gate is None else f", gate {heat.gate:.2f}")]
    if heat.kind in (ATTENTION, CROSS):
        lines.append(f"{heat.cells}, {heat.heat.min() * heat.peak:.2f} to {heat.peak:.2f} x uniform")
    elif heat.says:
        lines.append(heat.says)
    elif heat.empty:
        lines += [f"nothing speaks for {heat.explains}"] if heat.explains else []
    else:
        lines.append(f"for {heat.explains}, {heat.cells}, peak {heat.peak:.2g}")
    if found := case.localisation(heat):
        lines.append(f"in mask {found.share:.0%} (area {found.area:.0%}), {'hit' if found.hit else 'miss'}")
    return lines
