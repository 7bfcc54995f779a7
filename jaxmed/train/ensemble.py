"""Ensembles: eval and predict with the mean of the outputs of several runs, such as those of a cross-validation's folds.

The mean is one of logits, as that of test-time flips. Every run keeps the epoch that its own validation chose.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmed.data.splits import read_split
from jaxmed.errors import UserError
from jaxmed.train.checkpoint import Checkpoints
from jaxmed.train.finish import read_best
from jaxmed.train.loop import Progress
from jaxmed.train.setup import Run, stored_config
from jaxmed.train.state import evaluated
from jaxmed.weights import preprocessing


def add_members(run: Run, workdirs: Sequence[str], split: str = "") -> list[Progress]:
    """Puts the best epochs of the runs in `workdirs` beside that of `run`; returns how far they came.

    `split`: which of the run's own cases will be tested; "" for cases from elsewhere.

    Raises:
        UserError: another network, classes, picture size or normalisation; the same run twice; a case of `split` that
            another run has learned from or chosen its epoch on; no finished epoch.
    """
    folders = [Path(name) for name in workdirs]
    if len({path.resolve() for path in (run.workdir, *folders)}) <= len(folders):
        raise UserError(f"--ensemble={','.join(workdirs)}: a run counts once, and --workdir={run.workdir} is in already")
    progress = []
    for workdir in folders:
        config = stored_config(workdir)
        _check_network(run, workdir, config)
        if split:
            _check_unseen(run, workdir, split)
        far, state = read_best(workdir, Checkpoints(workdir / "checkpoints"), _like(run.state, config.ema > 0), run.mesh)
        run.members += (evaluated(state),)
        progress.append(far)
    return progress


def _like(state: dict, averaged: bool) -> dict:
    """The parts of a checkpoint: a running mean is there where that run kept one, whatever ours did."""
    parts = evaluated(state)
    return parts | ({"ema": parts["params"]} if averaged else {})


def _check_network(run: Run, workdir: Path, config: ConfigDict) -> None:
    ours, theirs = _network(stored_config(run.workdir), run.kind.fixed), _network(config, run.kind.fixed)
    for key, value in ours.items():
        if theirs[key] != value:
            there = f"{key} is {theirs[key]} there and {value} in {run.workdir}"
            raise UserError(f"--ensemble: {workdir} is another network: {there}")


def _network(config: ConfigDict, fixed: Sequence[str]) -> dict[str, Any]:
    """What the members of an ensemble have in common."""
    start = preprocessing(next((path for path in dict(config.pretrained).values() if path), ""))
    facts = {"task": config.task, "model": config.model.name, "options": config.model.options.to_dict()}
    facts |= {f"data.{key}": config.data[key] for key in dict.fromkeys(("classes", "size", *fixed))}
    return facts | {"normalisation": (tuple(start["mean"]), tuple(start["std"]))}


def _check_unseen(run: Run, workdir: Path, split: str) -> None:
    rows = read_split(workdir / "splits.csv", run.source).rows
    seen = [rows[i] for i in run.indices(split) if rows[i]["split"] != run.data.split.rows[i]["split"]]
    if seen:
        first = f"{seen[0]['case_id']} is in {seen[0]['split']!r} there"
        raise UserError(
            f"--ensemble: {workdir} has another split: {first} ({len(seen)} such). An ensemble is tested on cases that none of "
            "its runs has learned from: give all runs the same seeds.split, or test on other data (--split=all, --mode=predict)"
        )
