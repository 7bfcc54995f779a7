"""One look for every figure: colour-blind-safe colours, readable type, light grid. No pyplot, no global state."""

import functools
import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette, which stays apart for the common forms of colour blindness.
BLUE, RED, GREEN, YELLOW = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY, BLACK = "#CC79A7", "#56B4E9", "#222222"
INK, MUTED, GRID = "#1f2933", "#5b6770", "#dde3e8"
CYCLE = (BLUE, RED, GREEN, YELLOW, PURPLE, SKY, BLACK)
EXPERTS = {"core": BLUE, "boundary": YELLOW, "image": GREEN}  # the colours of the paper's Fig. 4
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 2.0,
    "figure.facecolor": "white",
}


def styled(plot: Callable) -> Callable:
    """Draws the figure under `RC` and leaves matplotlib's settings as they were."""

    @functools.wraps(plot)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context(RC):
            return plot(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """A figure of the given size in inches that belongs to no window system."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure, path: Path | None = None, dpi: int = 150) -> bytes:
    """The figure as PNG bytes, also written to `path`."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    if path is not None:
        path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def class_colors(classes: tuple[str, ...]) -> list[str]:
    """Benign blue and malignant red (the paper's Fig. 7): the first class blue, the positive one red."""
    if len(classes) == 2:
        return [BLUE, RED]
    return [CYCLE[k % len(CYCLE)] for k in range(len(classes))]


def unit_axes(ax: Axes, x_label: str, y_label: str) -> None:
    """A square plot of two shares, with a little room so that lines on the border stay visible."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x_label, ylabel=y_label, aspect="equal")
