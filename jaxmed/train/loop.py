"""The training loop: steps, validation, learning rate, checkpoint, in this order, until the last epoch.

The order matters for resuming: an epoch counts as done only when its validation, its metrics row and its learning rate are in
the checkpoint. A run cut off anywhere repeats from the last checkpoint and gives the same bits.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.errors import UserError
from jaxmed.parallel import is_main, put_batch, to_host
from jaxmed.train.early_stop import EarlyStop
from jaxmed.train.memory import on_device, peak_memory
from jaxmed.train.preemption import Preemption
from jaxmed.train.progress import Chrono, clock
from jaxmed.train.rates import Rates
from jaxmed.train.setup import Run
from jaxmed.train.state import evaluated
from jaxmed.train.step import per_case_rows
from jaxmed.train.warm_up import warm_up
from jaxmed.train.writers import MetricWriter


@dataclass
class Progress:
    """What the host remembers between processes: it travels in every checkpoint."""

    epochs_done: int = 0
    best_value: float = -math.inf
    best_step: int = 0
    best_epoch: int = 0
    stop_value: float = -math.inf  # the best one by the measure of early stopping
    stalled: int = 0  # epochs since then
    seconds: float = 0.0
    saved_at: float = 0.0


def fit(run: Run) -> Progress:
    """Trains `run` to its last epoch, resuming from its newest checkpoint; returns where the best epoch is."""
    rates, stop = Rates(run.config, run.config.epochs * run.steps_per_epoch), EarlyStop(**run.config.early_stop)
    progress = _resume(run, rates)
    if stop.stops(progress.stalled) or progress.epochs_done >= run.config.epochs:
        run.log(f"training is complete: {progress.epochs_done} epochs, best epoch {progress.best_epoch}")
        return progress
    images = run.config.batch_size * run.kind.images_per_case
    chrono = Chrono(run.config.epochs * run.steps_per_epoch, images, progress.seconds)
    writer = MetricWriter(run.workdir, progress.epochs_done) if is_main() else None
    stream = run.train_batches(start=int(run.state["step"]))
    try:
        with Preemption() as preemption:
            while progress.epochs_done < run.config.epochs and not stop.stops(progress.stalled):
                _train_epoch(run, progress, rates, chrono, stream, preemption)
                _end_epoch(run, progress, rates, stop, chrono, writer)
        run.checkpoints.wait()
        if stop.stops(progress.stalled):
            run.log(
                f"stopped early: {run.config.monitor} did not improve by more than {stop.min_delta:g} in {stop.patience} epochs"
            )
        run.log(f"peak memory {peak_memory() / 2**30:.1f} GiB ({'of a device' if on_device() else 'of this process'})")
    finally:
        stream.close()
        if writer:
            writer.close()
    return progress


def evaluate(run: Run, split: str) -> dict[str, np.ndarray]:
    """Per-case arrays of every case of a split ("train", "val", "test", "all"), in the order of the source."""
    state = evaluated(run.state) | ({"members": run.members} if run.members else {})
    cases = run.indices(split)
    return per_case_rows(
        lambda: run.eval_batches(cases),
        lambda batch: to_host(run.steps.evaluate(state, put_batch(batch, run.mesh))),
        len(cases),
    )


def _resume(run: Run, rates: Rates) -> Progress:
    done = run.checkpoints.steps()
    if not done:
        return Progress()
    step = done[-1]
    host = run.checkpoints.host(step)
    run.state = run.checkpoints.restore(step, run.state, run.mesh)
    rates.restore(host["plateau"])
    progress = Progress(**host["progress"])
    run.log(f"resuming {run.workdir} at step {step} ({progress.epochs_done} of {run.config.epochs} epochs done)")
    return progress


def _train_epoch(
    run: Run, progress: Progress, rates: Rates, chrono: Chrono, stream: Iterator, preemption: Preemption
) -> None:
    if text := warm_up(run.steps, run.config, progress.epochs_done):
        run.log(text)
    done, last = int(run.state["step"]), (progress.epochs_done + 1) * run.steps_per_epoch
    chrono.reset_epoch()
    pending = None  # the loss of the step before: reading it after the next dispatch does not hold up the device
    # ... but on CPU a dispatched step takes its memory at once, so that two of them need twice as much
    one_at_a_time = jax.default_backend() == "cpu"
    for step in range(done + 1, last + 1):
        asked = time.monotonic()
        batch = next(stream)
        chrono.waited(time.monotonic() - asked)
        if one_at_a_time:
            shown = _check_finite(run, pending)
        run.state, loss = run.steps.train(run.state, put_batch(batch, run.mesh), **_on_device(rates.at(step - 1)))
        if not one_at_a_time:
            shown = _check_finite(run, pending)
        pending = (step, batch["case_id"], loss)
        loss_text = "" if math.isnan(shown) else f"  loss {shown:.4f}"
        chrono.step(step, f"epoch {progress.epochs_done + 1}/{run.config.epochs}{loss_text}")
        if preemption.requested(step):
            _check_finite(run, pending)
            _save(run, progress, rates, chrono)
            run.checkpoints.wait()
            run.log(f"stopped by signal {preemption.signal} after step {step}: saved; the same command resumes")
            raise SystemExit(preemption.exit_code)
        if chrono.seconds - progress.saved_at > 60 * run.config.checkpoint_minutes:
            _check_finite(run, pending)
            _save(run, progress, rates, chrono)
    _check_finite(run, pending)


def _end_epoch(
    run: Run, progress: Progress, rates: Rates, stop: EarlyStop, chrono: Chrono, writer: MetricWriter | None
) -> None:
    progress.epochs_done += 1
    train, speed = _means(to_host(run.state["meters"])), chrono.epoch()
    val = run.task.validation(evaluate(run, "val"), run.source)
    step = int(run.state["step"])
    row = {"epoch": progress.epochs_done, "step": step, "lr": rates.at(step - 1)["learning_rate"]}
    row |= {f"train/{k}": v for k, v in train.items()} | {f"val/{k}": v for k, v in val.items()} | speed
    value = _monitored(row, run.config.monitor) * (-1 if run.config.monitor_mode == "min" else 1)
    better = value > progress.best_value  # ties: the earlier epoch stays
    if better:
        progress.best_value, progress.best_step, progress.best_epoch = value, row["step"], row["epoch"]
    progress.stop_value, progress.stalled = stop.after(value, progress.stop_value, progress.stalled)
    if rates.plateau:
        rates.end_epoch(_monitored(row, rates.watched))
    run.state["meters"] = jax.tree.map(jnp.zeros_like, run.state["meters"])
    if writer:
        writer.write(row)
    _save(run, progress, rates, chrono)
    run.log(
        f"epoch {row['epoch']:>3}/{run.config.epochs}  train {_shown(train)}  val {_shown(val)}  lr {row['lr']:.2g}  "
        f"{speed['images_per_second']:.1f} images/s  data wait {speed['data_wait']:.0%}  "
        f"{clock(chrono.seconds)} elapsed{'  best' if better else ''}"
    )


def _save(run: Run, progress: Progress, rates: Rates, chrono: Chrono) -> None:
    progress.seconds = progress.saved_at = chrono.seconds
    host = {"progress": vars(progress), "plateau": rates.state(), "consumed": int(run.state["step"])}
    run.checkpoints.save(run.state, host, keep={progress.best_step})


def _check_finite(run: Run, pending: tuple | None) -> float:
    if pending is None:
        return math.nan
    step, rows, loss = pending
    value = float(loss)
    if not math.isfinite(value):
        names = ", ".join(run.source.cases[i].case_id for i in rows)
        run.checkpoints.wait()
        raise UserError(
            f"the loss became {value} at step {step}. The batch held: {names}. Look at these cases with --mode=check_data, "
            "lower --config.optimizer.learning_rate, or train in float32; earlier checkpoints are intact."
        )
    return value


def _on_device(rates: dict[str, float]) -> dict[str, jax.Array]:
    return {name: jnp.float32(value) for name, value in rates.items()}


def _means(sums: dict[str, np.ndarray]) -> dict[str, float]:
    count = float(sums["count"])
    return {k: float(v) / max(count, 1.0) for k, v in sums.items() if k != "count"}


def _shown(values: dict[str, float]) -> str:
    """The values that the terminal shows, as far as the task has them."""
    short = {"loss": "loss", "iou" if "iou" in values else "iou_all": "iou", "accuracy": "acc", "auc": "auc"}
    return " ".join(f"{name} {values[key]:.{4 if key == 'loss' else 3}f}" for key, name in short.items() if key in values)


def _monitored(row: dict[str, float], key: str) -> float:
    """The value of one key of metrics.jsonl; UserError where it is unknown, or not defined and so cannot choose an epoch."""
    if key not in row:
        raise UserError(f"monitor {key!r} is no key of metrics.jsonl; choose one of {', '.join(k for k in row if '/' in k)}")
    if math.isnan(row[key]):
        raise UserError(
            f"{key} is not defined on this validation split (a class is missing there): choose another monitor, such as "
            "val/loss, or a larger data.val_fraction"
        )
    return row[key]
