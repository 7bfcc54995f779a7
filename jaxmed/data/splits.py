"""Train, validation and test: stratified, by patient, with duplicate images kept together.

Groups are what may not be divided: all cases of a patient, and all cases linked by duplicate images (thumbnails correlating above
`duplicate_threshold`, single linkage); patients linked by duplicates are united. Pairs above `conflict_threshold` whose labels differ
are the same picture called two things: both are left out by default (split "dropped").

Algorithm. The paper's arithmetic: test = ceil(0.15 n), then validation = ceil(0.1765 (n - test)), each with the classes' shares (largest
remainder). If every group is a single case this is exactly scikit-learn's `train_test_split(..., stratify=labels, random_state=seed)`,
twice. Otherwise whole groups are taken in a random order fixed by the seed, each one that does not overshoot any class's count; then, while
it brings the counts closer (sum of absolute differences), the best remaining group is added. So small and large groups have the same
chance of the test set, and the counts are met exactly whenever enough single cases are left.

k folds: scikit-learn's `StratifiedGroupKFold`; the held-out fold is the test split, and validation is taken from the rest as above.
"""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from jaxmed.data.cases import Source
from jaxmed.data.similarity import CONFLICT_THRESHOLD, DUPLICATE_THRESHOLD, Pairs, label_conflicts, link, similar_pairs
from jaxmed.data.views import shorten
from jaxmed.errors import UserError

COLUMNS = ("case_id", "label", "patient_id", "group", "split", "fold")
SPLITS = ("train", "val", "test")
DROPPED = "dropped"
GROUPED = "grouped"
LEAKY = "leaky, for comparison"
FROM_FILE = "read from a file"
OPTIONS = {
    "group_duplicates": True,
    "duplicate_threshold": DUPLICATE_THRESHOLD,
    "conflict_threshold": CONFLICT_THRESHOLD,
    "drop_conflicts": True,
    "test_fraction": 0.15,
    "val_fraction": 0.1765,
}


@dataclass
class Split:
    """One row (keys `COLUMNS`) per case of the source, in its order; what to tell the reader; how it was made."""

    rows: list[dict]
    notes: list[str] = field(default_factory=list)
    kind: str = GROUPED

    def indices(self, split: str) -> np.ndarray:
        """Rows of source.cases in one split ("train", "val", "test" or "dropped"), in order."""
        return np.flatnonzero([row["split"] == split for row in self.rows])

    def groups(self) -> np.ndarray:
        """Group id (str) of every case: the unit of resampling for intervals."""
        return np.array([row["group"] for row in self.rows])


def make_split(
    source: Source,
    thumbnails: np.ndarray,
    data: Mapping,
    *,
    seed: int,
    fold: int | None = None,
    num_folds: int | None = None,
    skipped: Mapping[int, str] | None = None,
) -> Split:
    """Divides the cases of a source; deterministic by `seed`.

    Args:
        thumbnails: uint8 [n, 32, 32], `Cache.thumbnails`.
        data: the config's `data` block; of it the keys of `OPTIONS`. `group_duplicates=False` gives the image-level split of published
            results (patients are still kept together where the source names them); its kind is "leaky, for comparison".
        fold, num_folds: hold out fold `fold` of `num_folds` as the test split.
        skipped: cases that could not be read (`Cache.skipped`): left out.

    Raises:
        UserError: a case without label, a class too small to divide, a shared patient or group across the source's own splits.
    """
    options = {key: data.get(key, default) for key, default in OPTIONS.items()}
    _check_cases(source)
    labels = np.array([case.label for case in source.cases])
    pairs, conflicts = _find_duplicates(thumbnails, labels, options)
    groups = _groups(source, pairs)
    given = any(case.split for case in source.cases)
    names, notes = _given_splits(source, num_folds) if given else (np.full(len(labels), "train", object), [])
    notes += _patient_notes(source) + _duplicate_notes(groups, pairs, labels, options)
    drops, conflict_notes = _conflict_drops(source, conflicts, options, given)
    names[list({*drops, *(skipped or {})})] = DROPPED
    notes += conflict_notes + _skip_notes(source, skipped or {})
    folds = np.full(len(labels), "", object)
    if not given:
        folds = _divide(names, labels, groups, source.classes, options, seed, fold, num_folds)
    rows = _rows(source, groups, names, folds)
    kind = GROUPED if options["group_duplicates"] else LEAKY
    split = Split(rows, notes + _count_notes(rows, source.classes), kind)
    check_split(split, source.classes)
    return split


