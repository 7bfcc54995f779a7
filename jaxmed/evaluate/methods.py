"""The paragraph a paper's methods section needs, and the comparison with published numbers."""

import re
from collections.abc import Iterable
from importlib.metadata import version

import numpy as np

from jaxmed.evaluate.breasts import ALL, BOTH, SIDE, second_tasks
from jaxmed.evaluate.intervals import Estimate, independent
from jaxmed.evaluate.mask_words import mask_methods
from jaxmed.evaluate.resample import RESAMPLES, SEED
from jaxmed.evaluate.summary import TaskEstimates
from jaxmed.evaluate.wording import cases, groups, networks, seen_in_training, shares_text, uses_masks
from jaxmed.evaluate.workdir import Workdir

NOT_LOOKED_FOR = "copies of pictures were not looked for"  # what jaxmed.data.splits notes where pictures do not tell
FLIPS = {"h": "its horizontal mirror image", "v": "its vertical mirror image", "hv": "its three mirror images"}
PUBLISHED = {
    "Acc": "accuracy",
    "Pre": "precision",
    "Rec": "recall",
    "F1": "f1",
    "AUC": "auc",
}
PUBLISHED_MASKS = {
    "IoU": "lesions/iou", "Dice": "lesions/dice_of_mean_iou", "Dice mean": "lesions/dice", "Sens": "lesions/sensitivity",
    "Prec": "lesions/precision", "IoU pooled": "pooled/iou", "Dice pooled": "pooled/dice",
}  # fmt: skip
MASK_NOTE = (
    "IoU is the mean over images with a lesion, and Dice is 2 IoU / (1 + IoU) of that mean, which is how the published Dice "
    "follows from the published IoU; the mean Dice over lesions is smaller. Sens and Prec (of pixels) are means over lesions; "
    "the publication does not state its average."
)


def methods(workdir: Workdir, estimates: dict[str, Estimate], masks: dict[str, Estimate]) -> list[str]:
    """Sentences on the network and its training (as far as the workdir knows them), the cases, and the statistics."""
    return [text for text in (_training(workdir), _cases(workdir), _statistics(workdir, estimates, masks)) if text]


def _training(workdir: Workdir) -> str:
    run, sentences, seen = workdir.run, [], seen_in_training(workdir)
    if run.get("model"):
        size = f" ({run['params']:,} parameters)" if isinstance(run.get("params"), int) else ""
        paper = f", after {run['paper']}" if run.get("paper") else ""
        sentences.append(f"We used {run['model']}{size}{paper}.")
    if run.get("methods"):
        sentences.append(str(run["methods"]))
    if len(workdir.parts) > 1:
        sentences.append(f"Of each training run, the weights of the epoch chosen on the validation {seen} were tested.")
    elif epochs := run.get("ensemble"):
        sentences.append(f"Outputs of {len(epochs)} such networks, trained apart, were averaged (ensemble), with the weights "
                         f"of epochs {', '.join(map(str, epochs))}, each chosen on its validation {seen}.")
    elif run.get("best_epoch") is not None:
        sentences.append(f"The weights of epoch {run['best_epoch']}, chosen on the validation {seen}, were tested.")
    if images := FLIPS.get(run.get("test_time_flips", "")):
        sentences.append(f"Outputs were averaged over each picture and {images} (test-time augmentation).")
    if uses_masks(workdir) and workdir.data.get("mask_origin"):
        sentences.append(f"Lesion masks: {workdir.data['mask_origin']}.")
    return " ".join(sentences)


def _cases(workdir: Workdir) -> str:
    text = f"The evaluation has {cases(workdir)}" + (f" in {g}" if (g := groups(workdir)) else "")
    text += f", read by {networks(workdir)}." if networks(workdir) else "."
    if workdir.data.get("split_kind") == "grouped":
        copies = "" if NOT_LOOKED_FOR in workdir.data.get("split_notes", ()) else " and near-duplicate pictures"
        text += f" {seen_in_training(workdir).capitalize()} of one patient{copies} were kept in one split."
    elif workdir.leaky:
        text += " The split was made by image and leaks near-duplicate pictures; it serves only for comparison."
    return text


def _statistics(workdir: Workdir, estimates: dict[str, Estimate], masks: dict[str, Estimate]) -> str:
    classes, needed = workdir.table.classes, ["a class"] * bool(estimates) + ["lesions"] * bool(masks)
    text = " ".join(part for part in (_deciding(workdir, estimates), mask_methods(workdir)) if part) + " "
    unit = f"{workdir.unit}s" if independent(workdir.headline) else "patients or duplicate groups"
    text += (f"95 % confidence intervals are percentile intervals of {RESAMPLES:,} bootstrap resamples of {unit} "
             f"(seed {SEED}), not stratified by class; resamples that lacked {' or '.join(needed)} were drawn "
             "again. ")
    if estimates and estimates["auc"].method.startswith("DeLong"):
        text += f"The interval of the AUC is DeLong's, computed on the logit scale, as all {workdir.unit}s were independent. "
    if any(value.method.startswith("exact") for value in [*estimates.values(), *masks.values()]):
        text += "Where no error was seen, the interval is the exact (Clopper-Pearson) one over independent groups. "
    if len(workdir.parts) > 1:
        text += _averaging(workdir)
    text += "The calibration error uses ten bins of equal width. " if estimates else ""
    if workdir.priors:
        learned, true = (shares_text(workdir.priors[name], classes) for name in ("learned", "true"))
        text += (f"Training drew cases by class ({learned}; among the training cases {true}); probabilities were not corrected "
                 "for this, except in the second calibration curve. ")
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "scikit-learn"))
    return text + f"Statistics were computed with {packages}."


