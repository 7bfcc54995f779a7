"""Readers against the model on resampled patients and readers.

The model's matched operating points are the conservative empirical ones: of the thresholds that the data offer, those at
least as specific (or sensitive) as the reader are kept, and the best of them counts; nothing is interpolated between them.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxmed.evaluate.intervals import Estimate, percentile_interval
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.reads import Reader
from jaxmed.evaluate.resample import RESAMPLES, SEED, case_counts, draw_clusters, weighted_metrics
from jaxmed.evaluate.roc import roc_points

METRICS = ("recall", "specificity", "accuracy", "precision", "f1", "auc")
AT_SPECIFICITY, AT_SENSITIVITY = "sensitivity_at_specificity", "specificity_at_sensitivity"
MATCHED = {AT_SPECIFICITY: "recall", AT_SENSITIVITY: "specificity"}  # the reader's metric each is compared with
EPSILON = 1e-9  # shares that are equal but for rounding

Values = dict[str, Float[np.ndarray, "readers samples"]]


def matched_points(
    positive: Bool[np.ndarray, " n"],
    score: Float[np.ndarray, " n"],
    reader: dict[str, Float[np.ndarray, " r"]],
    counts: Int[np.ndarray, "r n"],
) -> dict[str, Float[np.ndarray, " r"]]:
    """The model's sensitivity at the reader's specificity and its specificity at the reader's sensitivity, per sample.

    reader: "recall" and "specificity" on the same samples.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        alarms, hits = roc_points(positive, score, counts)
    specific = 1 - alarms >= reader["specificity"][:, None] - EPSILON
    sensitive = hits >= reader["recall"][:, None] - EPSILON
    sensitivity = np.where(specific, hits, 0).max(axis=1)
    specificity = np.where(sensitive, 1 - alarms, 0).max(axis=1)
    defined = ~np.isnan(reader["specificity"] + reader["recall"])
    pair = {AT_SPECIFICITY: sensitivity, AT_SENSITIVITY: specificity}
    return {name: np.where(defined, value, np.nan) for name, value in pair.items()}


def sample_values(model: Predictions, readers: Sequence[Reader], counts: Int[np.ndarray, "r n"]) -> tuple[Values, Values]:
    """Metrics of every reader, and of the model on the cases of that reader with its matched points, per sample."""
    human, machine = [], []
    for reader in readers:
        mine, table = counts[:, reader.rows], model.take(reader.rows)
        human.append(weighted_metrics(table.target, reader.table.probabilities, mine))
        found = weighted_metrics(table.target, table.probabilities, mine)
        machine.append(found | matched_points(table.target == 1, table.probabilities[:, 1], human[-1], mine))
    return _stack(human, METRICS), _stack(machine, (*METRICS, *MATCHED))


def _stack(values: list[dict], names: Sequence[str]) -> Values:
    return {name: np.stack([value[name] for value in values]) for name in names}


class Comparison:
    """All numbers of readers and model: on the data, and on the same resamples of patients for everything."""

    def __init__(self, model: Predictions, readers: Sequence[Reader], resamples: int = RESAMPLES, seed: int = SEED):
        self.human, self.machine = sample_values(model, readers, np.ones((1, len(model)), int))
        clusters = model.clusters()
        draws = draw_clusters(clusters, model.target, resamples, seed)
        blocks = [sample_values(model, readers, counts) for counts in case_counts(draws, clusters)]
        self.human_drawn, self.machine_drawn = (
            {name: np.concatenate([block[side][name] for block in blocks], axis=1) for name in blocks[0][side]}
            for side in (0, 1)
        )
        self.patients = draws.shape[1]

    def of_reader(self, number: int, name: str) -> tuple[Estimate, Estimate]:
        """A metric of the model on this reader's cases (or a matched point), and model minus reader; patients resampled."""
        theirs, method = MATCHED.get(name, name), f"bootstrap over {self.patients} patients"
        difference = self.machine[name][number, 0] - self.human[theirs][number, 0]
        drawn = self.machine_drawn[name][number] - self.human_drawn[theirs][number]
        value = Estimate(float(self.machine[name][number, 0]), *_limits(self.machine_drawn[name][number]), method)
        return value, Estimate(float(difference), *_limits(drawn), method)

    def average(self, name: str, members: Sequence[int], seed: int = SEED) -> tuple[Estimate, Estimate]:
        """Mean over readers with their SD, and the mean of model minus reader; readers and patients resampled.

        Args:
            name: one of METRICS (the readers' mean) or of MATCHED (the model's mean at the readers' points).
            members: the readers averaged, by number.
        """
        members, theirs = np.asarray(members), MATCHED.get(name, name)
        values, drawn = (self.machine, self.machine_drawn) if name in MATCHED else (self.human, self.human_drawn)
        resamples = drawn[name].shape[1]
        chosen = members[np.random.default_rng([seed, len(members)]).integers(0, len(members), (resamples, len(members)))]
        at = np.arange(resamples)[:, None]
        gap, gap_drawn = self.machine[name] - self.human[theirs], self.machine_drawn[name] - self.human_drawn[theirs]
        method = f"bootstrap over {len(members)} readers and {self.patients} patients"
        mine = values[name][members, 0]
        sd = float(np.std(mine, ddof=1)) if len(mine) > 1 else None
        mean = Estimate(_mean(mine), *_limits(_means(drawn[name][chosen, at])), method, sd)
        return mean, Estimate(_mean(gap[members, 0]), *_limits(_means(gap_drawn[chosen, at])), method)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _means(values: Float[np.ndarray, "r readers"]) -> Float[np.ndarray, " r"]:
    """Mean over readers where at least one is defined."""
    known = ~np.isnan(values)
    return np.where(known.any(1), np.nansum(values, axis=1) / np.maximum(known.sum(1), 1), np.nan)


def _limits(drawn: np.ndarray) -> tuple[float, float]:
    """None where every resample gives one value: an interval of width 0 would be a lie."""
    low, high = percentile_interval(drawn)
    return (low, high) if high - low > 1e-12 else (float("nan"), float("nan"))
