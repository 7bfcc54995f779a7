"""The cluster bootstrap's inner part: draw whole clusters, compute every metric of all resamples at once."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from jaxmed.evaluate.metrics import case_losses, confusion_metrics, predicted_class

RESAMPLES = 2000
SEED = 42
_BLOCK = 4_000_000  # elements of one [resamples, cases] block: 32 MB, whatever the number of cases


def draw_clusters(
    clusters: Int[np.ndarray, " n"], target: Int[np.ndarray, " n"], resamples: int = RESAMPLES, seed: int = SEED
) -> Int[np.ndarray, "resamples clusters"]:
    """How often each cluster is in each resample; as many clusters as there are, with replacement.

    Not stratified by class: the number of positive cases varies, as it would between samples of patients. A resample
    in which a class is missing is drawn again, since most metrics are not defined on it.
    """
    present = np.zeros((clusters.max() + 1, target.max() + 1))
    present[clusters, target] = 1
    present = present[:, present.any(axis=0)]
    rng = np.random.default_rng(seed)
    share = np.full(len(present), 1 / len(present))
    draws = rng.multinomial(len(present), share, size=resamples)
    while (lacking := ((draws @ present) == 0).any(axis=1)).any():
        draws[lacking] = rng.multinomial(len(present), share, size=lacking.sum())
    return draws


def case_counts(draws: np.ndarray, clusters: np.ndarray) -> Iterator[Int[np.ndarray, "block n"]]:
    """How often each case is in each resample, a block of resamples at a time."""
    step = max(1, _BLOCK // max(1, len(clusters)))
    for start in range(0, len(draws), step):
        yield draws[start : start + step, clusters]


def resampled_metrics(
    target: np.ndarray, probabilities: np.ndarray, draws: np.ndarray, clusters: np.ndarray
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """All metrics except the calibration error, one value per resample; nan where not defined.

    clusters: int [n], the column of `draws` that each case belongs to.
    """
    blocks = [weighted_metrics(target, probabilities, counts) for counts in case_counts(draws, clusters)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def weighted_metrics(
    target: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"], counts: Int[np.ndarray, "r n"]
) -> dict[str, Float[np.ndarray, " r"]]:
    """`metrics.metric_values` (without ece) of r samples, in which case i appears counts[:, i] times."""
    counts = counts.astype(float)
    num_classes = probabilities.shape[1]
    cell = np.eye(num_classes**2)[target * num_classes + predicted_class(probabilities)]
    values = confusion_metrics((counts @ cell).reshape(-1, num_classes, num_classes))
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, loss in case_losses(target, probabilities).items():
            values[name] = counts @ loss / total
    values["auc"] = weighted_area(target, probabilities, counts)
    return values


def weighted_area(
    target: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"], counts: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, " r"]:
    """`metrics.area_under_curve` of r samples: of the positive class, or the mean over classes of one against the rest."""
    num_classes = probabilities.shape[1]
    classes = [num_classes - 1] if num_classes == 2 else range(num_classes)
    return np.mean([weighted_auc(target == k, probabilities[:, k], counts) for k in classes], axis=0)


def weighted_auc(positive: np.ndarray, score: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """AUC per row of counts: the share of (positive, negative) pairs ranked correctly, ties counting half."""
    hits, alarms = threshold_counts(positive, score, counts)
    below = np.cumsum(alarms, axis=1) - alarms
    with np.errstate(invalid="ignore", divide="ignore"):
        return (hits * (below + alarms / 2)).sum(axis=1) / (hits.sum(axis=1) * alarms.sum(axis=1))


def threshold_counts(positive: np.ndarray, score: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives [r, levels] at each distinct score, from the lowest to the highest."""
    order = np.argsort(score, kind="stable")
    starts = np.unique(score[order], return_index=True)[1]
    sorted_counts = counts[:, order]
    hits = np.add.reduceat(sorted_counts * positive[order], starts, axis=1)
    alarms = np.add.reduceat(sorted_counts * ~positive[order], starts, axis=1)
    return hits, alarms
