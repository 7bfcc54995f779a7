"""McNemar's exact test of two decision makers on the same cases, and Holm's correction for several such tests."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binomtest


@dataclass(frozen=True)
class McNemar:
    """Cases that only the first got right, only the second; the two-sided exact p value (1 where there are none)."""

    first_only: int
    second_only: int
    p_value: float


def mcnemar(first_right: Bool[np.ndarray, " n"], second_right: Bool[np.ndarray, " n"]) -> McNemar:
    """The exact (binomial) form: of the cases on which one is right and the other wrong, half are expected each way.

    McNemar, Psychometrika 1947. It takes cases as independent; several images of a patient make p too small.
    """
    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    p_value = binomtest(first, first + second).pvalue if first + second else 1.0
    return McNemar(first, second, float(p_value))


def holm(p_values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Adjusted p values of k tests (Holm, Scandinavian Journal of Statistics 1979), in the order given."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1)
    return adjusted
