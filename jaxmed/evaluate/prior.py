"""Probabilities learned under one class prior, corrected to another (Saerens et al. 2002, with known priors).

A sampler that draws rare classes more often teaches their prior with them: the network then names them too often. The
correction is Bayes' rule, exact where the probabilities are calibrated under the learned prior. It moves thresholds and
calibration; for two classes it does not change the order of the cases, and so not the AUC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from jaxmed.errors import UserError
from jaxmed.evaluate.calibration import reliability
from jaxmed.evaluate.metrics import from_positive
from jaxmed.evaluate.predictions import Predictions

Priors = Mapping[str, Sequence[float]]  # run.json's "priors": {"learned": shares among the draws, "true": among the cases}


def class_prior(target: Int[np.ndarray, " n"], num_classes: int) -> Float[np.ndarray, " classes"]:
    """Share of each class. The true prior is that of the training cases before sampling, never of the test cases."""
    return np.bincount(target, minlength=num_classes) / len(target)


def correct_prior(
    probabilities: Float[np.ndarray, "n classes"], learned: Float[np.ndarray, " classes"], true: Float[np.ndarray, " classes"]
) -> Float[np.ndarray, "n classes"]:
    """p_c true_c / learned_c, scaled so that each row sums to 1.

    Raises:
        UserError: priors of the wrong length, negative or without sum 1; a class that training never saw.
    """
    learned, true = (_checked(p, name, probabilities.shape[1]) for p, name in ((learned, "learned"), (true, "true")))
    if not learned.all():
        raise UserError(f"class {int(np.argmin(learned))} has no share in the learned prior: it cannot be corrected")
    moved = np.asarray(probabilities, np.float64) * (true / learned)
    return moved / moved.sum(1, keepdims=True)


def correction_effect(
    target: Int[np.ndarray, " n"],
    probabilities: Float[np.ndarray, "n classes"],
    learned: Float[np.ndarray, " classes"],
    true: Float[np.ndarray, " classes"],
    bins: int = 10,
) -> tuple[float, float]:
    """Expected calibration error (before, after) the correction."""
    corrected = correct_prior(probabilities, learned, true)
    return reliability(target, probabilities, bins).ece, reliability(target, corrected, bins).ece


def corrected_table(table: Predictions, priors: Priors) -> Predictions:
    """The same rows with corrected probabilities; with two classes those of the positive class and its complement.

    Raises:
        UserError: run.json's priors lack an entry, or do not fit the classes.
    """
    if missing := {"learned", "true"} - priors.keys():
        raise UserError(f"run.json: priors lacks {' and '.join(sorted(missing))}: give a share for each class, or no priors")
    probabilities = correct_prior(from_positive(table.probabilities), priors["learned"], priors["true"])
    return replace(table, probabilities=probabilities)


def correction_of_table(table: Predictions, priors: Priors) -> tuple[float, float]:
    """Expected calibration error (before, after) the correction, each the mean over the trained networks."""
    pairs = [(part, corrected_table(part, priors)) for part in table.parts()]
    errors = [[reliability(rows.target, rows.probabilities).ece for rows in pair] for pair in pairs]
    before, after = np.mean(errors, axis=0).tolist()
    return before, after


def _checked(prior: np.ndarray, name: str, num_classes: int) -> np.ndarray:
    prior = np.asarray(prior, np.float64)
    if prior.shape != (num_classes,) or prior.min() < 0 or abs(prior.sum() - 1) > 1e-6:
        raise UserError(f"the {name} prior must be {num_classes} shares that sum to 1, got {prior.tolist()}")
    return prior