def check_split(split: Split, classes: Sequence[str]) -> None:
    """Raises UserError on an unknown split name, a patient or group in two splits, or a split without cases of some class."""
    for row in split.rows:
        if row["split"] not in (*SPLITS, DROPPED):
            raise UserError(f"case {row['case_id']}: split {row['split']!r} is unknown; use {', '.join(SPLITS)} or {DROPPED}")
    for key, what in (("patient_id", "patient"), ("group", "duplicate group")):
        shared = shared_across(split.rows, key)
        for value, members in shared.items():
            fix = "give all its cases the same split" + (
                "" if key == "patient_id" else ", or accept the leak with data.group_duplicates=False"
            )
            raise UserError(f"{what} {value!r} is in several splits: {_members(members)}; {fix} ({len(shared)} such)")
    for name in SPLITS:
        counts = Counter(row["label"] for row in split.rows if row["split"] == name)
        for label in classes:
            if not counts[label]:
                raise UserError(
                    f"split {name!r} has no case of class {label!r}: the source has {_class_size(split, label)} cases of it, "
                    "which is too few to divide; add cases, or choose other data.classes or another seed.split"
                )


def shared_across(rows: Sequence[Mapping], key: str) -> dict[str, list[Mapping]]:
    """Values of `key` (patient_id or group) found in more than one split, with their rows. Dropped cases do not count."""
    members: dict[str, list] = {}
    for row in rows:
        if row[key] and row["split"] != DROPPED:
            members.setdefault(row[key], []).append(row)
    return {value: found for value, found in members.items() if len({row["split"] for row in found}) > 1}


def write_split(path: Path | str, split: Split) -> None:
    """Writes `splits.csv`, and its notes and kind beside it as `splits.json`."""
    path = Path(path)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(split.rows)
    path.with_suffix(".json").write_text(json.dumps({"kind": split.kind, "notes": split.notes}, indent=1))


def read_split(path: Path | str, source: Source) -> Split:
    """Reads `splits.csv` into the source's order and checks it.

    Raises:
        UserError: a missing column, a case that is in only one of the two, another label, or what `check_split` finds.
    """
    path = Path(path)
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(f"{path}: column {missing[0]!r} is missing; the columns are {', '.join(COLUMNS)}")
        found = _by_case(path, list(reader))
    known = {case.case_id for case in source.cases}
    _same_cases(path, known, set(found))
    rows = [found[case.case_id] for case in source.cases]
    for case, row in zip(source.cases, rows, strict=True):
        if row["label"] != _label(source, case.label):
            raise UserError(f"{path}: case {case.case_id} is {row['label']!r} there and {_label(source, case.label)!r} in the data")
    about = path.with_suffix(".json")
    about = json.loads(about.read_text()) if about.exists() else {"kind": FROM_FILE, "notes": [f"split read from {path.name}"]}
    split = Split([_typed(row) for row in rows], about["notes"], about["kind"])
    check_split(split, source.classes)
    return split


# --- groups and drops


def _check_cases(source: Source) -> None:
    names = Counter(case.case_id for case in source.cases)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"case_id {twice[0]!r} is used {names[twice[0]]} times; every case needs its own")
    for case in source.cases:
        if case.label < 0:
            raise UserError(f"case {case.case_id} has no label: a split for training needs one of {', '.join(source.classes)}")


def _find_duplicates(thumbnails: np.ndarray, labels: np.ndarray, options: Mapping) -> tuple[Pairs, Pairs]:
    """(linked pairs, label conflicts); both empty where duplicates are not grouped."""
    lowest = min(options["duplicate_threshold"], options["conflict_threshold"])
    pairs = similar_pairs(thumbnails, lowest if options["group_duplicates"] else np.inf)
    conflicts = label_conflicts(pairs, labels, options["conflict_threshold"])
    return pairs.above(options["duplicate_threshold"]), conflicts


