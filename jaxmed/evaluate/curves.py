"""What happened during training: learning curves (paper, Fig. 3) and gate weights (Fig. 4), from metrics.jsonl."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from jaxmed.evaluate.style import BLUE, CYCLE, EXPERTS, GREEN, MUTED, RED, new_figure, styled

STYLES = {"train": "-", "val": "--"}
SPLIT_LABELS = {"train": "training", "val": "validation"}
OVERLAP = "iou_all"
CURVES = {"loss": "Loss", "accuracy": "Accuracy", OVERLAP: "IoU"}


def series(history: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs [e] and values [runs, e] of a key; nan where a run lacks an epoch, empty where no row has the key."""
    found = [row for row in history if row.get(key) is not None]
    epochs = sorted({row["epoch"] for row in found})
    runs = sorted({(row.get("repeat", 0), row.get("fold", 0)) for row in found})
    values = np.full((len(runs), len(epochs)), np.nan)
    for row in found:
        values[runs.index((row.get("repeat", 0), row.get("fold", 0))), epochs.index(row["epoch"])] = row[key]
    return np.array(epochs), values


def gate_names(history: list[dict]) -> list[str]:
    """The experts or views whose gate weights were logged ("image" for the key "train/gate_image"), image first."""
    return in_order({key.split("/gate_")[1] for row in history for key in row if "/gate_" in key})


def in_order(experts: Iterable[str]) -> list[str]:
    """The paper's experts as image, core, boundary, then others by name."""
    order = ["image", "core", "boundary"]
    return sorted(experts, key=lambda name: (order.index(name) if name in order else len(order), name))


def expert_color(name: str, position: int) -> str:
    """The paper's colours for its three experts, others (views) in order."""
    return EXPERTS.get(name, CYCLE[position % len(CYCLE)])


@styled
def learning_curves(history: list[dict], best_epoch: int | None = None) -> Figure:
    """Loss, accuracy and IoU, as far as logged, and learning rate over epochs; training solid, validation dashed, the kept
    epoch marked. The IoU of training is over all images, that of validation also over those with a lesion (dash-dotted).

    Several networks (repeats, folds) give their mean and the range between them.
    """
    names = [key for key in CURVES if key == "loss" or any(len(series(history, f"{split}/{key}")[0]) for split in STYLES)]
    rows = 1 if len(names) < 3 else 2
    figure = new_figure(9.6, 0.4 + 3.0 * rows)
    *axes, rate = figure.subplots(rows, -(-(len(names) + 1) // rows)).ravel()
    for key, ax in zip(names, axes, strict=True):
        for split, color in (("train", BLUE), ("val", RED)):
            draw_line(ax, history, f"{split}/{key}", color, STYLES[split], SPLIT_LABELS[split])
        if key == OVERLAP:
            draw_line(ax, history, "val/iou", GREEN, "-.", "validation, lesions")
        ax.set_title(CURVES[key])
        if key != "loss":
            ax.set_ylim(top=1.005)
    draw_line(rate, history, "lr", MUTED, "-", "learning rate", drawstyle="steps-mid")
    rate.set_title("Learning rate")
    rate.set_yscale("log")
    for ax in (*axes, rate):
        epoch_axis(ax, best_epoch)
    entries = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    handles, labels = list(entries.values()), list(entries)
    if best_epoch is not None:
        handles, labels = [*handles, best_mark()], [*labels, f"epoch kept ({best_epoch})"]
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


@styled
def gate_curves(history: list[dict], best_epoch: int | None = None, kind: str = "expert") -> Figure:
    """Mean gate weight of each expert (or view: `kind`) over epochs: training solid, validation dashed."""
    figure = new_figure(9.6, 4.2)
    ax = figure.subplots()
    names = gate_names(history)
    for position, name in enumerate(names):
        for split, style in STYLES.items():
            draw_line(ax, history, f"{split}/gate_{name}", expert_color(name, position), style, "")
    ax.set(ylabel="mean gate weight", ylim=(0, None))
    ax.axhline(1 / len(names), color=MUTED, linewidth=1, linestyle=(0, (1, 3)))
    epoch_axis(ax, best_epoch)
    handles = [Line2D([], [], color=expert_color(n, i), label=f"{kind}: {n}") for i, n in enumerate(names)]
    handles += [Line2D([], [], color=MUTED, linestyle=s, label=SPLIT_LABELS[k]) for k, s in STYLES.items()]
    handles += [Line2D([], [], color=MUTED, linewidth=1, linestyle=(0, (1, 3)), label="equal share")]
    if best_epoch is not None:
        handles.append(best_mark(f"epoch kept ({best_epoch})"))
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


_MARK = {"color": "black", "linewidth": 1.2, "linestyle": ":"}


def best_mark(label: str = "") -> Line2D:
    """The legend's entry for the kept epoch."""
    return Line2D([], [], **_MARK, label=label)


def draw_line(ax: Axes, history: list[dict], key: str, color: str, style: str, label: str, **more) -> None:
    """A key over epochs; of several networks the mean, and the range as a shade. Nothing where the key does not exist."""
    epochs, values = series(history, key)
    if len(epochs) == 0:
        return
    marker = "o" if len(epochs) == 1 else None
    ax.plot(epochs, np.nanmean(values, axis=0), color=color, linestyle=style, label=label, marker=marker, **more)
    if len(values) > 1:
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        ax.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)


def epoch_axis(ax: Axes, best_epoch: int | None) -> None:
    """Whole epochs, the kept one marked."""
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    if best_epoch is not None:
        ax.axvline(best_epoch, **_MARK)
