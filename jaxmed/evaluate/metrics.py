"""Metrics of one trained network on one set of cases.

Two classes: the last is positive and the threshold is 0.5. More: macro average of one class against the rest.
A metric whose denominator is empty (a class is missing, or never predicted) is nan, which prints as "not defined".
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix as count_confusion
from sklearn.metrics import roc_auc_score

from jaxmed.evaluate.calibration import reliability

LABELS = {
    "accuracy": "Accuracy",
    "recall": "Sensitivity (recall)",
    "specificity": "Specificity",
    "precision": "Precision (PPV)",
    "f1": "F1 score",
    "macro_f1": "F1, mean over classes",
    "auc": "AUC",
    "balanced_accuracy": "Balanced accuracy",
    "brier": "Brier score",
    "log_loss": "Log loss",
    "ece": "Calibration error (ECE)",
}
METRICS = tuple(LABELS)
LOWER_IS_BETTER = ("brier", "log_loss", "ece")
CLIP = 2.0**-23  # probabilities come from float32: closer to 0 or 1 than this is rounding


def predicted_class(probabilities: Float[np.ndarray, "n classes"]) -> Int[np.ndarray, " n"]:
    """The class the network decides for.

    Two classes: the last if its probability is above 0.5, which is the argmax when the two sum to 1 and stays
    right for independent sigmoids. More classes: the argmax.
    """
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] > 0.5).astype(int)
    return probabilities.argmax(axis=1)


def from_positive(probabilities: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    """Two classes: (1 - p, p) of the positive probability p, which alone decides where the two are independent sigmoids.

    More classes: as they are.
    """
    if probabilities.shape[1] != 2:
        return probabilities
    return np.stack([1 - probabilities[:, 1], probabilities[:, 1]], axis=1)


def confusion_matrix(
    target: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> Int[np.ndarray, "classes classes"]:
    """Counts: row is the truth, column the decision."""
    classes = range(probabilities.shape[1])
    return count_confusion(target, predicted_class(probabilities), labels=list(classes))


def metric_values(target: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]) -> dict[str, float]:
    """Every metric of `METRICS`.

    Args:
        target: class indices, all known (>= 0).
        probabilities: per class; rows need not sum to 1 for two classes.

    Raises:
        ValueError: no cases, or a target that is not known.
    """
    if len(target) == 0 or target.min() < 0:
        raise ValueError("metrics need at least one case, and every target known: use table.known() first")
    values = confusion_metrics(confusion_matrix(target, probabilities))
    values |= {name: loss.mean() for name, loss in case_losses(target, probabilities).items()}
    values["auc"] = area_under_curve(target, probabilities)
    values["ece"] = reliability(target, probabilities).ece
    return {name: float(values[name]) for name in METRICS}


def confusion_metrics(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The threshold metrics of confusion matrices [..., classes, classes] (rows: truth); shape [...]."""
    matrix = np.asarray(matrix, float)
    true_positive = np.diagonal(matrix, axis1=-2, axis2=-1)
    positive, decided = matrix.sum(-1), matrix.sum(-2)
    total = matrix.sum((-2, -1))[..., None]
    true_negative = total - positive - decided + true_positive
    f1 = _ratio(2 * true_positive, np.where(positive > 0, positive + decided, 0))
    per_class = {
        "recall": _ratio(true_positive, positive),
        "specificity": _ratio(true_negative, total - positive),
        "precision": _ratio(true_positive, decided),
        "f1": f1,
    }
    binary = matrix.shape[-1] == 2
    values = {name: value[..., -1] if binary else value.mean(-1) for name, value in per_class.items()}
    values["accuracy"] = _ratio(true_positive.sum(-1), total[..., 0])
    values["balanced_accuracy"] = per_class["recall"].mean(-1)
    values["macro_f1"] = f1.mean(-1)
    return {name: np.asarray(value) for name, value in values.items()}


def _ratio(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """part / whole, nan where the whole is empty."""
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def case_losses(
    target: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> dict[str, Float[np.ndarray, " n"]]:
    """Brier score and log loss of each case.

    Two classes: both from the positive probability alone, Brier = (p - y)^2. More classes: rows are normalised;
    Brier = sum over classes of (p - y)^2 (0 to 2). Log loss clips probabilities at 2^-23.
    """
    scale = 0.5 if probabilities.shape[1] == 2 else 1.0
    probabilities = from_positive(probabilities)
    probabilities = probabilities / np.maximum(probabilities.sum(1, keepdims=True), CLIP)
    truth = np.eye(probabilities.shape[1])[target]
    of_truth = probabilities[np.arange(len(target)), target]
    return {
        "brier": scale * np.square(probabilities - truth).sum(1),
        "log_loss": -np.log(np.clip(of_truth, CLIP, 1 - CLIP)),
    }


def area_under_curve(target: np.ndarray, probabilities: np.ndarray) -> float:
    """AUC of the positive class, or the mean over classes of one against the rest; nan if a class is missing."""
    num_classes = probabilities.shape[1]
    if len(np.unique(target)) < num_classes:
        return float("nan")
    classes = [num_classes - 1] if num_classes == 2 else range(num_classes)
    return float(np.mean([roc_auc_score(target == k, probabilities[:, k]) for k in classes]))