def _groups(source: Source, pairs: Pairs) -> np.ndarray:
    """Group number of every case: patients united along duplicate links."""
    last: dict[str, int] = {}
    first, second = list(pairs.first), list(pairs.second)
    for row, case in enumerate(source.cases):
        if case.patient_id:
            first.append(last.get(case.patient_id, row))
            second.append(row)
            last[case.patient_id] = row
    return link(len(source.cases), np.array(first, np.int64), np.array(second, np.int64))


def _conflict_drops(source: Source, conflicts: Pairs, options: Mapping, given: bool) -> tuple[list[int], list[str]]:
    """Rows to leave out, and the note that names every conflict. A split given by the source is not changed."""
    if not len(conflicts):
        return [], []
    drop = options["drop_conflicts"] and not given
    rows = sorted({row for first, second, _ in conflicts for row in (first, second)})
    named = "; ".join(
        f"{_named(source, first)} = {_named(source, second)}, correlation {value:.4f}" for first, second, value in conflicts
    )
    kept = f"their {len(rows)} cases are left out" if drop else f"their {len(rows)} cases are kept"
    note = f"label conflicts: {len(conflicts)} pairs of images correlate above {options['conflict_threshold']:g} but differ in label; "
    return (rows if drop else []), [f"{note}{kept}: {named}"]


def _given_splits(source: Source, num_folds: int | None) -> tuple[np.ndarray, list[str]]:
    """The source's own split column, used as it is."""
    if num_folds:
        raise UserError("this source fixes its own train, val and test splits: folds would ignore them; remove its split column")
    for case in source.cases:
        if not case.split:
            raise UserError(f"case {case.case_id} has no split although other cases have one: fill the column or remove it")
    return np.array([case.split for case in source.cases], object), ["the split is the source's own column, used as it is"]


# --- dividing


def _divide(names, labels, groups, classes, options, seed, fold, num_folds) -> np.ndarray:
    """Sets `names` of the kept cases in place; returns the fold of every case ("" without folds)."""
    kept = np.flatnonzero(names != DROPPED)
    folds = np.full(len(names), "", object)
    _check_class_sizes(labels[kept], groups[kept], classes, num_folds)
    if num_folds:
        folds[kept] = _folds(labels[kept], groups[kept], seed, fold, num_folds)
        test = kept[folds[kept] == fold]
    else:
        test = kept[_take(labels[kept], groups[kept], options["test_fraction"], seed, 0)]
    names[test] = "test"
    rest = kept[names[kept] == "train"]
    names[rest[_take(labels[rest], groups[rest], options["val_fraction"], seed, 1)]] = "val"
    return folds


def _check_class_sizes(labels: np.ndarray, groups: np.ndarray, classes: Sequence[str], num_folds: int | None) -> None:
    """Every class needs one group per split (or fold)."""
    least = max(num_folds or 0, len(SPLITS))
    for label, name in enumerate(classes):
        found = len(np.unique(groups[labels == label]))
        if found < least:
            cases = int((labels == label).sum())
            raise UserError(
                f"class {name!r} has {cases} usable cases in {found} separate patients or groups; "
                f"{least} are needed for {f'{num_folds} folds' if num_folds else 'train, val and test'}"
            )


def _folds(labels: np.ndarray, groups: np.ndarray, seed: int, fold: int | None, num_folds: int) -> np.ndarray:
    if fold is None or not 0 <= fold < num_folds:
        raise UserError(f"fold={fold} does not exist: {num_folds} folds are numbered 0..{num_folds - 1}")
    out = np.zeros(len(labels), object)
    folder = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    for number, (_, held_out) in enumerate(folder.split(labels, labels, groups)):
        out[held_out] = number
    return out


def _take(labels: np.ndarray, groups: np.ndarray, fraction: float, seed: int, step: int) -> np.ndarray:
    """Positions of about `fraction` of the cases, in whole groups, with the classes' shares (see the top of this file)."""
    if len(np.unique(groups)) == len(groups):
        everything = np.arange(len(labels))
        return train_test_split(everything, test_size=fraction, stratify=labels, random_state=seed)[1]
    _, number = np.unique(groups, return_inverse=True)
    kinds, label = np.unique(labels, return_inverse=True)
    counts = np.zeros((number.max() + 1, len(kinds)), np.int64)
    np.add.at(counts, (number, label), 1)
    chosen = _take_groups(counts, _targets(counts.sum(0), fraction), np.random.default_rng([seed, step]))
    return np.flatnonzero(chosen[number])


