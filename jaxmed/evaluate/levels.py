"""Image-level and patient-level metrics side by side: a patient with many pictures must not count many times unnoticed."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.breasts import SIDE, VIEWS
from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.predictions import Predictions, concatenate
from jaxmed.evaluate.repeats import estimate

IMAGES = "images"  # an extra of the patient-level table: how many pictures were averaged
RULES = ("any", "same")
IMAGE, PATIENT = "image", "patient"
Levels = dict[str, dict[str, Estimate]]


def patient_level(table: Predictions, rule: str = "any") -> Predictions:
    """One row per patient of every split, fold and repeat; its probabilities are the mean over the patient's images.

    Of breasts they are those of the one breast that is most probably of the last class: a healthy breast says nothing about
    the other.

    Args:
        table: one row per image, or breast; rows without a known target are left out.
        rule: what a patient's target is. "any": the highest class among the images, with two classes "any image is
            malignant makes the patient malignant"; for more classes only if they are ordered. "same": all images of a
            patient must agree.

    Raises:
        UserError: an image without patient id; with "same", a patient whose images differ; an unknown rule; no row whose
            target is known.
    """
    if rule not in RULES:
        raise UserError(f"rule={rule!r} is none of {', '.join(RULES)}")
    table = table.known()
    if not len(table):
        raise UserError("no image has a known target: there is nothing to summarise by patient")
    nameless = table.case_id[table.patient_id == ""]
    if len(nameless):
        raise UserError(f"{nameless[0]} has no patient id ({len(nameless)} such): patient-level metrics need one for every "
                        "image (a column patient_id, or data.patient_pattern for ids in the file names)")
    return concatenate(_average(part, rule) for part in _parts(table))


def _parts(table: Predictions) -> Iterator[Predictions]:
    """The rows of each split of each trained network."""
    for split in dict.fromkeys(table.split.tolist()):
        yield from table.select(split=split).parts()


def _average(table: Predictions, rule: str) -> Predictions:
    names, first, member = np.unique(table.patient_id, return_index=True, return_inverse=True)
    counts = np.bincount(member)
    highest, lowest = np.full(len(names), -1), np.full(len(names), len(table.classes))
    np.maximum.at(highest, member, table.target)
    np.minimum.at(lowest, member, table.target)
    if rule == "same" and (mixed := names[highest != lowest]).size:
        raise UserError(f"patient '{mixed[0]}' has images of different classes ({len(mixed)} such patients): "
                        'correct the labels, or use the rule "any"')
    patients = table.take(first)
    patients.case_id, patients.target = names, highest
    if SIDE in table.extras:
        worst = np.lexsort((table.probabilities[:, -1], member))[np.cumsum(counts) - 1]
        patients.probabilities = table.probabilities[worst]
    else:
        total = np.zeros((len(names), len(table.classes)))
        np.add.at(total, member, table.probabilities)
        patients.probabilities = total / counts[:, None]
    patients.extras = {IMAGES: counts.astype(float)}
    return patients


def level_estimates(table: Predictions, rule: str = "any", linked: bool = True) -> Levels:
    """Every metric at both levels: {"image": {metric: Estimate}, "patient": ...}, as `summary.estimate` gives them.

    Over several folds a metric is computed per fold; value is the mean over folds and sd their standard deviation
    (ddof 1, which the published mean +- SD does not state).

    Args:
        table: one split's rows.
        rule: as in `patient_level`.
        linked: whether copies of a picture share a group; False in a leaky split.
    """
    patients = estimate(patient_level(table, rule), linked)
    patients = {name: replace(value, method=value.method.replace(" cases", " patients")) for name, value in patients.items()}
    return {IMAGE: estimate(table.known(), linked), PATIENT: patients}


def estimates_by_level(table: Predictions, linked: bool = True) -> Levels:
    """`level_estimates` where patients have several images, else {"image": ...} alone, which is {} of masks without classes."""
    if table.masks_only:
        return {IMAGE: {}}
    return level_estimates(table, linked=linked) if several_images(table) else {IMAGE: estimate(table.known(), linked)}


def several_images(table: Predictions) -> bool:
    """Whether the rows are images, or breasts, of named patients, some of whom have more than one in the cases of a network.

    False for breasts that share the pictures of a study, which have levels of their own, and where patients have images of
    different classes and there are more than two: nobody said which class then counts.
    """
    table = table.known()
    if not len(table) or VIEWS in table.extras or not all(table.patient_id):
        return False
    one_class = len(set(zip(table.patient_id, table.target, strict=True))) == len(set(table.patient_id))
    return (len(table.classes) == 2 or one_class) and any(len(set(p.patient_id)) < len(p) for p in table.parts())
