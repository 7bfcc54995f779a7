"""Checkpoints of a run: `workdir/checkpoints/<step>/`, written by Orbax, restored strictly.

A checkpoint is the train state (nested dicts of arrays) and a small JSON of what the host keeps: batches consumed, learning
rate, best epoch so far, seconds spent. The newest and the best stay; others are deleted once a newer one is complete.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import serialization
from orbax.checkpoint import v1 as ocp

from jaxmed.errors import UserError
from jaxmed.parallel import barrier, is_main, state_shardings
from jaxmed.tree import flatten

logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports every save at INFO


class Checkpoints:
    """The checkpoints below `folder`. `save` returns at once; the next save, `wait` or `close` waits for it."""

    def __init__(self, folder: Path):
        self.folder = Path(folder).resolve()
        self._pending = None
        self._keep: set[int] = set()

    def steps(self) -> list[int]:
        """Complete checkpoints, oldest first (Orbax renames a folder to its final name when it is complete)."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit() and (p / "host.json").exists())

    def save(self, state: dict, host: dict[str, Any], *, keep: set[int]) -> None:
        """Starts writing `state` under its step; when complete, checkpoints other than it and `keep` are deleted."""
        self.wait()
        step = int(state["step"])
        path = self.folder / str(step)
        self._keep = {step, *keep}
        try:
            self._remove([path])  # what a save left that was cut off between Orbax and host.json
            # the next step donates these buffers, and on CPU Orbax would write from the very same memory
            copy = jax.tree.map(jnp.copy, _plain(state)) if jax.default_backend() == "cpu" else _plain(state)
            self._pending = (ocp.save_async(path, copy), path, json.dumps(host))
        except (OSError, ValueError) as error:
            raise self._disk_error(error) from error

    def wait(self) -> None:
        """Blocks until the last save is on disk, then deletes what is no longer needed."""
        if self._pending is None:
            return
        response, path, host = self._pending
        self._pending = None
        try:
            response.result()
            if is_main():
                _write(path / "host.json", host)
        except Exception as error:  # tensorstore raises ValueError, Python OSError; both mean that the disk refused
            raise self._disk_error(error) from error
        barrier(f"saved {path.name}")
        self._remove([self.folder / str(step) for step in self.steps() if step not in self._keep])

    def host(self, step: int) -> dict[str, Any]:
        """What the host kept with checkpoint `step`."""
        return json.loads((self.folder / str(step) / "host.json").read_text())

    def restore(self, step: int, like: dict, mesh, parts: tuple[str, ...] | None = None) -> dict:
        """The state of checkpoint `step` in the structure of `like`, laid out over `mesh`; only `parts` of it where given.

        Raises UserError naming leaves that are missing, unknown or of another shape, or the folder if it is damaged.
        """
        path = self.folder / str(step)
        wanted = _plain({k: v for k, v in like.items() if parts is None or k in parts})
        try:
            saved = ocp.metadata(path).metadata
            _compare(path, wanted, saved if parts is None else {k: saved[k] for k in parts if k in saved})
            target = jax.tree.map(_abstract, _fill(wanted, saved), state_shardings(_fill(wanted, saved), mesh))
            loaded = ocp.load(path, target)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"checkpoint {path} cannot be read ({type(error).__name__}: {str(error)[:300]}). It is damaged or truncated: "
                "delete that folder to resume from an older one, or delete the workdir to start again."
            ) from error
        return {k: serialization.from_state_dict(like[k], loaded[k]) if k == "opt" else loaded[k] for k in wanted}

    def _remove(self, paths: list[Path]) -> None:
        """Process 0 deletes; the others, whose view of the folder may be older or newer, only wait."""
        if is_main():
            for path in paths:
                (path / "host.json").unlink(missing_ok=True)  # first: a half-deleted folder must not look complete
                shutil.rmtree(path, ignore_errors=True)
        barrier("removed checkpoints")

    def _disk_error(self, error: Exception) -> UserError:
        done = self.steps()
        last = f"the checkpoint of step {done[-1]} is intact" if done else "there is no earlier checkpoint"
        return UserError(
            f"writing a checkpoint below {self.folder} failed ({type(error).__name__}: {str(error)[:300]}); {last}. "
            "Free some space (or raise the file-size limit) and run the same command again: it resumes."
        )


def _plain(state: dict) -> dict:
    """Optimiser states are named tuples: as dicts they restore without the class."""
    return {k: serialization.to_state_dict(v) if k == "opt" else v for k, v in state.items()}


def _abstract(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _fill(wanted: dict, saved: dict) -> dict:
    """`wanted`, and for parts that the caller did not ask for, what the file holds (Orbax loads whole trees)."""
    return {k: wanted.get(k, v) for k, v in saved.items()}


def _compare(path: Path, wanted: dict, saved: dict) -> None:
    want = {k: tuple(v.shape) for k, v in flatten(wanted).items()}
    have = {k: tuple(v.shape) for k, v in flatten(saved).items()}
    problems = [f"missing in the file: {k}" for k in sorted(want.keys() - have.keys())]
    problems += [f"not in the model: {k}" for k in sorted(have.keys() - want.keys())]
    problems += [f"{k}: file {have[k]}, model {want[k]}" for k in sorted(want.keys() & have.keys()) if want[k] != have[k]]
    if problems:
        shown = "\n  ".join(problems[:20])
        more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
        raise UserError(f"checkpoint {path} does not fit this model:\n  {shown}{more}\nUse the config it was trained with.")


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)
