"""Numbers as a clinician reads them: formats, the summary paragraph, the warnings."""

import math
import re
from collections.abc import Iterable

import numpy as np

from jaxmed.evaluate.breasts import ALL, BOTH, TaskPart, unit_of
from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.metrics import confusion_matrix
from jaxmed.evaluate.predictions import MASK, STUDY, Predictions
from jaxmed.evaluate.summary import TaskEstimates
from jaxmed.evaluate.workdir import Workdir

WHOLE_PICTURES = ("image", "cc", "mlo", "views")  # inputs that are made without a mask
PERCENT = ("accuracy", "recall", "specificity", "precision", "f1", "macro_f1", "balanced_accuracy", "iou", "dice",
           "dice_of_mean_iou", "sensitivity", "missed", "false_alarm")
PIXELS = ("hd95", "asd")


def number(name: str, value: float | None) -> str:
    """Proportions in per cent, distances in pixels, everything else with three decimals."""
    if value is None or math.isnan(value):
        return "not defined"
    if name in PIXELS:
        return f"{value:.2f} px"
    return f"{100 * value:.1f} %" if name in PERCENT else f"{value:.3f}"


def interval(name: str, estimate: Estimate) -> str:
    """ "84.2 to 97.6 %", or "" where there is none."""
    if math.isnan(estimate.low):
        return ""
    if name in PERCENT:
        return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %"
    if name in PIXELS:
        return f"{estimate.low:.2f} to {estimate.high:.2f} px"
    return f"{estimate.low:.3f} to {estimate.high:.3f}"


def with_interval(name: str, estimate: Estimate) -> str:
    """ "93.8 % (95 % CI 84.2 to 97.6 %)", with the SD over networks where there are several."""
    parts = []
    if estimate.sd is not None and not math.isnan(estimate.sd):
        parts.append(f"SD {number(name, estimate.sd)}")
    if span := interval(name, estimate):
        parts.append(f"95 % CI {span}")
    return number(name, estimate.value) + (f" ({'; '.join(parts)})" if parts else "")


def count(value: float) -> str:
    """A number of cases, with one decimal where it is a mean."""
    return f"{round(float(value), 1):g}"


def plural(amount: int, word: str) -> str:
    """ "1 case", "2 cases", "2 studies" """
    many = word.removesuffix("y") + "ies" if word.endswith("y") else f"{word}s"
    return f"{amount} {word if amount == 1 else many}"


def title(workdir: Workdir) -> str:
    """The run's name, or its model's, or its folder's."""
    return str(workdir.run.get("name") or workdir.run.get("model") or workdir.path.resolve().name)


def mean_sd(name: str, estimate: Estimate) -> str:
    """ "91.2 ± 1.3 %" over several networks, "91.2 %" of one."""
    text = number(name, estimate.value)
    if estimate.sd is None or math.isnan(estimate.sd) or math.isnan(estimate.value):
        return text
    value, *unit = text.split(" ")
    return " ".join([value, "±", number(name, estimate.sd).split(" ")[0], *unit])


def passes(table: Predictions) -> float:
    """How often the networks went through the cases: once per repeat; once per fold and repeat on a test set of its own.

    The folds of a repeat share out the cases, except of a test set that brings its own, which each fold's network reads.
    """
    repeats = (table.select(repeat=repeat) for repeat in np.unique(table.repeat))
    return sum(len(rows) / len(np.unique(rows.case_id)) for rows in repeats)


def averaged_over(table: Predictions) -> str:
    """What a case's numbers are means over: "repeats", "networks" (folds that read the same cases), or ""."""
    repeats = len(np.unique(table.repeat))
    return "networks" if passes(table) > repeats else "repeats" if repeats > 1 else ""


def mean_confusion(table: Predictions) -> np.ndarray:
    """Confusion counts of one pass over the cases (known targets only): summed over folds, averaged over `passes`."""
    return confusion_matrix(table.target, table.probabilities) / passes(table)


