"""The report's figures with the words around them: what is shown, what to look for, and a text for screen readers."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from jaxmed.evaluate.breasts import ALL, BOTH, TaskPart
from jaxmed.evaluate.calibration import reliability
from jaxmed.evaluate.curves import learning_curves, series
from jaxmed.evaluate.embedding import FEWEST, match_features, perplexity_for, tsne, tsne_plot
from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.metrics import predicted_class
from jaxmed.evaluate.plots import calibration_plot, confusion_plot
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.prior import corrected_table, correction_of_table
from jaxmed.evaluate.roc import roc_plot
from jaxmed.evaluate.style import to_png
from jaxmed.evaluate.wording import (
    averaged_over,
    count,
    interval,
    mean_confusion,
    networks,
    number,
    plural,
    prior_text,
    seen_in_training,
)
from jaxmed.evaluate.workdir import Workdir


@dataclass(frozen=True)
class Panel:
    """A figure as it stands in the report: file name without .png, heading, caption, alt text, pixels."""

    name: str
    title: str
    caption: str
    alt: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI, so that the page needs no other file."""
        return data_uri(self.png)


def data_uri(png: bytes) -> str:
    """PNG bytes inside an HTML attribute."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def make_panel(workdir: Workdir, figure: Figure, name: str, title: str, caption: str, alt: str) -> Panel:
    """The panel of a figure, which is also written to figures/<name>.png."""
    folder = workdir.path / "figures"
    folder.mkdir(exist_ok=True)
    return Panel(name, title, caption, alt, to_png(figure, folder / f"{name}.png"))


def best_epoch(workdir: Workdir) -> int | None:
    """The kept epoch; none where several networks kept different ones."""
    return workdir.run.get("best_epoch") if len(workdir.parts) == 1 else None


def result_panels(workdir: Workdir, estimates: dict[str, Estimate]) -> list[Panel]:
    """ROC, confusion matrix and calibration of the headline split; none of a network without classes."""
    if not estimates:
        return []
    panels = [confusion_panel(workdir, workdir.headline), calibration_panel(workdir)]
    if not np.isnan(estimates["auc"].value):
        panels.insert(0, roc_panel(workdir, estimates["auc"]))
    return panels


def task_panels(workdir: Workdir, parts: Iterable[TaskPart]) -> list[Panel]:
    """The confusion matrix of every task beside the first, sides together."""
    return [confusion_panel(workdir, part.table, part.task) for part in parts
            if part.task != workdir.task and part.side in (BOTH, ALL)]


def training_panels(workdir: Workdir) -> list[Panel]:
    """Learning curves, where a history was kept."""
    if len(series(workdir.history, "train/loss")[0]) == 0:
        return []
    return [learning_panel(workdir)]


def feature_panels(workdir: Workdir) -> list[Panel]:
    """t-SNE, where the features of at least `FEWEST` cases were saved."""
    if not workdir.features or workdir.table.masks_only:
        return []
    matched, features = match_features(workdir.headline.average_repeats(), workdir.features)
    return [tsne_panel(workdir, matched, features)] if len(matched) >= FEWEST else []


def roc_panel(workdir: Workdir, area: Estimate) -> Panel:
    span = interval("auc", area)
    text = f"AUC {number('auc', area.value)}" + (f" ({span})" if span else "")
    many, classes = len(workdir.parts) > 1, len(workdir.table.classes) > 2
    caption = "Sensitivity against false alarms, for every possible threshold. "
    if classes:
        caption += "One curve per class against the others. "
    elif many:
        caption += f"Thin lines: {networks(workdir)}; thick line: their mean. "
    else:
        caption += ("The band holds 95 % of the resampled curves (at each false alarm rate); the dot is the threshold "
                    "0.5 that the counts of this report use. ")
    caption += ("Look for a curve close to the upper left corner: many lesions found at few false alarms. "
                "The dotted diagonal is guessing.")
    return make_panel(workdir, roc_plot(workdir.parts, text), "roc", "ROC curve", caption, f"ROC curve, {text}.")


def confusion_panel(workdir: Workdir, table: Predictions, task: str = "") -> Panel:
    """Of the headline rows, or of those of a further task (its name goes into the title)."""
    matrix, classes, unit = mean_confusion(table), table.classes, workdir.unit
    caption = f"How many {unit}s of each true class (row) the network called what (column); percentages add up to 100 % " \
              "in a row. Look at the cells off the diagonal: "
    if len(classes) == 2:
        caption += f"lower left are missed {classes[1]} {unit}s, upper right are false alarms."
    else:
        caption += "they show which classes are confused."
    if averaged_over(table):
        caption += f" Counts are means over {averaged_over(table)}."
    cells = [f"{count(matrix[i, j])} {t} called {p}" for i, t in enumerate(classes) for j, p in enumerate(classes)]
    figure = confusion_plot(matrix, classes)
    alt = f"Confusion matrix{task and f' of {task}'}: {', '.join(cells)}."
    name, title = ("confusion", "Right and wrong decisions") if not task else (f"confusion_{task}", f"Decisions about {task}")
    return make_panel(workdir, figure, name, title, caption, alt)


def calibration_panel(workdir: Workdir) -> Panel:
    table, unit = workdir.headline, workdir.unit
    curve = reliability(table.target, table.probabilities)
    caption = (f"{unit.capitalize()}s sorted into ten bins by the probability the network gave; dots show how often it came "
               f"true, bars are 95 % intervals (none where all {unit}s of a bin agree), and the columns below count the "
               f"{unit}s of each bin. Look for dots on the dotted diagonal: then a probability can be taken at its word. Dots "
               f"below it mean probabilities that are too high. Bins with few {unit}s say little.")
    label = f"this network (ECE {curve.ece:.3f})"
    if several := networks(workdir):
        each = ", every case once for each of them" if averaged_over(table) == "networks" else ""
        caption += f" All {several} are shown together{each}; the table's calibration error is a mean over networks."
        label = f"{len(workdir.parts)} networks together"
    second = {}
    if workdir.priors:
        before, after = correction_of_table(table, workdir.priors)
        caption += " " + prior_text(workdir, before, after)
        second = {"corrected": corrected_table(table, workdir.priors), "corrected_label": f"prior corrected (ECE {after:.3f})"}
        label += f" (ECE {before:.3f})" if several else ""
    bins = [f"{p:.2f} said, {o:.2f} observed ({plural(n, unit)})"
            for p, o, n in zip(curve.predicted, curve.observed, curve.count, strict=True) if n]
    alt = f"Calibration curve, {label}: {'; '.join(bins)}."
    alt += f" A second curve is {second['corrected_label']}." if second else ""
    figure = calibration_plot(table, label, **second)
    return make_panel(workdir, figure, "calibration", "Can the probabilities be trusted?", caption, alt)


def learning_panel(workdir: Workdir) -> Panel:
    best = best_epoch(workdir)
    seen = seen_in_training(workdir)
    caption = f"Solid: training {seen}; dashed: validation {seen}, which choose the epoch that is kept"
    caption += " (dotted line). " if best is not None else ". "
    if len(series(workdir.history, "val/iou")[0]):
        caption += "IoU is a mean over all images, where two empty masks count 1; dash-dotted: over those with a lesion alone. "
    if len({(row.get("repeat", 0), row.get("fold", 0)) for row in workdir.history}) > 1:
        caption += "Lines are means over networks, shades their range. "
    caption += ("Look for validation curves that level off near the training curves. Validation loss that rises while "
                f"training loss falls means that the network learns its training {seen} by heart.")
    ends = {"train/loss": "training loss", "val/loss": "validation loss", "train/accuracy": "training accuracy",
            "val/accuracy": "validation accuracy", "val/iou": "validation IoU of lesions"}
    last = [f"{label} {series(workdir.history, key)[1][:, -1].mean():.3f}" for key, label in ends.items()
            if len(series(workdir.history, key)[0])]
    epochs = len(series(workdir.history, "train/loss")[0])
    alt = f"Learning curves over {epochs} epochs; at the end {', '.join(last)}."
    return make_panel(workdir, learning_curves(workdir.history, best), "learning_curves", "Learning curves", caption, alt)


def tsne_panel(workdir: Workdir, table: Predictions, features: np.ndarray) -> Panel:
    wrong = int((predicted_class(table.probabilities) != table.target).sum())
    caption = (f"The feature that feeds the classifier, for {len(table)} {workdir.unit}s, flattened to two dimensions by t-SNE "
               f"(perplexity {perplexity_for(len(table)):.0f}). Colour and shape are the truth, rings mark "
               "errors. Look for classes in separate clouds, and for rings: inside the wrong cloud the network was "
               "misled, between clouds it was unsure. Distances between clouds, and their sizes, mean nothing.")
    counts = ", ".join(f"{(table.target == k).sum()} {name}" for k, name in enumerate(table.classes))
    alt = f"t-SNE map of {counts} {workdir.unit}s; {wrong} errors are ringed."
    title = f"How the network sees the {workdir.unit}s"
    return make_panel(workdir, tsne_plot(tsne(features), table), "tsne", title, caption, alt)
