"""The paragraph a paper's methods section needs, and the comparison with published numbers."""

import re
from importlib.metadata import version

import numpy as np

from jaxmed.evaluate.intervals import Estimate, independent
from jaxmed.evaluate.resample import RESAMPLES, SEED
from jaxmed.evaluate.wording import cases, groups, networks, uses_masks
from jaxmed.evaluate.workdir import Workdir

PUBLISHED = {
    "Acc": "accuracy",
    "Pre": "precision",
    "Rec": "recall",
    "F1": "f1",
    "AUC": "auc",
}


def methods(workdir: Workdir, estimates: dict[str, Estimate]) -> list[str]:
    """Sentences on the network and its training (as far as the workdir knows them), the cases, and the statistics."""
    return [text for text in (_training(workdir), _cases(workdir), _statistics(workdir, estimates)) if text]


def _training(workdir: Workdir) -> str:
    run, sentences = workdir.run, []
    if run.get("model"):
        size = f" ({run['params']:,} parameters)" if isinstance(run.get("params"), int) else ""
        paper = f", after {run['paper']}" if run.get("paper") else ""
        sentences.append(f"We used {run['model']}{size}{paper}.")
    if run.get("methods"):
        sentences.append(str(run["methods"]))
    if len(workdir.parts) > 1:
        sentences.append("Of each training run, the weights of the epoch chosen on the validation cases were tested.")
    elif run.get("best_epoch") is not None:
        sentences.append(f"The weights of epoch {run['best_epoch']}, chosen on the validation cases, were tested.")
    if uses_masks(workdir) and workdir.data.get("mask_origin"):
        sentences.append(f"Lesion masks: {workdir.data['mask_origin']}.")
    return " ".join(sentences)


def _cases(workdir: Workdir) -> str:
    text = f"The evaluation has {cases(workdir)}" + (f" in {g}" if (g := groups(workdir)) else "")
    text += f", read by {networks(workdir)}." if networks(workdir) else "."
    if workdir.data.get("split_kind") == "grouped":
        text += " Cases of one patient and near-duplicate pictures were kept in one split."
    elif workdir.leaky:
        text += " The split was made by image and leaks near-duplicate pictures; it serves only for comparison."
    return text


def _statistics(workdir: Workdir, estimates: dict[str, Estimate]) -> str:
    classes = workdir.table.classes
    if len(classes) == 2:
        text = f"The positive class was {classes[-1]}, with a threshold of 0.5. "
    else:
        text = "The most probable class counts; metrics are macro averages of one class against the rest. "
    unit = "cases" if independent(workdir.headline) else "patients or duplicate groups"
    text += (f"95 % confidence intervals are percentile intervals of {RESAMPLES:,} bootstrap resamples of {unit} "
             f"(seed {SEED}), not stratified by class; resamples that lacked a class were drawn again. ")
    if estimates["auc"].method.startswith("DeLong"):
        text += "The interval of the AUC is DeLong's, computed on the logit scale, as all cases were independent. "
    if any(value.method.startswith("exact") for value in estimates.values()):
        text += "Where no error was seen, the interval is the exact (Clopper-Pearson) one over independent groups. "
    if len(workdir.parts) > 1:
        text += _averaging(workdir)
    text += "The calibration error uses ten bins of equal width. "
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn"))
    return text + f"Statistics were computed with {packages}."


def _averaging(workdir: Workdir) -> str:
    repeats = len(np.unique(workdir.headline.repeat))
    return ("Metrics were computed for each trained network and averaged inside each resample, so that the interval "
            f"is about new patients; the SD is over {'repeats' if repeats > 1 else 'folds'} of the training. ")


def published_table(workdir: Workdir, estimates: dict[str, Estimate]) -> dict:
    """{"model", "names", "rows"}: this run above the publication, metrics in per cent; {} without one.

    Beside `PUBLISHED`'s columns, further numbers of the publication ("Params (M)") get a column each.
    """
    published = dict(workdir.run.get("published") or {})
    model = published.pop("model", "")
    if not published:
        return {}
    further = [name for name in published if name not in PUBLISHED]
    ours = [_in_percent(estimates[name]) for name in PUBLISHED.values()]
    theirs = [_as_published(published.get(name)) for name in PUBLISHED]
    rows = [("This run", ours + [_ours(workdir, name) for name in further]),
            ("Published", theirs + [str(published[name]) for name in further])]
    return {"model": model, "names": [*PUBLISHED, *further], "rows": rows}


def _ours(workdir: Workdir, column: str) -> str:
    """Our count beside theirs, where run.json has it: "Params (M)" from `params`, "FLOPs (G)" from `flops`."""
    name, _, unit = column.partition(" ")
    count = workdir.run.get(name.lower())
    scale = {"(M)": 1e6, "(G)": 1e9}.get(unit)
    return f"{count / scale:.3f}" if isinstance(count, (int, float)) and scale else "–"


def _in_percent(estimate: Estimate) -> str:
    if np.isnan(estimate.value):
        return "not defined"
    spread = "" if estimate.sd is None or np.isnan(estimate.sd) else f" ± {100 * estimate.sd:.2f}"
    return f"{100 * estimate.value:.2f}{spread}"


def _as_published(value: object) -> str:
    """A number, [mean, SD], or text such as "96.33+-.70"."""
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return " ± ".join(f"{part:.2f}" for part in value)
    if isinstance(value, (int, float)):
        return f"{value:.2f}"
    return re.sub(r"(?<!\d)\.", "0.", str(value).replace("+-", " ± "))


def explain(name: str, classes: tuple[str, ...]) -> str:
    """A metric in plain words."""
    if len(classes) == 2:
        negative, positive = classes
        words = {
            "recall": f"share of {positive} cases that were found",
            "specificity": f"share of {negative} cases without a false alarm",
            "precision": f"of the cases called {positive}, the share that were",
            "auc": f"chance that a {positive} case scores above a {negative} one",
        }
    else:
        words = {
            "recall": "share of a class that was found, mean over classes",
            "specificity": "share of the other classes without a false alarm, mean over classes",
            "precision": "share of right ones among the cases called a class, mean over classes",
            "auc": "chance that a case of a class scores above another case, mean over classes",
        }
    words |= {
        "accuracy": "share of all cases that were right",
        "f1": "sensitivity and precision in one number (harmonic mean)",
        "balanced_accuracy": "mean over classes of the share that was right",
        "brier": "mean squared error of the probabilities; 0 is perfect",
        "log_loss": "punishes confident errors; 0 is perfect",
        "ece": "mean gap between the probability said and what came true; 0 is perfect",
    }
    return words[name]


