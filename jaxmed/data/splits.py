"""Train, validation and test: stratified, by patient, with duplicate images kept together.

Groups are what may not be divided: all cases of a patient, and all cases linked by duplicate images (thumbnails
correlating above `duplicate_threshold`, single linkage); patients linked by duplicates are united. Pairs above
`conflict_threshold` whose labels differ are the same picture called two things: both are left out by default (split
"dropped").

The paper's arithmetic: test = ceil(0.15 n), then validation = ceil(0.1765 (n - test)), in whole groups and with the
classes' shares (`stratify.py`). With k folds the held-out fold is the test split, and validation is taken from the
rest in the same way.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from jaxmed.data.cases import Source
from jaxmed.data.similarity import (
    CONFLICT_THRESHOLD,
    DUPLICATE_THRESHOLD,
    NO_PAIRS,
    Pairs,
    label_conflicts,
    link,
    similar_pairs,
)
from jaxmed.data.split_table import (
    DROPPED,
    GROUPED,
    LEAKY,
    PAPER,
    SPLITS,
    Split,
    check_split,
    label_name,
    read_split,
    shared_across,
    write_split,
)
from jaxmed.data.stratify import assign_folds, take_fraction
from jaxmed.errors import UserError

__all__ = ["OPTIONS", "Split", "check_split", "make_split", "read_split", "shared_across", "write_split"]

OPTIONS = {
    "group_duplicates": True,
    "duplicate_threshold": DUPLICATE_THRESHOLD,
    "conflict_threshold": CONFLICT_THRESHOLD,
    "drop_conflicts": True,
    "test_fraction": 0.15,
    "val_fraction": 0.1765,
    "paper_protocol": False,
    "also_train": (),
}
_NO_COPIES = ["copies of pictures were not looked for"]


def make_split(
    source: Source,
    thumbnails: np.ndarray | None,
    data: Mapping,
    *,
    seed: int,
    fold: int | None = None,
    num_folds: int | None = None,
    skipped: Mapping[int, str] | None = None,
) -> Split:
    """Divides the cases of a source; deterministic by `seed`.

    Args:
        thumbnails: uint8 [n, 32, 32], `Cache.thumbnails`; None: copies are not looked for, patients alone are kept together.
        data: the config's `data` block; of it the keys of `OPTIONS`. `group_duplicates=False` gives the image-level
            split of published results: nothing is left out, patients are still kept together where the source names
            them, and the kind is "leaky, for comparison". `paper_protocol=True` makes no validation split: the test
            cases choose the epoch too, as in papers that have no other. A source with test sets of its own
            (`source.test_sets`) is divided into training and validation only; there `paper_protocol` joins validation
            and the first test set, and sets named in `also_train` go into training.
        fold, num_folds: hold out fold `fold` of `num_folds` as the test split (with test sets: as the validation split).
        skipped: cases that could not be read (`Cache.skipped`): left out.

    Raises:
        UserError: a case without label, a class too small to divide, a patient or group across the source's own splits.
    """
    options, labels = {key: data.get(key, default) for key, default in OPTIONS.items()}, _known_labels(source)
    pairs, conflicts = _find_duplicates(thumbnails, labels, options)
    groups = case_groups(source, pairs)
    sets = tuple(name for name in source.test_sets if name not in options["also_train"])
    given = _given_splits(source, num_folds)
    drop = [] if given is not None or not options["drop_conflicts"] else _members(conflicts)
    names = np.full(len(labels), "train", object) if given is None else given
    external = np.array([case.split in sets for case in source.cases])
    names[external] = [case.split for case in source.cases if case.split in sets]
    names[[*drop, *(skipped or {})]] = DROPPED
    folds = np.full(len(labels), "", object)
    if given is None:
        fixed = external | np.array([case.split in options["also_train"] for case in source.cases])
        _divide(names, folds, fixed, labels, groups, source.classes, options, seed, fold, num_folds)
    rows = _rows(source, groups, names, folds)
    notes = ["the split is the source's own column, used as it is"] if given is not None else []
    notes += _set_notes(source, options) + _patient_notes(source)
    notes += _NO_COPIES if thumbnails is None else _duplicate_notes(groups, pairs, labels, options)
    notes += _conflict_notes(source, conflicts, options, bool(drop)) + _skip_notes(source, skipped or {})
    notes += _count_notes(rows, source.classes)
    kind = GROUPED if options["group_duplicates"] else LEAKY
    split = Split(rows, notes, kind + PAPER * options["paper_protocol"], sets or ("test",))
    check_split(split, source.classes)
    return split


def group_names(source: Source, thumbnails: np.ndarray | None, threshold: float) -> np.ndarray:
    """Group (str) of every case of data that is not divided; thumbnails as in `make_split`."""
    pairs = NO_PAIRS if thumbnails is None else similar_pairs(thumbnails, threshold)
    return np.array([f"group {number}" for number in case_groups(source, pairs)])


def case_groups(source: Source, pairs: Pairs) -> np.ndarray:
    """Group number of every case: patients, united along the pairs."""
    last: dict[str, int] = {}
    first, second = list(pairs.first), list(pairs.second)
    for row, case in enumerate(source.cases):
        if case.patient_id:
            first.append(last.get(case.patient_id, row))
            second.append(row)
            last[case.patient_id] = row
    return link(len(source.cases), np.array(first, np.int64), np.array(second, np.int64))


def describe_conflicts(source: Source, conflicts: Pairs) -> list[str]:
    """ "benign (433) [benign] = malignant (145) [malignant], correlation 0.9999" for every pair."""

    def named(row: int) -> str:
        return f"{source.cases[row].case_id} [{label_name(source, source.cases[row].label)}]"

    return [f"{named(first)} = {named(second)}, correlation {value:.4f}" for first, second, value in conflicts]


def _known_labels(source: Source) -> np.ndarray:
    """The label of every case; UserError: an id used twice, a case without label."""
    names = Counter(case.case_id for case in source.cases)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"case_id {twice[0]!r} is used {names[twice[0]]} times; every case needs its own")
    for case in source.cases:
        if case.label < 0:
            raise UserError(
                f"case {case.case_id} has no label: a split for training needs one of {', '.join(source.classes)}"
            )
    return np.array([case.label for case in source.cases])


def _find_duplicates(thumbnails: np.ndarray | None, labels: np.ndarray, options: Mapping) -> tuple[Pairs, Pairs]:
    """(linked pairs, label conflicts); both empty where duplicates are not grouped."""
    if thumbnails is None:
        return NO_PAIRS, NO_PAIRS
    lowest = min(options["duplicate_threshold"], options["conflict_threshold"])
    pairs = similar_pairs(thumbnails, lowest if options["group_duplicates"] else np.inf)
    conflicts = label_conflicts(pairs, labels, options["conflict_threshold"])
    return pairs.above(options["duplicate_threshold"]), conflicts


def _given_splits(source: Source, num_folds: int | None) -> np.ndarray | None:
    """The source's own split column, or None if it has none."""
    given = ["" if case.split in source.test_sets else case.split for case in source.cases]
    if not any(given):
        return None
    if num_folds:
        raise UserError("the source fixes its own splits, which folds would ignore; remove its split column")
    if "" in given:
        name = source.cases[given.index("")].case_id
        raise UserError(f"case {name} has no split although other cases have one: fill the column or remove it")
    return np.array(given, object)


