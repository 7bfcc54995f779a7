"""From cached cases to batches: Grain's order, our augmentation and views, exact resume.

Global batch k holds the same cases, augmented the same way, for any number of workers and processes: order and
augmentation are functions of the seed and the position, and neither looks at who does the work. A run therefore
resumes from one number, the count of global batches it has consumed.

Batches run across epoch boundaries, so none is dropped and every batch has the same shape; an epoch is
`steps_per_epoch` batches.
"""

import contextlib
import math
import os
import shutil
import signal
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection, parent_process, resource_tracker
from typing import Protocol

import cv2
import grain
import numpy as np
from absl import flags

from jaxmed.data.sampler import inverse_counts, weighted_rows
from jaxmed.errors import UserError

PADDING = -1  # the case_id of rows that only fill up the last evaluation batch
SAMPLERS = ("shuffle", "balanced")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_LONGEST = 2**53  # Grain divides lengths as floats: an endless one would be rounded up beyond what an index can be
_AHEAD = 4  # batches prepared ahead by threads, and kept in flight per worker process


class Batches(Iterator):
    """An iterator over batches that owns threads or worker processes: close it, or use it in a `with` block."""

    def __init__(self, iterator, workers: bool = False):
        self._open, self._workers, self._started = [iterator], workers, False  # a list, so that closing lets go of it
        self._close = weakref.finalize(self, _close_all, self._open)  # also at exit: Grain's own __del__ comes too late

    def __next__(self) -> dict[str, np.ndarray]:
        if not self._open:
            raise ValueError("this iterator is closed")
        if not self._workers:
            return next(self._open[0])
        with contextlib.nullcontext() if self._started else _signals_held():  # Grain starts its workers at the first batch
            batch = next(self._open[0])
        self._started = True
        # Worker batches live in shared memory that goes away with the array object: hand out ordinary arrays.
        return {key: np.array(value) for key, value in batch.items()}

    def close(self) -> None:
        """Stops the threads or worker processes. Safe to call twice."""
        self._close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Loader(Protocol):
    """Row of the source -> one element of a batch; what a worker runs. Pickles small."""

    labels: np.ndarray  # class of every case, -1 where not known: what a balanced sampler evens out
    size_bytes: int  # of the pixels of one element
    skipped: Mapping[int, str]  # rows that cannot be read, and why

    def __len__(self) -> int:
        """Cases of the source."""

    def check_trainable(self, rows: np.ndarray) -> None:
        """UserError if a row cannot be trained on (no label)."""

    def plain(self) -> "Loader":
        """The same without augmentation."""

    def __call__(self, row: int, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """The element of a row, augmented by draws from `rng`; PADDING gives a black one of weight 0, case_id -1."""


class Pipeline:
    """Batches of a source.

    A batch is a dict of numpy arrays, the loader's elements stacked, this process's rows only (b = batch_size / processes).
    Process p holds the p-th part of the global batch's rows, so that joined arrays have the same order for any number of
    processes (dropout masks fall on the same cases).
    """

    def __init__(
        self, loader: Loader, *, seed: int, workers: int, process: tuple[int, int] = (0, 1), sampler: str = "shuffle"
    ):
        """Args:
            loader: `ImageLoader`, `StudyLoader`; its augmentation acts on training batches only.
            seed: of the order and the augmentation.
            workers: worker processes; 0 means threads, which is the faster choice for cached images.
            process: (index, count) of this process.
            sampler: "shuffle", every case once per epoch; "balanced", with replacement, every class as often.
        """
        if sampler not in SAMPLERS:
            raise UserError(f"data.sampler={sampler!r} is none of {', '.join(SAMPLERS)}")
        self.sampler = sampler
        self.loader, self.seed, self.workers, self.process = loader, seed, workers, process
        cv2.setNumThreads(0)  # the images run in parallel; threads inside each would only compete

    def train(self, indices: Sequence[int], batch_size: int, *, start: int = 0) -> Batches:
        """Endless batches of the global size `batch_size`, from global batch number `start` on.

        Raises:
            UserError: no cases, a case without label or left out, or a batch that the processes cannot share evenly.
        """
        rows = self._check(indices, batch_size)
        self.loader.check_trainable(rows)
        # Derived seeds: Grain shuffles epoch e with seed + e, so plain seeds 42 and 43 would share their orders.
        order, changes = (int(seed) for seed in np.random.SeedSequence(self.seed).generate_state(2))
        elements = self._endless(rows, order).random_map(self.loader, seed=changes)
        return self._start(self._own_batches(elements, batch_size)[start:], batch_size)

    def evaluate(self, indices: Sequence[int], batch_size: int) -> Batches:
        """Every case exactly once, in order; the last batch is filled up with black images of weight 0, case_id -1.

        Always threads: starting worker processes would cost more than a pass over a cached split.
        """
        rows = self._check(indices, batch_size)
        rows = np.pad(rows, (0, -len(rows) % batch_size), constant_values=PADDING)
        batches = self._own_batches(grain.MapDataset.source(rows).map(self.loader.plain()), batch_size)
        return Batches(iter(batches.to_iter_dataset(_threads())))

    def _endless(self, rows: np.ndarray, seed: int) -> grain.MapDataset:
        if self.sampler == "balanced":
            return weighted_rows(rows, inverse_counts(self.loader.labels[rows]), seed)
        return grain.MapDataset.source(rows).shuffle(seed=seed).repeat()

    def _own_batches(self, elements: grain.MapDataset, batch_size: int) -> grain.MapDataset:
        index, count = self.process
        return _OwnRows(elements, batch_size, index, count).batch(batch_size // count)

    def _check(self, indices: Sequence[int], batch_size: int) -> np.ndarray:
        rows = np.asarray(indices, np.int64)
        if not len(rows):
            raise UserError("this split has no cases")
        if batch_size < 1 or batch_size % self.process[1]:
            raise UserError(f"batch_size={batch_size} must be a positive multiple of the {self.process[1]} processes")
        if rows.min() < 0 or rows.max() >= len(self.loader):
            raise UserError(f"case rows must lie in 0..{len(self.loader) - 1}, got {rows.min()}..{rows.max()}")
        for row, reason in self.loader.skipped.items():
            if row in rows:
                raise UserError(f"case {row} is in this split but was left out of the cache: {reason}")
        return rows

    def _start(self, batches: grain.MapDataset, batch_size: int) -> Batches:
        if not self.workers:
            return Batches(iter(batches.to_iter_dataset(_threads())))
        self._check_shared_memory(batch_size // self.process[1])
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads flags; outside absl.app.run nobody has parsed them
        options = grain.MultiprocessingOptions(num_workers=self.workers, per_worker_buffer_size=1)
        one_thread = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
        loader = batches.to_iter_dataset(one_thread).mp_prefetch(options, worker_init_fn=_init_worker)
        return Batches(iter(loader), workers=True)

    def _check_shared_memory(self, rows: int) -> None:
        """Workers hand batches over in shared memory; where it is small (containers), writing there would kill them."""
        needed = self.workers * _AHEAD * rows * self.loader.size_bytes
        if os.path.isdir("/dev/shm") and shutil.disk_usage("/dev/shm").free < needed:
            raise UserError(
                f"{self.workers} workers need {needed / 1e6:.0f} MB in /dev/shm, which has less; "
                "use workers=0 (threads) or give the container a larger shared memory"
            )


def steps_per_epoch(num_cases: int, batch_size: int) -> int:
    """Batches that make one epoch: the last one is filled with the first cases of the next epoch."""
    return math.ceil(num_cases / batch_size)


class _OwnRows(grain.MapDataset):
    """Of each `batch_size` consecutive elements, those of one process; positions, and so random draws, stay global."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, process: int, count: int):
        super().__init__(parent)
        self._batch_size, self._own = batch_size, batch_size // count
        self._first, self._count = process * self._own, count

    def __len__(self) -> int:
        return min(len(self._parent) // self._count, _LONGEST)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self._own)
        return self._parent[batch * self._batch_size + self._first + row]


def _close_all(iterators: list) -> None:
    while iterators:
        iterators.pop().close()


def _threads() -> grain.ReadOptions:
    """Grain's default of 16 threads and 500 elements would hold gigabytes of batches."""
    return grain.ReadOptions(num_threads=min(_AHEAD, os.cpu_count() or 1), prefetch_buffer_size=_AHEAD)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Holds signals back while workers start: they inherit the block, so none dies before `_init_worker` has run."""
    resource_tracker.ensure_running()  # or starting it later would lift the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _init_worker(*_) -> None:
    """Runs first in every worker process.

    Schedulers signal every process of a job; the trainer answers and closes its workers, so workers ignore signals.
    A trainer that is killed outright cannot close anything: then the worker ends itself.
    """
    cv2.setNumThreads(0)
    for name in _SIGNALS:
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)
