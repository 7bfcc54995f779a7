"""The report's figures of gate weights: over epochs, by class, and for views by whether they are there."""

import numpy as np

from jaxmed.evaluate.breasts import STUDY, VIEWS, one_per_study, rows_about, view_names, views_present
from jaxmed.evaluate.curves import gate_curves, gate_names, in_order, series
from jaxmed.evaluate.panels import Panel, best_epoch, make_panel
from jaxmed.evaluate.plots import gate_by_class
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.view_weights import view_weights_plot
from jaxmed.evaluate.wording import plural, seen_in_training
from jaxmed.evaluate.workdir import Workdir


def gate_kind(workdir: Workdir) -> str:
    """What the gate weighs: a "view" where the table says which views there are, else an "expert"."""
    return "view" if VIEWS in workdir.table.extras else "expert"


def gate_panels(workdir: Workdir) -> list[Panel]:
    """Gate weights over epochs, by presence of the view and by class, as far as they were recorded."""
    panels = [epochs_panel(workdir)] if gate_names(workdir.history) else []
    if view_names(workdir.table) and STUDY in workdir.table.extras:
        panels.append(presence_panel(workdir))
    names = in_order(name.removeprefix("gate_") for name in workdir.table.extras if name.startswith("gate_"))
    return panels + ([class_panel(workdir, names)] if names else [])


def epochs_panel(workdir: Workdir) -> Panel:
    """Mean weights over the epochs of training."""
    names, kind, best = gate_names(workdir.history), gate_kind(workdir), best_epoch(workdir)
    source = " (as in Fig. 4 of the CSA-MoE-Net paper)" if kind == "expert" else ""
    caption = (f"Mean weight the gate gives each {kind} after each epoch{source}; solid "
               f"on training, dashed on validation {seen_in_training(workdir)}; dotted, horizontal: equal shares of "
               f"1/{len(names)}. Look for weights that settle, and for training and validation that agree. A low weight does "
               f"not make {'a view' if kind == 'view' else 'an expert'} useless: only training without it can tell.")
    last = [f"{name} {series(workdir.history, f'train/gate_{name}')[1][:, -1].mean():.2f}"
            for name in names if len(series(workdir.history, f"train/gate_{name}")[0])]
    alt = f"Gate weights over epochs; training weights at the end: {', '.join(last)}."
    figure = gate_curves(workdir.history, best, kind)
    return make_panel(workdir, figure, "gate_epochs", f"{_start(kind)} weights during training", caption, alt)


def class_panel(workdir: Workdir, names: list[str]) -> Panel:
    """Weights of single cases by their true class; a view with the breasts of its own side."""
    table, kind, unit = workdir.headline.average_repeats(), gate_kind(workdir), workdir.unit
    caption = (f"Each dot is a {unit}; boxes hold the middle half of the {unit}s, whiskers 90 % of them. The dotted line is "
               f"an equal share. Look for boxes that differ between classes: there the gate listens to another {kind} "
               "depending on the lesion.")
    if kind == "view":
        caption += " Every breast is shown under its own views, as far as they exist; the classes are those of this breast."
    medians = [f"{name}: {_medians(table.take(rows_about(table, name)), name)}" for name in names]
    alt = f"{_start(kind)} weights by class, medians: {'; '.join(medians)}."
    title = f"{_start(kind)} weights by class"
    return make_panel(workdir, gate_by_class(table, names, kind), "gate_by_class", title, caption, alt)


def presence_panel(workdir: Workdir) -> Panel:
    """Weights of views that are there and of views that are missing, one dot per study of the headline split."""
    table = one_per_study(workdir.table.select(split=workdir.split))
    names = view_names(table)
    present = views_present(table, names)
    caption = (f"Each dot is one of {plural(len(table), 'study')}; boxes hold the middle half of the dots, whiskers 90 % of "
               f"them. The dotted line is an equal share of 1/{len(names)}. ")
    if present.all():
        caption += "Every study has all views. Look for a view that the network hardly uses."
    else:
        caption += ("A missing view enters as a black picture. Look for missing views with much weight: there the network "
                    "listens to a picture that shows nothing; weights of 0 mean that missing views are left out.")
    medians = [f"{name}: {_by_presence(table.extras[f'gate_{name}'], present[:, k])}" for k, name in enumerate(names)]
    figure = view_weights_plot(table, names)
    alt = f"View weights, medians: {'; '.join(medians)}."
    return make_panel(workdir, figure, "view_weights", "View weights, and missing views", caption, alt)


def _by_presence(weights: np.ndarray, present: np.ndarray) -> str:
    kinds = (("present", present), ("missing", ~present))
    return ", ".join(f"{np.median(weights[rows]):.2f} where {text} ({rows.sum()})" for text, rows in kinds if rows.any())


def _medians(table: Predictions, name: str) -> str:
    weights = table.extras[f"gate_{name}"]
    return ", ".join(f"{label} {np.nanmedian(weights[table.target == k]):.2f}"
                     for k, label in enumerate(table.classes) if (table.target == k).any())


def _start(kind: str) -> str:
    return "Gate" if kind == "expert" else "View"