def _deciding(workdir: Workdir, estimates: dict[str, Estimate]) -> str:
    """Which class counts; "" of a network without classes."""
    classes = workdir.table.classes
    if not estimates:
        return ""
    if len(classes) == 2:
        text = f"The positive class was {classes[-1]}, with a threshold of 0.5."
    else:
        text = "The most probable class counts; metrics are macro averages of one class against the rest."
    return f"{text} {_tasks(workdir)}".strip()


def _tasks(workdir: Workdir) -> str:
    further, sided = second_tasks(workdir.table.extras), SIDE in workdir.table.extras
    text = "Left and right breasts were evaluated separately and pooled. " if sided else ""
    for task, classes in further.items():
        how = "is evaluated in the same way" if len(classes) == 2 else "has macro averages of one class against the rest"
        text += f"The further task {task} ({', '.join(classes)}) {how}. "
    return text


def _averaging(workdir: Workdir) -> str:
    repeats = len(np.unique(workdir.headline.repeat))
    return ("Metrics were computed for each trained network and averaged inside each resample, so that the interval "
            f"is about new patients; the SD is over {'repeats' if repeats > 1 else 'folds'} of the training. ")


def published_table(
    workdir: Workdir, estimates: dict[str, Estimate], tasks: Iterable[TaskEstimates] = (),
    masks: dict[str, Estimate] | None = None,
) -> dict:
    """{"model", "names", "rows", "note"}: this run above the publication, metrics in per cent; {} without one.

    Beside `PUBLISHED`'s columns, further numbers of the publication ("Params (M)", "F1 macro", and with the name of a further
    task "BI-RADS AUC", "BI-RADS F1 macro") get a column each, and those of `PUBLISHED_MASKS`. tasks: what `task_estimates`
    gives; masks: what `mask_estimates` gives. The note says which averages of masks are compared.
    """
    published = dict(workdir.run.get("published") or {})
    model = published.pop("model", "")
    if not published:
        return {}
    further = [name for name in published if name not in PUBLISHED]
    named = _named(estimates, tasks) | {_key(name): masks[ours] for name, ours in PUBLISHED_MASKS.items() if masks}
    main = [name for name in PUBLISHED if estimates and (name in published or workdir.unit == "case")]
    ours = [_in_percent(estimates[PUBLISHED[name]]) for name in main]
    theirs = [_as_published(published.get(name)) for name in main]
    rows = [("This run", ours + [_ours(workdir, name, named) for name in further]),
            ("Published", theirs + [_theirs(name, published[name], named) for name in further])]
    note = MASK_NOTE if masks and set(published) & set(PUBLISHED_MASKS) else ""
    return {"model": model, "names": [*main, *further], "rows": rows, "note": note}


def _named(estimates: dict[str, Estimate], tasks: Iterable[TaskEstimates]) -> dict[str, Estimate]:
    """Metrics of further columns by `_key`: "F1 macro", and "<task> AUC", "<task> F1 macro", ... of both sides together."""
    columns = PUBLISHED | {"F1 macro": "macro_f1"}
    found = {_key("F1 macro"): estimates["macro_f1"]} if estimates else {}
    for part, values in tasks:
        if part.side in (BOTH, ALL):
            found |= {_key(f"{part.task} {column}"): values[name] for column, name in columns.items()}
    return found


def _key(column: str) -> str:
    """Small letters and digits only: "BI-RADS AUC" is the AUC of the task birads."""
    return re.sub(r"[^a-z0-9]", "", column.lower())


def _theirs(column: str, value: object, named: dict[str, Estimate]) -> str:
    return _as_published(value) if _key(column) in named else str(value)


def _ours(workdir: Workdir, column: str, named: dict[str, Estimate]) -> str:
    """Our number beside theirs: a metric, or a count of run.json ("Params (M)" from `params`, "FLOPs (G)" from `flops`)."""
    if _key(column) in named:
        return _in_percent(named[_key(column)])
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


def explain(name: str, classes: tuple[str, ...], unit: str = "case") -> str:
    """A metric in plain words; `unit` is what a row of the table is about, "case" or "breast"."""
    if len(classes) == 2:
        negative, positive = classes
        words = {
            "recall": f"share of {positive} {unit}s that were found",
            "specificity": f"share of {negative} {unit}s without a false alarm",
            "precision": f"of the {unit}s called {positive}, the share that were",
            "macro_f1": "F1 score of each class in turn, mean over the classes, rare ones counting like frequent ones",
            "auc": f"chance that a {positive} {unit} scores above a {negative} one",
        }
    else:
        words = {
            "recall": "share of a class that was found, mean over classes",
            "specificity": "share of the other classes without a false alarm, mean over classes",
            "precision": f"share of right ones among the {unit}s called a class, mean over classes",
            "macro_f1": "the same as the F1 score, which is a mean over classes here",
            "auc": f"chance that a {unit} of a class scores above another {unit}, mean over classes",
        }
    words |= {
        "accuracy": f"share of all {unit}s that were right",
        "f1": "sensitivity and precision in one number (harmonic mean)",
        "balanced_accuracy": "mean over classes of the share that was right",
        "brier": "mean squared error of the probabilities; 0 is perfect",
        "log_loss": "punishes confident errors; 0 is perfect",
        "ece": "mean gap between the probability said and what came true; 0 is perfect",
    }
    return words[name]


