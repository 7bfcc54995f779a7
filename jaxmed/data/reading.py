"""Reading many cases: in order, on all cores, with progress, and with every fault naming its case."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from jaxmed.data.cases import Source
from jaxmed.errors import UserError

_CHUNK = 64  # cases ahead of the consumer
_PROGRESS_SECONDS = 5.0


def parallel_map(function: Callable, count: int) -> Iterator:
    """`function(0), ... function(count - 1)` in order, on all cores (OpenCV releases the GIL), a few ahead."""
    cv2.setNumThreads(0)  # one thread per image is faster than many threads inside each
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for start in range(0, count, _CHUNK):
            yield from pool.map(function, range(start, min(start + _CHUNK, count)))


def read_case(source: Source, index: int) -> dict[str, np.ndarray]:
    """`source.read`, checked: whatever goes wrong is a UserError that names the case."""
    name = source.cases[index].case_id
    try:
        case = source.read(index)
    except (OSError, cv2.error) as error:
        raise UserError(f"{name}: cannot be read: {error}") from error
    image, mask = case["image"], case.get("mask")
    if image.dtype != np.uint8 or image.ndim != 2 or image.size == 0:
        raise UserError(f"{name}: expected a uint8 gray image [h, w], got {image.dtype} {list(image.shape)}")
    if source.has_masks and (mask is None or mask.shape != image.shape):
        what = "no mask" if mask is None else f"a mask of {mask.shape[1]} x {mask.shape[0]}"
        size = f"{image.shape[1]} x {image.shape[0]}"
        raise UserError(f"{name}: {what} for an image of {size}; give one of the same size")
    return case


class Progress:
    """A title, a line every few seconds with speed and time left, and one at the end."""

    def __init__(self, title: str, total: int, log: Callable[[str], None], unit: str = "images"):
        self.total, self.log, self.unit, self.done = total, log, unit, 0
        self.start = self.last = time.monotonic()
        log(title)

    def step(self) -> None:
        """One more case is done."""
        self.done += 1
        now = time.monotonic()
        if now - self.last >= _PROGRESS_SECONDS and self.done < self.total:
            self.last = now
            rate = self.done / (now - self.start)
            left = (self.total - self.done) / rate
            self.log(f"  {self.done}/{self.total}, {rate:.3g} {self.unit}/s, {left:.0f} s left")

    def end(self, text: str = "") -> None:
        """All done; `text` says what came of it."""
        seconds = time.monotonic() - self.start
        rate = self.done / max(seconds, 1e-9)
        self.log(f"  {self.done} {self.unit} in {seconds:.1f} s ({rate:.3g} {self.unit}/s){text}")
