"""Several trained networks (repeats, folds): mean, training variability, and an interval over patients."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from jaxmed.evaluate.intervals import NO_ECE, NOT_LINKED, Estimate, metric_intervals, percentile_interval
from jaxmed.evaluate.metrics import metric_values
from jaxmed.evaluate.resample import RESAMPLES, SEED, draw_clusters, resampled_metrics
from jaxmed.evaluate.table import Predictions, concatenate


@dataclass(frozen=True)
class Kind:
    """What to compute of a network's table.

    Attributes:
        strata: int [n]; every resample holds a case of each value.
        values: {metric: value}.
        resampled: (table, draws [resamples, clusters], the cluster of each row) -> {metric: [resamples]}.
    """

    strata: Callable[[Predictions], np.ndarray]
    values: Callable[[Predictions], dict[str, float]]
    resampled: Callable[[Predictions, np.ndarray, np.ndarray], dict[str, np.ndarray]]


CLASSES = Kind(
    strata=lambda table: table.target,
    values=lambda table: metric_values(table.target, table.probabilities),
    resampled=lambda table, draws, member: resampled_metrics(table.target, table.probabilities, draws, member),
)


def estimate(table: Predictions, linked: bool = True) -> dict[str, Estimate]:
    """Every metric of a split's rows: of one trained network, or summarised over several.

    linked: whether copies of a picture share a group; False in a leaky split.
    """
    parts = table.parts()
    return summarise_repeats(parts, linked=linked) if len(parts) > 1 else metric_intervals(table, linked=linked)


def summarise_repeats(
    tables: list[Predictions], resamples: int = RESAMPLES, seed: int = SEED, linked: bool = True
) -> dict[str, Estimate]:
    """Mean, SD and interval of every metric over several trained networks.

    Every metric is computed per network (so the AUC is per fold, never over pooled scores), averaged over the folds of
    a repeat, then over repeats. `sd` is over repeats (training variability); with one repeat it is over folds, which
    adds the differences between their cases (none where the network of every fold read the same test set). The interval
    resamples patients or duplicate groups, the same draw for every network, and averages inside each resample: it is
    about new patients, not about new training runs.

    Args:
        tables: one per trained network (`Predictions.parts()`), known targets only, each of one repeat and fold.
        linked: False where copies of a picture were not looked for; the method then says so.
    """
    return summarise_networks(CLASSES, tables, resamples, seed, linked)


def summarise_networks(
    kind: Kind, tables: list[Predictions], resamples: int = RESAMPLES, seed: int = SEED, linked: bool = True
) -> dict[str, Estimate]:
    """`summarise_repeats` for any kind of metrics."""
    together = concatenate(tables)
    clusters = together.clusters()
    draws = draw_clusters(clusters, kind.strata(together), resamples, seed)
    members = np.split(clusters, np.cumsum([len(table) for table in tables])[:-1])
    sampled = [kind.resampled(table, draws, member) for table, member in zip(tables, members, strict=True)]
    values = [kind.values(table) for table in tables]
    repeat = np.array([table.repeat[0] for table in tables])
    method = _describe(tables, draws.shape[1], resamples) + ("" if linked else f"; {NOT_LINKED}")
    return {name: _summary(name, values, sampled, repeat, method) for name in values[0]}


def _summary(name: str, values: list[dict], sampled: list[dict], repeat: np.ndarray, method: str) -> Estimate:
    per_network = np.array([value[name] for value in values])
    runs = np.array([per_network[repeat == r].mean() for r in np.unique(repeat)])
    spread = runs if len(runs) > 1 else per_network
    sd = float(np.std(spread, ddof=1)) if len(spread) > 1 else math.nan
    low, high = math.nan, math.nan
    if name in sampled[0]:
        low, high = percentile_interval(mean_of_folds([s[name] for s in sampled], repeat))
    if high - low < 1e-12:
        low, high, method = math.nan, math.nan, "no interval: every resample gives this value"
    elif math.isnan(low):
        method = NO_ECE if name == "ece" else "no interval: not defined"
    return Estimate(float(runs.mean()), low, high, method, sd, tuple(spread.tolist()))


def mean_of_folds(
    sampled: list[Float[np.ndarray, " resamples"]], repeat: Int[np.ndarray, " networks"]
) -> Float[np.ndarray, " resamples"]:
    """Folds first, then repeats; a fold that lacks a class in a resample is left out of that resample's mean."""
    stacked = np.stack(sampled)
    return _nanmean(np.stack([_nanmean(stacked[repeat == r]) for r in np.unique(repeat)]))


def _nanmean(values: np.ndarray) -> np.ndarray:
    defined = (~np.isnan(values)).sum(axis=0)
    return np.where(defined > 0, np.nansum(values, axis=0) / np.maximum(defined, 1), np.nan)


def _describe(tables: list[Predictions], groups: int, resamples: int) -> str:
    repeats = len({int(table.repeat[0]) for table in tables})
    folds = len({int(table.fold[0]) for table in tables})
    averaged = f"mean of {repeats} repeats" if repeats > 1 else "mean"
    averaged += f" of {folds} folds" if folds > 1 else ""
    return (f"{averaged}; cluster bootstrap over {groups} patients or duplicate groups, {resamples:,} resamples, "
            "averaged inside each, percentile, not stratified")