def cases(workdir: Workdir) -> str:
    """ "98 cases of 90 patients", "98 breasts in 50 studies of 45 patients" """
    table = workdir.headline
    text = plural(len(np.unique(table.case_id)), workdir.unit)
    text += f" in {plural(len(np.unique(table.extras[STUDY])), 'study')}" if STUDY in table.extras else ""
    return text + (f" of {plural(len(np.unique(table.patient_id)), 'patient')}" if all(table.patient_id) else "")


def groups(workdir: Workdir) -> str:
    """ "85 independent groups (...)", or "" where every case is one, or each patient named by `cases` is."""
    table = workdir.headline
    amount = len(np.unique(table.clusters()))
    known = table.patient_id if all(table.patient_id) else table.extras.get(STUDY, table.case_id)
    if amount == len(np.unique(known)):
        return ""
    return f"{plural(amount, 'independent group')} (one patient, or pictures nearly the same)"


def seen_in_training(workdir: Workdir) -> str:
    """What a network is trained and validated on: "cases", "breasts" or "studies"."""
    return plural(2, workdir.split_unit).removeprefix("2 ")


def networks(workdir: Workdir) -> str:
    """ "" for one network, else e.g. "20 networks (20 repeats)". """
    if len(workdir.parts) == 1:
        return ""
    repeats, folds = len(np.unique(workdir.headline.repeat)), len(np.unique(workdir.headline.fold))
    kinds = [plural(n, word) for n, word in ((repeats, "repeat"), (folds, "fold")) if n > 1]
    return f"{len(workdir.parts)} networks ({', '.join(kinds)})"


def summary(workdir: Workdir, estimates: dict[str, Estimate], further: Iterable[TaskEstimates] = ()) -> str:
    """The report's first paragraph: what was tested, what was found and missed, and how sure that is.

    further: what `task_estimates` gives; tasks other than the first get a sentence each, on both sides together.
    estimates: of classes; {} of a network without.
    """
    where = {"test": " that were kept aside for testing", "val": " of the validation split"}.get(workdir.split, "")
    where = where or (f" of the test set '{workdir.split}'" if workdir.split in workdir.test_sets else "")
    several = networks(workdir)
    start = f"{several or 'The network'} read {cases(workdir)}{where}"
    start += f"; they form {groups(workdir)}." if groups(workdir) else "."
    start += " All numbers are averages." if several else ""
    if not estimates:
        return start
    found = _found_binary(workdir, estimates) if len(workdir.table.classes) == 2 else _found_classes(workdir, estimates)
    text = f"{start} {found} The AUC is {with_interval('auc', estimates['auc'])}."
    if others := [name for name in workdir.test_sets if name != workdir.split]:
        text += f" The other test set{'s' * (len(others) > 1)}, {' and '.join(others)}, can be found below."
    return " ".join([text, *(_further(part, values) for part, values in further
                            if part.task != workdir.task and part.side in (BOTH, ALL))])


def _further(part: TaskPart, estimates: dict[str, Estimate]) -> str:
    shown = plural(len(np.unique(part.table.case_id)), unit_of(part.table))
    right, area = (with_interval(name, estimates[name]) for name in ("accuracy", "auc"))
    return f"For {part.task} ({', '.join(part.table.classes)}; {shown}) the accuracy is {right} and the AUC {area}."


def _found_binary(workdir: Workdir, estimates: dict[str, Estimate]) -> str:
    (right, alarms), (missed, found) = mean_confusion(workdir.headline)
    negative, positive = workdir.table.classes
    sensitivity, specificity = (with_interval(name, estimates[name]) for name in ("recall", "specificity"))
    who, many = "They" if networks(workdir) else "It", f"{workdir.unit}s"
    return (
        f"{who} found {count(found)} of {count(missed + found)} {positive} {many} and missed {count(missed)}: "
        f"sensitivity {sensitivity}. {who} raised a false alarm in {count(alarms)} of {count(right + alarms)} "
        f"{negative} {many}: specificity {specificity}."
    )


