"""The difference of two runs' fold-averaged AUC on the same cases: a paired bootstrap of patients or duplicate groups."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxmed.evaluate.delong import PairedTest, delong_test
from jaxmed.evaluate.intervals import Estimate, percentile_interval, use_delong
from jaxmed.evaluate.metrics import area_under_curve
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.repeats import mean_of_folds
from jaxmed.evaluate.resample import SEED, case_counts, draw_clusters, weighted_area

PAIRED_RESAMPLES = 10_000  # more than for intervals: the least p, 0.0002, must survive Holm's correction
P_VALUE_FORMULA = "p = min(1, 2 (1 + min(#{d* <= 0}, #{d* >= 0})) / (B + 1))"
Drawn = Float[np.ndarray, " resamples"]


def draw_shared(
    table: Predictions, cluster_of: Mapping[str, int], resamples: int = PAIRED_RESAMPLES, seed: int = SEED
) -> Int[np.ndarray, "resamples clusters"]:
    """One set of draws for all runs. table: the rows of any of them; cluster_of: {case_id: cluster}."""
    return draw_clusters(_members(table, cluster_of), table.target, resamples, seed)


def fold_averaged_auc(parts: Sequence[Predictions], cluster_of: Mapping[str, int], draws: np.ndarray) -> tuple[float, Drawn]:
    """The AUC of every trained network, averaged over folds and then over repeats: of the data, and of each resample."""
    repeat = np.array([part.repeat[0] for part in parts])
    values = np.array([area_under_curve(part.target, part.probabilities) for part in parts])
    value = np.mean([values[repeat == r].mean() for r in np.unique(repeat)])
    return float(value), mean_of_folds([_resampled_auc(part, draws, _members(part, cluster_of)) for part in parts], repeat)


def _resampled_auc(table: Predictions, draws: np.ndarray, members: np.ndarray) -> Drawn:
    blocks = [weighted_area(table.target, table.probabilities, counts.astype(float)) for counts in case_counts(draws, members)]
    return np.concatenate(blocks)


def _members(table: Predictions, cluster_of: Mapping[str, int]) -> Int[np.ndarray, " n"]:
    return np.array([cluster_of[case] for case in table.case_id.tolist()])


def difference(first: tuple[float, Drawn], second: tuple[float, Drawn], clusters: int) -> tuple[Estimate, float]:
    """First minus second with the interval of the paired resamples, and the p value. Arguments as `fold_averaged_auc` gives."""
    value, drawn = first[0] - second[0], first[1] - second[1]
    method = f"paired cluster bootstrap over {clusters} patients or duplicate groups, {len(drawn):,} resamples, percentile"
    if math.isnan(value):
        return Estimate(value, method="not defined: a fold lacks a class"), math.nan
    return Estimate(value, *percentile_interval(drawn), method), p_value(drawn)


def p_value(drawn: Drawn) -> float:
    """Two-sided, from resampled differences d*: `P_VALUE_FORMULA`; nan where no resample is defined.

    The interval is inverted: 1 - p is about the level at which the percentile interval just touches 0. Counting the data as
    one resample more keeps p above 0 (Davison and Hinkley, Bootstrap Methods and their Application, 1997, chapter 4): it
    is at least 2 / (B + 1).
    """
    defined = drawn[~np.isnan(drawn)]
    if not len(defined):
        return math.nan
    tail = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1, 2 * (1 + tail) / (len(defined) + 1)))


def smallest_p(resamples: int = PAIRED_RESAMPLES) -> float:
    """The least that `p_value` can be."""
    return 2 / (resamples + 1)


def delong_check(first: Sequence[Predictions], second: Sequence[Predictions]) -> PairedTest | None:
    """DeLong's test beside the bootstrap; None unless each run is one network with two classes and independent cases."""
    if len(first) > 1 or len(second) > 1 or not (use_delong(first[0]) and use_delong(second[0])):
        return None
    one, other = (part.take(np.argsort(part.case_id)) for part in (first[0], second[0]))
    return delong_test(one.target == 1, one.probabilities[:, 1], other.probabilities[:, 1])