def _targets(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """Cases wanted per class: ceil(fraction * n) in all, shared by largest remainder (ties: the earlier class)."""
    total = int(np.ceil(fraction * sizes.sum()))
    exact = total * sizes / sizes.sum()
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - whole), kind="stable")
    whole[order[: total - whole.sum()]] += 1
    return whole


def _take_groups(counts: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Which groups (rows of `counts` [groups, classes]) to take so that their sum comes close to `target`."""
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


# --- rows and notes


def _rows(source: Source, groups: np.ndarray, names: np.ndarray, folds: np.ndarray) -> list[dict]:
    return [
        {
            "case_id": case.case_id,
            "label": _label(source, case.label),
            "patient_id": case.patient_id,
            "group": f"g{group:04d}",
            "split": name,
            "fold": fold,
        }
        for case, group, name, fold in zip(source.cases, groups, names, folds, strict=True)
    ]


def _patient_notes(source: Source) -> list[str]:
    patients = {case.patient_id for case in source.cases if case.patient_id}
    if not patients:
        return ["no patient ids: images of one patient stay together only where they are duplicates"]
    return [f"{len(patients)} patients: all cases of a patient stay in one split"]


def _duplicate_notes(groups: np.ndarray, pairs: Pairs, labels: np.ndarray, options: Mapping) -> list[str]:
    if not options["group_duplicates"]:
        return ["duplicate images are not kept together (data.group_duplicates=False): near copies of test images may be trained on"]
    linked = np.union1d(pairs.first, pairs.second)
    sizes = Counter(np.bincount(groups)[np.unique(groups[linked])].tolist()) if len(linked) else Counter()
    listed = ", ".join(f"{count} of {size}" for size, count in sorted(sizes.items()))
    note = (
        f"duplicates: {len(pairs)} pairs among {len(linked)} of {len(groups)} images correlate above {options['duplicate_threshold']:g} "
        f"(Pearson, 32 x 32 gray); linked, they form {sizes.total()} groups"
    )
    mixed = sum(len(np.unique(labels[groups == group])) > 1 for group in np.unique(groups[linked])) if len(linked) else 0
    return [note + (f" (groups of each size in cases: {listed}; {mixed} of them hold more than one class)" if listed else "")]


def _skip_notes(source: Source, skipped: Mapping[int, str]) -> list[str]:
    if not skipped:
        return []
    return [f"{len(skipped)} cases cannot be read and are left out: {', '.join(source.cases[row].case_id for row in sorted(skipped))}"]


def _count_notes(rows: Sequence[Mapping], classes: Sequence[str]) -> list[str]:
    notes = []
    for name in (*SPLITS, DROPPED):
        counts = Counter(row["label"] for row in rows if row["split"] == name)
        if counts or name != DROPPED:
            notes.append(f"{name}: {counts.total()} cases ({', '.join(f'{label} {counts[label]}' for label in classes)})")
    return notes


def _named(source: Source, row: int) -> str:
    return f"{source.cases[row].case_id} [{_label(source, source.cases[row].label)}]"


def _label(source: Source, label: int) -> str:
    return source.classes[label] if label >= 0 else ""


def _members(rows: Sequence[Mapping]) -> str:
    return shorten([f"{row['case_id']} in {row['split']}" for row in rows], 6)


def _class_size(split: Split, label: str) -> int:
    return sum(row["label"] == label for row in split.rows)


# --- reading


def _by_case(path: Path, rows: list[dict]) -> dict[str, dict]:
    found = {row["case_id"]: row for row in rows}
    if len(found) < len(rows):
        twice = Counter(row["case_id"] for row in rows).most_common(1)[0][0]
        raise UserError(f"{path}: case {twice!r} is there more than once")
    return found


def _same_cases(path: Path, known: set[str], found: set[str]) -> None:
    fix = "the data and the split do not belong together: use the data the split was made from, or a new workdir"
    if lost := sorted(known - found):
        raise UserError(f"{path}: case {lost[0]!r} of the data is missing there ({len(lost)} such); {fix}")
    if extra := sorted(found - known):
        raise UserError(f"{path}: case {extra[0]!r} is not in the data ({len(extra)} such); {fix}")


def _typed(row: dict) -> dict:
    return {key: int(row[key]) if key == "fold" and row[key] else row[key] for key in COLUMNS}
