"""DeLong's variance of the AUC, its interval and the paired test; valid only where cases are independent.

DeLong, DeLong, Clarke-Pearson, Biometrics 1988; midranks as in Sun and Xu, IEEE Signal Processing Letters 2014.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class PairedTest:
    """Two scores on the same cases: areas, first minus second with its 95 % interval, two-sided p value."""

    auc: tuple[float, float]
    difference: float
    low: float
    high: float
    p_value: float


def delong(
    positive: Bool[np.ndarray, " n"], scores: Float[np.ndarray, "k n"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, "k k"]]:
    """AUC of k scores on the same cases, and their covariance.

    Raises:
        ValueError: fewer than two cases in a class: the variance is not defined.
    """
    cases, controls = scores[:, positive], scores[:, ~positive]
    m, n = cases.shape[1], controls.shape[1]
    if min(m, n) < 2:
        raise ValueError(f"DeLong's variance needs two cases per class; there are {m} positive and {n} negative")
    ranks = rankdata(np.concatenate([cases, controls], axis=1), axis=1)
    above = (ranks[:, :m] - rankdata(cases, axis=1)) / n  # per positive: share of the negatives it beats
    below = 1 - (ranks[:, m:] - rankdata(controls, axis=1)) / m
    covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return above.mean(axis=1), covariance


def delong_interval(
    positive: Bool[np.ndarray, " n"], score: Float[np.ndarray, " n"], level: float = 0.95
) -> tuple[float, float, float]:
    """(AUC, low, high), computed on the logit scale so that it stays inside 0 and 1.

    low and high are nan where the variance is zero (every pair ranked correctly): it says nothing about the error.
    """
    area, covariance = delong(positive, score[None])
    value, variance = float(area[0]), float(covariance[0, 0])
    if not 0 < value < 1 or variance <= 0:
        return value, float("nan"), float("nan")
    half = norm.ppf(0.5 + level / 2) * np.sqrt(variance) / (value * (1 - value))
    center = np.log(value / (1 - value))
    return value, float(1 / (1 + np.exp(half - center))), float(1 / (1 + np.exp(-half - center)))


def delong_test(
    positive: Bool[np.ndarray, " n"], first: Float[np.ndarray, " n"], second: Float[np.ndarray, " n"]
) -> PairedTest:
    """Do two scores of the same independent cases differ in AUC? p is 1 for scores that rank the cases alike."""
    area, covariance = delong(positive, np.stack([first, second]))
    difference = float(area[0] - area[1])
    error = float(np.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0)))
    half = norm.ppf(0.975) * error
    if error > 0:
        p_value = float(2 * norm.sf(abs(difference) / error))
    else:
        p_value = 1.0 if difference == 0 else float("nan")
    return PairedTest((float(area[0]), float(area[1])), difference, difference - half, difference + half, p_value)
