"""Does a probability of 0.8 come true in 80 % of the cases? Reliability curve and expected calibration error."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Reliability:
    """Equal-width bins over [0, 1]; empty bins have count 0 and nan elsewhere.

    Attributes:
        edges: [bins + 1]; predicted: mean probability per bin; observed: fraction that came true; count: cases.
        ece: mean over cases of |predicted - observed| of their bin.
    """

    edges: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    count: np.ndarray
    ece: float


def confidence_and_outcome(
    target: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n classes"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """What is said and whether it came true.

    Two classes: the positive probability, and whether the case is positive. More: the highest probability, and
    whether that class is right (top-label calibration).
    """
    if probabilities.shape[1] == 2:
        return probabilities[:, 1], (target == 1).astype(float)
    return probabilities.max(1), (probabilities.argmax(1) == target).astype(float)


def bin_of(confidence: Float[np.ndarray, " n"], bins: int) -> Int[np.ndarray, " n"]:
    """Bin k holds (k / bins, (k + 1) / bins]; 0 belongs to the first."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def reliability(target: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> Reliability:
    """Reliability curve with its bin counts (Guo et al. 2017, eq. 3, for the ECE)."""
    confidence, outcome = confidence_and_outcome(target, probabilities)
    index = bin_of(confidence, bins)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted = np.bincount(index, confidence, bins) / count
        observed = np.bincount(index, outcome, bins) / count
    ece = float(np.nansum(count * np.abs(predicted - observed)) / count.sum())
    return Reliability(np.linspace(0, 1, bins + 1), predicted, observed, count, ece)
