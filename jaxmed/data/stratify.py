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
    rows: Int[np.ndarray, " n"], labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides `rows` into (the rest, about `fraction` of them), in whole groups, stratified by label.

    Args:
        rows: the cases to divide. Their order matters to scikit-learn, so pass one draw's rest on to the next as it is.
        labels, groups: of all cases; looked up by row.
        step: which of several draws with one seed this is (test, then validation).

    Raises:
        UserError: too few cases to give every class one.
    """
    if len(np.unique(groups[rows])) == len(rows):
        return _take_cases(rows, labels, fraction, seed)
    _, number = np.unique(groups[rows], return_inverse=True)
    kinds, label = np.unique(labels[rows], return_inverse=True)
    counts = np.zeros((number.max() + 1, len(kinds)), np.int64)
    np.add.at(counts, (number, label), 1)
    chosen = take_groups(counts, target_counts(counts.sum(0), fraction), np.random.default_rng([seed, step]))
    return rows[~chosen[number]], rows[chosen[number]]


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
        distance = _distance(missing - counts[left])
        best = distance.argmin()
        if distance[best] >= _distance(missing):
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


def _distance(missing: np.ndarray) -> np.ndarray | np.floating:
    """Sum over classes of what is missing or too much; among equals, the smaller error of the total."""
    return np.abs(missing).sum(-1) + 1e-6 * np.abs(missing.sum(-1))


def _take_cases(rows: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        rest, taken = train_test_split(rows, test_size=fraction, stratify=labels[rows], random_state=seed)
        return rest, taken
    except ValueError as error:
        raise UserError(f"{len(rows)} cases are too few to take {fraction:g} of every class: {error}") from error