def _divide(names, folds, fixed, labels, groups, classes, options, seed, fold, num_folds) -> None:
    """Fills `names` and `folds` of the cases that are neither dropped nor fixed, in place."""
    kept = np.flatnonzero((names != DROPPED) & ~fixed)
    _check_class_sizes(labels[kept], groups[kept], classes, num_folds)
    if num_folds:
        if fold is None or not 0 <= fold < num_folds:
            raise UserError(f"fold={fold} does not exist: {num_folds} folds are numbered 0..{num_folds - 1}")
        folds[kept] = assign_folds(labels[kept], groups[kept], num_folds, seed).tolist()
        rest, test = kept[folds[kept] != fold], kept[folds[kept] == fold]
    else:
        rest, test = take_fraction(kept, labels, groups, options["test_fraction"], seed, step=0)
    names[test] = "val" if fixed.any() else "test"
    if not fixed.any() and not options["paper_protocol"]:
        names[take_fraction(rest, labels, groups, options["val_fraction"], seed, step=1)[1]] = "val"


def _check_class_sizes(labels: np.ndarray, groups: np.ndarray, classes: Sequence[str], num_folds: int | None) -> None:
    """Every class needs one group per split (or fold)."""
    least = max(num_folds or 0, len(SPLITS))
    for label, name in enumerate(classes):
        found, cases = len(np.unique(groups[labels == label])), int((labels == label).sum())
        if found < least:
            raise UserError(
                f"class {name!r} has {cases} usable cases in {found} separate patients or groups; "
                f"{least} are needed for {f'{num_folds} folds' if num_folds else 'train, val and test'}"
            )


