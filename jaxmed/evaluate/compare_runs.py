"""Finished runs that are to be compared: read, and checked to have tested the same cases in the same folds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.predictions import STUDY, Predictions, concatenate
from jaxmed.evaluate.workdir import Workdir, headline_split, known_splits, read_workdir

SHOWN = 3  # cases named in an error
TestSets = dict[str, dict[str, str]]  # {"fold 0": {case_id: class}}


@dataclass(frozen=True)
class ComparedRun:
    """A run under the name it has in the tables; table: the rows of the compared test set whose truth is known."""

    name: str
    workdir: Workdir
    table: Predictions

    @property
    def parts(self) -> list[Predictions]:
        """One table per trained network."""
        return self.table.parts()


def parse_runs(text: str) -> dict[str, Path]:
    """{"a": Path("runs/a"), ...} of "a=runs/a,b=runs/b".

    Raises:
        UserError: an entry without name or folder, a name twice, fewer than two runs.
    """
    runs: dict[str, Path] = {}
    for entry in filter(None, text.split(",")):
        name, _, folder = (part.strip() for part in entry.partition("="))
        if not name or not folder:
            raise UserError(f"--runs: {entry!r} is not NAME=DIR")
        if name in runs:
            raise UserError(f"--runs: the name {name!r} appears twice; give each run its own")
        runs[name] = Path(folder)
    if len(runs) < 2:
        raise UserError("--runs needs two runs or more: NAME=DIR,NAME=DIR")
    return runs


def read_runs(folders: Mapping[str, Path], split: str = "") -> list[ComparedRun]:
    """The runs in the order given.

    Args:
        split: of predictions.csv; by default each run's headline split, which must be the same.

    Raises:
        UserError: see `read_workdir`; a run lacks the split; runs differ in classes, test set, folds, cases or targets:
            everything that does not match the first run is named.
    """
    workdirs = {name: read_workdir(folder) for name, folder in folders.items()}
    for workdir in workdirs.values():
        workdir.require_classes()
    splits = {name: split or headline_split(workdir.table) for name, workdir in workdirs.items()}
    if len(set(splits.values())) > 1:
        found = ", ".join(f"{name}: {found!r}" for name, found in splits.items())
        raise UserError(f"the runs report on different test sets ({found}): name one that all have with --split")
    for name, workdir in workdirs.items():
        if splits[name] not in known_splits(workdir.table):
            raise UserError(f"{workdir.path / 'predictions.csv'} ({name}) has no case of split {splits[name]!r} with a known "
                            f"target; it has {', '.join(known_splits(workdir.table))}")
    runs = [ComparedRun(name, w, w.table.select(split=splits[name]).known()) for name, w in workdirs.items()]
    problems = [problem for run in runs[1:] for problem in differences(runs[0], run)]
    if problems:
        raise UserError("only runs on the same cases can be compared:\n  " + "\n  ".join(problems))
    return runs


def differences(first: ComparedRun, second: ComparedRun) -> list[str]:
    """What keeps two runs from being compared, a sentence each; nothing where they match."""
    if first.table.classes != second.table.classes:
        return [f"classes: {first.name} has {', '.join(first.table.classes)}; {second.name} has "
                f"{', '.join(second.table.classes)}"]  # fmt: skip
    one, other = test_sets(first.table), test_sets(second.table)
    if one.keys() != other.keys():
        return [f"folds: {first.name} has {', '.join(one)}; {second.name} has {', '.join(other)}"]
    if one != other and _union(one) == _union(other):
        case, here, there = next((c, k, _where(other, c)) for k, cases in one.items() for c in cases if c not in other[k])
        return [f"folds: {first.name} and {second.name} have the same cases in other folds; {case} is in {here} of "
                f"{first.name} and in {there} of {second.name}: make both runs with the same folds and split seed"]
    return [text for label in one for text in _in_fold(label, one[label], other[label], first.name, second.name)]


def test_sets(table: Predictions) -> TestSets:
    """The cases and true classes of every fold; of every repeat and fold where repeats have test sets of their own."""
    parts = table.parts()
    sets = [{case: table.classes[k] for case, k in zip(part.case_id.tolist(), part.target, strict=True)} for part in parts]
    of_fold = {(part.fold[0], frozenset(cases)) for part, cases in zip(parts, sets, strict=True)}
    one_split = len(of_fold) == len({fold for fold, _ in of_fold})
    names = [f"fold {p.fold[0]}" if one_split else f"repeat {p.repeat[0]}, fold {p.fold[0]}" for p in parts]
    return dict(zip(names, sets, strict=True))


def _union(sets: TestSets) -> dict[str, str]:
    return {case: name for cases in sets.values() for case, name in cases.items()}


def _where(sets: TestSets, case: str) -> str:
    return next(label for label, cases in sets.items() if case in cases)


def _in_fold(label: str, one: dict[str, str], other: dict[str, str], first: str, second: str) -> Iterable[str]:
    for here, mine, theirs in ((first, one, other), (second, other, one)):
        if only := sorted(mine.keys() - theirs.keys()):
            yield f"{label}: {_cases(only)} only in {here}, not in {second if here == first else first}"
    if changed := sorted(case for case in one.keys() & other.keys() if one[case] != other[case]):
        case = changed[0]
        yield (f"{label}: {_cases(changed)} with another target; {case} is {one[case]} in {first} and {other[case]} in "
               f"{second}")  # fmt: skip


def _cases(names: list[str]) -> str:
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} case{'s' * (len(names) > 1)} ({', '.join(names[:SHOWN])}{more})"


def shared_clusters(runs: list[ComparedRun]) -> dict[str, int]:
    """{case_id: cluster}: cases that any run puts into one patient, study or duplicate group belong together.

    Group names are those of a run and may mean something else in another one; case, patient and study ids do not.
    """
    together = concatenate(_names_only(run) for run in runs)
    return dict(zip(together.case_id.tolist(), together.clusters().tolist(), strict=True))


def _names_only(run: ComparedRun) -> Predictions:
    table = run.table
    group = np.array([f"{run.name}/{value}" if value else "" for value in table.group])
    return replace(table, group=group, extras={STUDY: table.extras.get(STUDY, np.full(len(table), ""))})
