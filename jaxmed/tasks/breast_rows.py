"""What is made of a four-view network's answers on the host: the monitor of an epoch, and one prediction row per breast."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import roc_auc_score

from jaxmed.data.studies import StudySource
from jaxmed.data.study_loader import study_targets
from jaxmed.tasks.breast_task import SIDES, VIEWS, BreastTask

Cases = Mapping[str, np.ndarray]  # `MultiView.per_case` of all studies, joined, with case_id


def validation(cases: Cases, source: StudySource, tasks: Sequence[BreastTask]) -> dict[str, float]:
    """Mean loss, accuracy and gate weights over the studies, and what `monitor` gives."""
    targets = {name: values[cases["case_id"]] for name, values in study_targets(source).items()}
    means = {"loss": cases["loss"], "accuracy": cases["correct"]} | {f"gate_{view}": cases[f"gate_{view}"] for view in VIEWS}
    return {name: float(np.mean(values, dtype=np.float64)) for name, values in means.items()} | monitor(cases, targets, tasks)


def breast_rows(
    cases: Cases, source: StudySource, groups: np.ndarray, part: Mapping[str, Any], tasks: Sequence[BreastTask]
) -> list[dict]:
    """Rows of predictions.csv, one per breast that has a picture; breasts about which nothing is known only in "predict".

    `target` and prob_<class> are the first task's; then study_id, side, views (those that exist), gate_<view> (of the study),
    and <task>_target and <task>_prob_<class> of a second task. Targets are empty where not known.
    """
    rows = []
    for k, i in enumerate(cases["case_id"]):
        study, targets = source.studies[i], source.targets(int(i))
        views = "+".join(name for name, there in zip(VIEWS, study.present, strict=True) if there)
        for s, side in enumerate(SIDES):
            known = any(targets[f"{side}_{task.name}"] >= 0 for task in tasks)
            if not study.present[2 * s : 2 * s + 2].any() or not (known or part["split"] == "predict"):
                continue
            row = {"case_id": f"{study.study_id}:{side}", "patient_id": study.patient_id, "group": str(groups[i]), **part}
            row |= _answers(cases, k, side, targets, tasks[0])
            row |= {"study_id": study.study_id, "side": side, "views": views}
            row |= {f"gate_{view}": float(cases[f"gate_{view}"][k]) for view in VIEWS}
            for task in tasks[1:]:
                row |= {f"{task.name}_{key}": value for key, value in _answers(cases, k, side, targets, task).items()}
            rows.append(row)
    return rows


def _answers(cases: Cases, k: int, side: str, targets: Mapping[str, int], task: BreastTask) -> dict[str, Any]:
    target = targets[f"{side}_{task.name}"]
    answers = {f"prob_{name}": float(cases[f"{side}_{task.name}_{name}"][k]) for name in task.classes}
    return {"target": task.classes[target] if target >= 0 else "", **answers}


def breast_features(cases: Cases, source: StudySource) -> dict[str, np.ndarray]:
    """{"case_id": [2 n], "features": [2 n, 2 d]}: of each breast the gated features of its own two views."""
    halves = np.split(cases["features"], 2, axis=1)  # left views come first
    names = [f"{source.studies[i].study_id}:{side}" for side in SIDES for i in cases["case_id"]]
    return {"case_id": np.array(names), "features": np.concatenate(halves)}


def pooled_breasts(
    rows: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], task: BreastTask
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n k"]]:
    """(target, probabilities) of the known breasts, left then right.

    rows: what `per_case` gives, over all studies. targets: {"left_label": int [studies], ...}, -1 = not known.
    """
    target = np.concatenate([targets[f"{side}_{task.name}"] for side in SIDES])
    probs = np.concatenate([np.stack([rows[f"{side}_{task.name}_{k}"] for k in task.classes], 1) for side in SIDES])
    return target[target >= 0], probs[target >= 0]


def monitor(
    rows: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], tasks: Sequence[BreastTask]
) -> dict[str, float]:
    """{task}_auc of each task and `auc`, their mean: what the paper selects epochs by (section 4.2).

    Left and right breasts are pooled. Two classes: AUC of the last; more: mean over classes of one against the rest, without
    the classes that these breasts lack (the same in every epoch). nan where fewer than two classes are there; the mean is over
    the tasks that have an AUC.
    """
    values = {f"{task.name}_auc": pooled_auc(*pooled_breasts(rows, targets, task)) for task in tasks}
    defined = [value for value in values.values() if not np.isnan(value)]
    return values | {"auc": float(np.mean(defined)) if defined else float("nan")}


def pooled_auc(target: Int[np.ndarray, " n"], probs: Float[np.ndarray, "n k"]) -> float:
    """Binary AUC, or the macro mean of one class against the rest over the classes that are there; nan below two classes."""
    there = np.unique(target)
    if len(there) < 2:
        return float("nan")
    classes = [1] if probs.shape[1] == 2 else there
    return float(np.mean([roc_auc_score(target == k, probs[:, k]) for k in classes]))