def _members(pairs: Pairs) -> list[int]:
    return np.union1d(pairs.first, pairs.second).tolist()


def _rows(source: Source, groups: np.ndarray, names: np.ndarray, folds: np.ndarray) -> list[dict]:
    return [
        {
            "case_id": case.case_id,
            "label": label_name(source, case.label),
            "patient_id": case.patient_id,
            "group": f"g{group:04d}",
            "split": name,
            "fold": fold,
        }
        for case, group, name, fold in zip(source.cases, groups, names, folds, strict=True)
    ]


# --- what to tell the reader


def _set_notes(source: Source, options: Mapping) -> list[str]:
    """What becomes of test sets that the source brings."""
    notes = []
    if sets := [name for name in source.test_sets if name not in options["also_train"]]:
        notes.append(f"test sets of their own, untouched by training: {', '.join(sets)}")
        if options["paper_protocol"]:
            notes[-1] += f"; but {sets[0]!r} is joined with the validation split, chooses the epoch and is reported with it"
    if options["also_train"]:
        notes.append(f"in the training split besides: {', '.join(options['also_train'])}")
    return notes


def _patient_notes(source: Source) -> list[str]:
    patients = {case.patient_id for case in source.cases if case.patient_id}
    if not patients:
        return ["no patient ids: images of one patient stay together only where they are duplicates"]
    return [f"{len(patients)} {source.people}: all cases of each stay in one split"]


def _duplicate_notes(groups: np.ndarray, pairs: Pairs, labels: np.ndarray, options: Mapping) -> list[str]:
    if not options["group_duplicates"]:
        return ["data.group_duplicates=False: copies of test images may be in the training split (a leak)"]
    linked = np.unique(groups[_members(pairs)])
    sizes = Counter(np.bincount(groups)[linked].tolist())
    mixed = sum(len(np.unique(labels[groups == group])) > 1 for group in linked)
    note = (
        f"duplicates: {len(pairs)} pairs among {len(_members(pairs))} of {len(groups)} images correlate above "
        f"{options['duplicate_threshold']:g} (Pearson, 32 x 32 gray)"
    )
    if not sizes:
        return [note]
    listed = ", ".join(f"{count} of {size} cases" for size, count in sorted(sizes.items()))
    return [f"{note}; linked, they form {sizes.total()} groups ({listed}; {mixed} with more than one class)"]


def _conflict_notes(source: Source, conflicts: Pairs, options: Mapping, dropped: bool) -> list[str]:
    if not len(conflicts):
        return []
    fate = f"their {len(_members(conflicts))} cases are {'left out' if dropped else 'kept'}"
    above = f"correlate above {options['conflict_threshold']:g} but differ in label"
    named = "; ".join(describe_conflicts(source, conflicts))
    return [f"label conflicts: {len(conflicts)} pairs of images {above}; {fate}: {named}"]


def _skip_notes(source: Source, skipped: Mapping[int, str]) -> list[str]:
    names = ", ".join(source.cases[row].case_id for row in sorted(skipped))
    return [f"{len(skipped)} cases cannot be read and are left out: {names}"] if skipped else []


def _count_notes(rows: Sequence[Mapping], classes: Sequence[str]) -> list[str]:
    notes = []
    for name in dict.fromkeys([*SPLITS, *(row["split"] for row in rows)]):
        counts = Counter(row["label"] for row in rows if row["split"] == name)
        if counts:
            per_class = ", ".join(f"{label} {counts[label]}" for label in classes)
            notes.append(f"{name}: {counts.total()} cases ({per_class})")
    return notes
