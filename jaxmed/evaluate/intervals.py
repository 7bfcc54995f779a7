"""95 % intervals of the metrics of one trained network, and which method gave them.

Cases of one patient, or duplicates of one picture, are not independent: whole clusters are resampled. DeLong's
formula is used for the AUC only where every case is a cluster of its own.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from jaxmed.evaluate.delong import delong_interval
from jaxmed.evaluate.metrics import METRICS, metric_values, predicted_class
from jaxmed.evaluate.resample import RESAMPLES, SEED, draw_clusters, resampled_metrics
from jaxmed.evaluate.table import Predictions

ALPHA = 0.05
NOT_LINKED = "copies not linked: too narrow"
NO_ECE = "no interval: resampling inflates a binned error"


@dataclass(frozen=True)
class Estimate:
    """A metric with its 95 % interval (nan where there is none) and how it was obtained.

    sd and runs are given only for several trained networks: the standard deviation over repeats, and its values.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    sd: float | None = None
    runs: tuple[float, ...] = ()


def plain(value: object) -> object:
    """For JSON: estimates become objects without their empty parts, numbers that are not defined None."""
    if isinstance(value, Estimate):
        value = {key: part for key, part in asdict(value).items() if part not in (None, ())}
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def independent(table: Predictions) -> bool:
    """True where no two rows share a case, a patient or a duplicate group."""
    return len(np.unique(table.clusters())) == len(table)


def metric_intervals(
    table: Predictions, resamples: int = RESAMPLES, seed: int = SEED, linked: bool = True
) -> dict[str, Estimate]:
    """Every metric of one trained network with its interval.

    Args:
        table: cases of one split, fold and repeat, all with known targets.
        linked: False where copies of a picture were not looked for (a leaky split): cases cannot be called independent,
            so DeLong is not used and the method says that the intervals are too narrow.
    """
    clusters = table.clusters()
    draws = draw_clusters(clusters, table.target, resamples, seed)
    sampled = resampled_metrics(table.target, table.probabilities, draws, clusters)
    values = metric_values(table.target, table.probabilities)
    method = describe_bootstrap(table, resamples) + ("" if linked else f"; {NOT_LINKED}")
    estimates = {name: _estimate(name, values[name], sampled.get(name), method, table) for name in METRICS}
    if linked and use_delong(table) and not math.isnan(values["auc"]):
        estimates["auc"] = _delong_estimate(table)
    return estimates


def use_delong(table: Predictions) -> bool:
    """DeLong's formula holds for two classes, independent cases and at least two cases per class."""
    enough = np.bincount(table.target, minlength=len(table.classes)).min() >= 2
    return len(table.classes) == 2 and bool(enough) and independent(table)


def describe_bootstrap(table: Predictions, resamples: int) -> str:
    """The words of the report: what was resampled, how often, and that classes were not held fixed."""
    groups = len(np.unique(table.clusters()))
    unit = f"{groups} cases" if groups == len(table) else f"{groups} patients or duplicate groups"
    kind = "bootstrap" if groups == len(table) else "cluster bootstrap"
    return f"{kind} over {unit}, {resamples:,} resamples, percentile, not stratified"


def percentile_interval(sampled: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the resamples in which the metric is defined; nan if it is defined in none."""
    defined = sampled[~np.isnan(sampled)]
    if len(defined) == 0:
        return math.nan, math.nan
    low, high = np.percentile(defined, [100 * ALPHA / 2, 100 * (1 - ALPHA / 2)])
    return float(low), float(high)


def _estimate(name: str, value: float, sampled: np.ndarray | None, method: str, table: Predictions) -> Estimate:
    if math.isnan(value):
        return Estimate(value, method="not defined: a class is missing or never predicted")
    if sampled is None:
        return Estimate(value, method=NO_ECE)
    low, high = percentile_interval(sampled)
    if high - low < 1e-12:
        return _without_variation(name, value, table)
    undefined = int(np.isnan(sampled).sum())
    left_out = f"; {undefined} resamples without it left out" if undefined else ""
    return Estimate(value, low, high, method + left_out)


def _without_variation(name: str, value: float, table: Predictions) -> Estimate:
    """No error at all gives every resample the same value: a percentile interval of width 0 would be a lie.

    For proportions the exact (Clopper-Pearson) bound over the clusters involved replaces it; elsewhere none is given.
    """
    involved = _denominator(name, table)
    if involved is None or value not in (0.0, 1.0):
        return Estimate(value, method="no interval: every resample gives this value")
    seen = "no error" if value == 1.0 else "no success"
    return exact_estimate(value, len(np.unique(table.clusters()[involved])), seen)


def exact_estimate(value: float, groups: int, seen: str) -> Estimate:
    """A share of 0 or 1 with its exact (Clopper-Pearson) interval over independent groups; `seen` says what was seen."""
    bound = (ALPHA / 2) ** (1 / groups)
    low, high = (bound, 1.0) if value == 1.0 else (0.0, 1 - bound)
    return Estimate(value, low, high, f"exact (Clopper-Pearson) over {groups} independent groups: {seen} seen")


def _denominator(name: str, table: Predictions) -> np.ndarray | None:
    """The cases a proportion is about; None for what is not a proportion."""
    if name == "accuracy":
        return np.ones(len(table), bool)
    if len(table.classes) != 2:
        return None
    about = {
        "recall": table.target == 1,
        "specificity": table.target == 0,
        "precision": predicted_class(table.probabilities) == 1,
    }
    return about.get(name)


def _delong_estimate(table: Predictions) -> Estimate:
    value, low, high = delong_interval(table.target == 1, table.probabilities[:, 1])
    if math.isnan(low):
        return Estimate(value, method="no interval: every pair of cases is ranked alike")
    return Estimate(value, low, high, f"DeLong, logit scale, {len(table)} independent cases")
