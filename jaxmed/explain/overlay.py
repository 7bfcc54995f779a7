"""A case as a figure: its pictures, and beside them the same pictures under their heat maps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from jaxmed.evaluate.style import SKY, new_figure, styled
from jaxmed.explain.localise import Localisation, localise, upsampled

COLUMNS = 4
PANEL = 2.7  # inches
OPAQUE = 0.65  # of the hottest cell: what lies below stays visible
GRAD_CAM, ATTENTION = "Grad-CAM", "query attention"


@dataclass(frozen=True)
class HeatMap:
    """heat: [h, w] in 0..1, all zero where nothing speaks for the class, or where the picture is missing.

    picture: the name of the input that it lies over. kind: GRAD_CAM or ATTENTION. peak: the maximum before it was scaled to 1,
    for attention in units of equal attention everywhere. layer: where in the network it was taken. explains: the class (and
    breast). gate: the network's weight for the picture.
    """

    name: str
    picture: str
    heat: Float[np.ndarray, "h w"]
    peak: float
    layer: str
    kind: str = GRAD_CAM
    explains: str = ""
    gate: float | None = None

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
    headings: truth and answer, one line per diagnosis. why: how the case was chosen. facts: columns of cases.csv."""

    case_id: str
    pictures: Mapping[str, UInt8[np.ndarray, "h w"]]
    maps: tuple[HeatMap, ...]
    headings: tuple[str, ...]
    why: str
    mask: np.ndarray | None = None
    facts: Mapping[str, object] = field(default_factory=dict)

    def localisation(self, heat: HeatMap) -> Localisation | None:
        """Heat and mask; see `localise`."""
        return localise(heat.heat, self.mask)


def colours() -> ListedColormap:
    """Matplotlib's inferno (perceptually uniform), the more opaque the hotter."""
    table = matplotlib.colormaps["inferno"](np.linspace(0.15, 1, 256))
    table[:, 3] = OPAQUE * np.linspace(0, 1, 256) ** 0.8
    return ListedColormap(table)


@styled
def case_figure(case: Explained) -> Figure:
    """The pictures, then every heat map over its picture, four to a row; a masked lesion is outlined in both."""
    shown = [name for name in case.pictures if len(case.pictures) == 4 or name == "image"] or list(case.pictures)[:1]
    panels = [(name, None) for name in shown] + [(heat.picture, heat) for heat in case.maps]
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(PANEL * columns + 0.6, (PANEL + 0.5) * rows + 0.3 + 0.2 * len(case.headings))
    figure.get_layout_engine().set(h_pad=0.08)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (name, heat) in zip(axes, panels, strict=False):
        _panel(ax, case, name, heat)
    figure.suptitle("\n".join([case.case_id, *case.headings]), fontsize=10, x=0.01, ha="left")
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), colours()), ax=list(axes), fraction=0.02, pad=0.01)
    bar.ax.set_facecolor("0.35")
    bar.set_label("share of the map's maximum", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def _panel(ax: Axes, case: Explained, name: str, heat: HeatMap | None) -> None:
    picture = case.pictures[name]
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
    if case.mask is not None and np.any(case.mask):
        ax.contour(case.mask > 0, levels=[0.5], colors=[SKY], linewidths=1.2)
    if heat is None:
        text = f"{name}" if len(case.pictures) > 1 else "input"
        ax.set_title(text, fontsize=9)
        return
    if not heat.empty:
        low = float(heat.heat.min()) if heat.kind == ATTENTION else 0.0  # attention has no zero
        ax.imshow(upsampled(heat.heat, picture.shape), cmap=colours(), vmin=min(low, 0.999), vmax=1)
    ax.set_title(_caption(case, heat), fontsize=8, fontweight="normal")


def _caption(case: Explained, heat: HeatMap) -> str:
    lines = [heat.name + ("" if heat.gate is None else f", gate {heat.gate:.2f}")]
    if heat.kind == ATTENTION:
        lines.append(f"{heat.cells}, {heat.heat.min() * heat.peak:.2f} to {heat.peak:.2f} x uniform")
    elif heat.empty:
        lines += [f"nothing speaks for {heat.explains}"] if heat.explains else []
    else:
        lines.append(f"for {heat.explains}, {heat.cells}, peak {heat.peak:.2g}")
    if found := case.localisation(heat):
        lines.append(f"in mask {found.share:.0%} (area {found.area:.0%}), {'hit' if found.hit else 'miss'}")
    return "\n".join(lines)
