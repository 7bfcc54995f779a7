"""After training: the best epoch's predictions, metrics, pictures and report, all below the workdir."""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmed import parallel
from jaxmed.config import preset_text
from jaxmed.errors import UserError
from jaxmed.evaluate.prior import class_prior
from jaxmed.evaluate.report import write_report
from jaxmed.evaluate.summary import format_table, write_metrics
from jaxmed.evaluate.table import write_predictions
from jaxmed.evaluate.wrong import save_case_pictures
from jaxmed.train.checkpoint import Checkpoints
from jaxmed.train.loop import Progress, evaluate
from jaxmed.train.mask_pictures import save_case_masks
from jaxmed.train.memory import peak_memory
from jaxmed.train.setup import Run
from jaxmed.train.state import PARTS, State


def load_best(run: Run) -> Progress:
    """Puts the best epoch's parameters into `run`; UserError if the workdir has no finished epoch."""
    progress, best = read_best(run.workdir, run.checkpoints, run.state, run.mesh)
    run.state = run.state | best
    return progress


def read_best(workdir: Path, checkpoints: Checkpoints, like: State, mesh: Any) -> tuple[Progress, State]:
    """How far the run in `workdir` came, and its best epoch's parameters in the structure of `like`."""
    done = checkpoints.steps()
    if not done:
        raise UserError(f"{workdir} holds no checkpoint: train first (--mode=train with the same --workdir)")
    progress = Progress(**checkpoints.host(done[-1])["progress"])
    if not progress.best_step:
        raise UserError(f"{workdir} holds a run that has not finished an epoch yet: train on")
    return progress, checkpoints.restore(progress.best_step, like, mesh, parts=(*PARTS, "ema"))


def finish(run: Run, *, fold: int = 0, repeat: int = 0) -> dict[str, Any]:
    """Tests the best epoch and writes predictions.csv, features.npz, metrics.json, run.json and report.html."""
    progress = load_best(run)
    cases = {split: evaluate(run, split) for split in run.data.split.reported}
    rows = [row for split in cases for row in prediction_rows(run, cases[split], split, fold, repeat)]
    if not parallel.is_main():
        return {}
    write_predictions(run.workdir / "predictions.csv", rows)
    first = run.data.split.reported[0]
    if features := run.task.features(cases[first], run.source):
        np.savez(run.workdir / "features.npz", **features)
    write_run_json(run, progress)
    save_case_pictures(run.workdir, picture_of(run))
    save_case_masks(run, cases[first], first)
    metrics = write_metrics(run.workdir)
    report = write_report(run.workdir)
    print(f"\nbest epoch {progress.best_epoch} of {run.config.epochs}\n{format_table(metrics)}")
    print(f"report: {report}", flush=True)
    return metrics


def prediction_rows(run: Run, cases: dict[str, np.ndarray], split: str, fold: int = 0, repeat: int = 0) -> list[dict]:
    """Rows of predictions.csv from per-case arrays."""
    return run.task.rows(cases, run.source, run.data.groups, {"split": split, "fold": fold, "repeat": repeat})


def write_run_json(run: Run, progress: Progress, **extra: Any) -> None:
    """What the report says about the run besides its numbers."""
    data, split = run.data, run.data.split
    described = {
        "source": data.source.name, "classes": list(data.source.classes), "notes": list(data.source.notes),
        "mask_origin": run.kind.mask_origin(data.source),
        "split_kind": split.kind if split else "", "split_notes": list(split.notes) if split else [],
        "warnings": data.warnings,
    }
    config = run.config
    run_info = {
        "name": config.name, "model": config.model.name, "params": run.parameters, "paper": config.paper,
        "preset": preset_text(config), "published": config.published.to_dict(), "data": described, "warnings": run.warnings,
        "epochs": config.epochs, "best_epoch": progress.best_epoch,
        "test_time_flips": config.test_time_flips,
        "seconds": round(progress.seconds, 1), "peak_gib": round(peak_memory() / 2**30, 2),
        "tasks": list(run.task.names), "monitor": config.monitor, "seeds": config.seeds.to_dict(),
        "command": " ".join(["python -m jaxmed.main", *sys.argv[1:]]),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "priors": sampled_priors(run),
        "versions": {name: version(name) for name in ("jaxmed", "jax", "flax", "optax", "numpy")},
    }
    (run.workdir / "run.json").write_text(json.dumps(run_info | extra, indent=2))


def sampled_priors(run: Run) -> dict[str, list[float]]:
    """Class shares {"learned": among the draws, "true": among the training cases}; empty where the sampler changes nothing."""
    if run.config.data.sampler != "balanced" or run.data.split is None:
        return {}
    labels = run.pipeline.loader.labels[run.indices("train")]
    classes = len(run.task.classes)
    present = np.bincount(labels, minlength=classes) > 0
    return {"learned": (present / present.sum()).tolist(), "true": class_prior(labels, classes).tolist()}


def picture_of(run: Run) -> Callable[[str], np.ndarray]:
    """case_id of a prediction row -> the case as the network gets it."""
    return lambda case_id: run.kind.picture(run.source, run.data.cache, case_id)