def _found_classes(workdir: Workdir, estimates: dict[str, Estimate]) -> str:
    matrix = mean_confusion(workdir.headline)
    classes = [
        f"{count(matrix[k, k])} of {count(matrix[k].sum())} {name}" for k, name in enumerate(workdir.table.classes)
    ]
    return (
        f"The class was right in {count(np.trace(matrix))} of {count(matrix.sum())} {workdir.unit}s: accuracy "
        f"{with_interval('accuracy', estimates['accuracy'])}; by class {', '.join(classes)}."
    )


def prior_text(workdir: Workdir, before: float, after: float) -> str:
    """What a sampler did to the class shares, and what correcting the probabilities for it does to their calibration error."""
    learned, true = (shares_text(workdir.priors[name], workdir.table.classes) for name in ("learned", "true"))
    order = "; it moves no case past another, so the AUC stays as it is" if len(workdir.table.classes) == 2 else ""
    return (f"Training drew {learned}, while its cases are {true}: the network learned the shares of the draws. Dashed, "
            f"squares: the probabilities taken back to the shares of the training cases by Bayes' rule{order}. The calibration "
            f"error (ECE) is {before:.3f} before and {after:.3f} after this correction. All other numbers of this page are "
            "uncorrected.")


def shares_text(shares: Iterable[float], classes: tuple[str, ...]) -> str:
    """ "50.0 % benign and 50.0 % malignant" """
    *start, last = [f"{100 * share:.1f} % {name}" for share, name in zip(shares, classes, strict=True)]
    return f"{', '.join(start)} and {last}"


def warnings(workdir: Workdir) -> list[str]:
    """What a reader must know before believing the numbers."""
    data, found = workdir.data, []
    if workdir.leaky:
        found.append("Leaky split, for comparison only: pictures of one lesion may be in training and test alike, so "
                     "the result looks better than it is; and every picture counts as an independent case, so the "
                     "intervals are too narrow. The grouped split is the one to quote.")
    if workdir.split not in workdir.test_sets:
        found.append(f"These are not held-out test {workdir.unit}s but the split '{workdir.split or 'without a name'}'.")
    found += _mask_warning(workdir)
    if str(data.get("source") or "").startswith("phantom"):
        found.append("The cases are simulated pictures (phantoms). They show that the software works; "
                     "they say nothing about patients.")
    preset = str(workdir.run.get("preset") or "")
    if "reduced" in preset.lower():
        found.append("Reduced preset, smaller or shorter than the full recipe: "
                     + re.sub(r"^reduced( preset)?[ :,;]*", "", preset, flags=re.IGNORECASE))
    found += [str(text) for text in (*data.get("warnings", ()), *workdir.run.get("warnings", ()))]
    return list(dict.fromkeys(text[:1].upper() + text[1:] for text in found))


def uses_masks(workdir: Workdir) -> bool:
    """Whether the network saw more than the whole picture; run.json's `inputs` decides where it is given.

    Masks that are scored are what the network is asked for, not what it is told.
    """
    if MASK in workdir.table.extras:
        return False
    inputs = workdir.run.get("inputs")
    if inputs is not None:
        return any(name not in WHOLE_PICTURES for name in inputs)
    return bool(workdir.data.get("mask_origin"))


def _mask_warning(workdir: Workdir) -> list[str]:
    origin = str(workdir.data.get("mask_origin") or "")
    if not uses_masks(workdir):
        return []
    if "phantom" in origin.lower():
        return [f"Lesion masks: {origin}. They are exact, which no drawn mask is: an upper bound."]
    if "expert" in origin.lower():
        return [f"Lesion masks: {origin}. An expert has already outlined the lesion, and its outline alone says much "
                "about it: this is an upper bound for unattended use."]
    return [f"Lesion masks: {origin or 'origin not recorded'}. Where a person drew them, the result is an upper bound "
            "for unattended use."]
