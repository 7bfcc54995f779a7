"""Choosing whole groups so that the classes' shares are kept.

If every group is a single case this is scikit-learn's `train_test_split(..., stratify=labels, random_state=seed)`, to
the case. Otherwise groups are taken in a random order fixed by the seed, each one that does not overshoot any class's
count; then, while it brings the counts closer (sum of absolute differences), the best remaining group is added. Small
and large groups so have about the same chance, and the counts are met exactly whenever enough single cases are left.
"""

import numpy as np
from jaxtyping import Int
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from jaxmed.errors import UserError


def take_fraction(
    labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], fraction: float, seed: int, step: int
) -> Int[np.ndarray, " k"]:
    """Positions of about `fraction` of the cases, in whole groups, stratified by label.

    Args:
        step: which of several draws with one seed this is (test, then validation).

    Raises:
        UserError: too few cases to give every class one.
    """
    if len(np.unique(groups)) == len(groups):
        return _take_cases(labels, fraction, seed)
    _, number = np.unique(groups, return_inverse=True)
    kinds, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((number.max() + 1, len(kinds)), np.int64)
    np.add.at(counts, (number, label), 1)
    chosen = take_groups(counts, target_counts(counts.sum(0), fraction), np.random.default_rng([seed, step]))
    return np.flatnonzero(chosen[number])


def target_counts(sizes: Int[np.ndarray, " classes"], fraction: float) -> Int[np.ndarray, " classes"]:
    """Cases wanted per class: ceil(fraction * n) in all, shared by largest remainder (ties: the earlier class)."""
    total = int(np.ceil(fraction * sizes.sum()))
    exact = total * sizes / sizes.sum()
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: total - whole.sum()]] += 1
    return whole


def take_groups(
    counts: Int[np.ndarray, "groups classes"], target: Int[np.ndarray, " classes"], rng: np.random.Generator
) -> np.ndarray:
    """Which groups to take (bool [groups]) so that the sum of their class counts comes close to `target`."""
    order = rng.permutation(len(counts))
    chosen = np.zeros(len(counts), bool)
    missing = target.copy()
    for group in order:
        if (counts[group] <= missing).all():
            chosen[group] = True
            missing -= counts[group]
    while len(left := order[~chosen[order]]):
        distance = np.abs(missing - counts[left]).sum(1)
        best = distance.argmin()
        if distance[best] >= np.abs(missing).sum():
            break
        chosen[left[best]] = True
        missing -= counts[left[best]]
    return chosen


def assign_folds(labels: Int[np.ndarray, " n"], groups: Int[np.ndarray, " n"], num_folds: int, seed: int) -> np.ndarray:
    """The fold (0 .. num_folds - 1) in which each case is held out: scikit-learn's `StratifiedGroupKFold`."""
    folds = np.zeros(len(labels), np.int64)
    folder = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(folder.split(labels, labels, groups)):
        folds[held_out] = number
    return folds


def _take_cases(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    try:
        return train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=seed)[1]
    except ValueError as error:
        raise UserError(f"{len(labels)} cases are too few to take {fraction:g} of every class: {error}") from error
