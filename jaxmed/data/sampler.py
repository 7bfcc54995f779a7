"""Sampling with replacement: rarer classes as often as frequent ones (HSQformer's code; its paper does not mention it).

This changes the prior of the classes that a network learns; `jaxmed.evaluate.prior` takes probabilities back to the true one.
"""

import math
import sys

import grain
import numpy as np
from jaxtyping import Float, Int

from jaxmed.errors import UserError


def inverse_counts(labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Chance of each case, sum 1: every class that occurs gets the same, shared evenly by its cases.

    Raises:
        UserError: a case without label (-1), or no cases.
    """
    labels = np.asarray(labels)
    if not len(labels) or labels.min() < 0:
        raise UserError("weighted sampling needs cases, each with a label")
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return 1.0 / (len(counts) * counts[inverse])


def weighted_rows(rows: Int[np.ndarray, " n"], chance: Float[np.ndarray, " n"], seed: int) -> grain.MapDataset:
    """Endless draws of `rows` by `chance`, with replacement.

    The draw at a position is a function of `seed` and the position alone, not of what was drawn before, nor by whom: it takes
    the place of `source(rows).shuffle(seed).repeat()` in `Pipeline.train` and keeps its promise of exact resume.
    """
    return grain.MapDataset.range(sys.maxsize).map(_Sampler(np.asarray(rows), np.asarray(chance, np.float64), seed))


def epoch_cases(num_cases: int, factor: float = 2.0) -> int:
    """Draws that make one epoch (HSQformer's code: twice the cases)."""
    return math.ceil(num_cases * factor)


class _Sampler:
    """Position -> row."""

    def __init__(self, rows: np.ndarray, chance: np.ndarray, seed: int):
        self.rows, self.seed = rows, seed
        self.upper = np.cumsum(chance) / np.sum(chance)

    def __call__(self, position: int) -> int:
        # counter-based: every position has a number of its own, without those before it
        number = np.random.Generator(np.random.Philox(key=self.seed, counter=position)).random()
        return self.rows[min(np.searchsorted(self.upper, number, side="right"), len(self.rows) - 1)]
