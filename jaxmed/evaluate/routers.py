"""What mixture-of-experts layers did in training: load of each expert and entropy of the routers, from metrics.jsonl.

The keys are train/router_load_<part><layer>_<expert>, the share of the routed token slots that an expert got, and
train/router_entropy_<part><layer>, of a token's softmax over the experts, in nats. Parts, layers and experts are those
of the keys.
"""

import math
import re

import matplotlib
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxmed.evaluate.curves import best_mark, draw_line, epoch_axis, series
from jaxmed.evaluate.style import CYCLE, INK, MUTED, new_figure, styled

LOAD = re.compile(r"train/router_load_(?P<part>.*\D)(?P<layer>\d+)_(?P<expert>\d+)")
COLUMNS = 4  # layers side by side
DOTTED = {"color": MUTED, "linewidth": 1.4, "linestyle": (0, (1, 2))}


def router_parts(history: list[dict]) -> dict[str, tuple[int, int]]:
    """{part: (layers, experts)} of the logged mixtures, in the order of the keys; empty where none was logged."""
    found: dict[str, tuple[int, int]] = {}
    for match in filter(None, (LOAD.fullmatch(key) for row in history for key in row)):
        layers, experts = found.get(match["part"], (0, 0))
        found[match["part"]] = (max(layers, int(match["layer"]) + 1), max(experts, int(match["expert"]) + 1))
    return found


def loads(history: list[dict], part: str, layer: int, experts: int) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [e] and the load of each expert of one network [experts, e].

    Several networks number their experts as it happens, so that expert 0 of two networks has nothing in common: there the
    rows are ranks, the most used expert of every network and epoch first, and the values means over networks.
    """
    found = [series(history, f"train/router_load_{part}{layer}_{expert}") for expert in range(experts)]
    values = np.stack([value for _, value in found])
    if values.shape[1] > 1:
        values = -np.sort(-values, axis=0)
    return found[0][0], np.nanmean(values, axis=1)


def load_labels(history: list[dict], experts: int) -> list[str]:
    """What the rows of `loads` are: experts of one network, or ranks."""
    if len({(row.get("repeat", 0), row.get("fold", 0)) for row in history}) == 1 or experts == 1:
        return [f"expert {k}" for k in range(experts)]
    return ["most used expert", *(f"rank {k}" for k in range(2, experts)), "least used expert"]


def last_value(history: list[dict], key: str) -> float:
    """Mean over networks in the last epoch; nan without the key."""
    values = series(history, key)[1]
    return float(np.nanmean(values[:, -1])) if values.size else math.nan


@styled
def load_curves(history: list[dict], part: str, layers: int, experts: int, best_epoch: int | None = None) -> Figure:
    """Share of the token slots of every expert (`loads`) over epochs, a small plot per layer; dotted: equal shares."""
    columns = min(layers, COLUMNS)
    rows = math.ceil(layers / columns)
    figure = new_figure(9.6, 2.3 * rows + 0.9)
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    colors = expert_colors(experts)
    for layer, ax in enumerate(axes[:layers]):
        ax.axhline(1 / experts, **DOTTED)
        epochs, values = loads(history, part, layer, experts)
        for value, color in zip(values, colors, strict=True):
            ax.plot(epochs, value, color=color, marker="o" if len(epochs) == 1 else None)
        ax.set_title(f"layer {layer}", color=INK)
        epoch_axis(ax, best_epoch)
        ax.label_outer()
    _hide_rest(axes, layers, columns)
    axes[0].set_ylim(0, 1.08 * max(2 / experts, axes[0].get_ylim()[1]))
    figure.supylabel("share of the token slots", fontsize=11)
    labels = load_labels(history, experts)
    handles = [Line2D([], [], color=color, label=label) for color, label in zip(colors, labels, strict=True)]
    handles.append(Line2D([], [], **DOTTED, label=f"equal share, 1/{experts}"))
    handles += [] if best_epoch is None else [best_mark(f"epoch kept ({best_epoch})")]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    return figure


@styled
def entropy_curves(history: list[dict], parts: dict[str, tuple[int, int]], best_epoch: int | None = None) -> Figure:
    """Entropy of the routers over epochs, a line per layer and a plot per part; dotted: log(experts)."""
    figure = new_figure(9.6, 4.4)
    for ax, (part, (layers, experts)) in zip(np.atleast_1d(figure.subplots(1, len(parts))), parts.items(), strict=True):
        for layer, color in enumerate(_shades(layers)):
            draw_line(ax, history, f"train/router_entropy_{part}{layer}", color, "-", f"layer {layer}")
        ax.axhline(math.log(experts), **DOTTED, label=f"log({experts})")
        ax.set(title=part, ylabel="entropy (nats)", ylim=(0, 1.08 * max(math.log(experts), 0.1)))
        epoch_axis(ax, best_epoch)
        handles = ax.get_legend_handles_labels()[0]
        handles += [] if best_epoch is None else [best_mark(f"epoch kept ({best_epoch})")]
        ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    return figure


def expert_colors(experts: int) -> list[str]:
    """The report's colours as far as they reach; more experts get those of a map, neighbours alike."""
    return list(CYCLE[:experts]) if experts <= len(CYCLE) else _spread("turbo", experts, 0.05, 0.95)


def _shades(layers: int) -> list[str]:
    """Dark for the first layer, light for the last."""
    return _spread("viridis", layers, 0.0, 0.85)


def _spread(name: str, count: int, low: float, high: float) -> list[str]:
    return [to_hex(matplotlib.colormaps[name](x)) for x in np.linspace(low, high, count)]


def _hide_rest(axes: np.ndarray, layers: int, columns: int) -> None:
    """Places without a layer are left empty; the plots above them get the epochs that they would have shown."""
    for place, ax in enumerate(axes):
        ax.set_visible(place < layers)
        if place < layers <= place + columns:
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("epoch")
