"""What a person watching a run sees: speed, time left, and time lost waiting for data."""

import sys
import time

from jaxmed.parallel import is_main


class Chrono:
    """Times a run of `total` steps of `images` pictures.

    `seconds` survives a resume; `data_wait` is the share of this epoch spent waiting.
    """

    def __init__(self, total: int, images: int, seconds: float = 0.0, interval: float = 15.0):
        self.total, self.images, self.before, self.interval = total, images, seconds, interval
        self.started = self._last_print = time.monotonic()
        self._first_step: int | None = None
        self.reset_epoch()

    def reset_epoch(self) -> None:
        """Starts counting an epoch's steps and waits from here."""
        self._epoch_start, self._waited, self._steps = time.monotonic(), 0.0, 0

    def waited(self, seconds: float) -> None:
        """Adds time that the device stood idle for want of a batch."""
        self._waited += seconds

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, earlier processes included."""
        return self.before + time.monotonic() - self.started

    def step(self, step: int, text: str) -> None:
        """Counts a step that was just dispatched and prints a line now and then; its speed is that of the steps before."""
        now = time.monotonic()
        self._steps += 1
        if self._first_step is None:  # the first step compiles: time left is estimated without it
            self._first_step, self._after_first = step, now
        tty = sys.stderr.isatty()
        due = now - self._last_print >= (1.0 if tty else self.interval) and step > self._first_step and self._steps > 1
        if is_main() and due:
            self._last_print = now
            rate = (now - self._after_first) / (step - self._first_step)
            end = "\r" if tty else "\n"
            speed = (self._steps - 1) * self.images / (now - self._epoch_start)
            line = f"  step {step}/{self.total}  {text}  {speed:.1f} images/s"
            print(f"{line}  data wait {self.epoch()['data_wait']:.0%}  ETA {clock((self.total - step) * rate)}   ",
                  end=end, file=sys.stderr, flush=True)

    def epoch(self) -> dict[str, float]:
        """seconds, images_per_second and data_wait (0 to 1) since `reset_epoch`."""
        seconds = max(time.monotonic() - self._epoch_start, 1e-9)
        return {
            "seconds": round(seconds, 3),
            "images_per_second": round(self._steps * self.images / seconds, 2),
            "data_wait": round(self._waited / seconds, 4),
        }


def clock(seconds: float) -> str:
    """65 -> "1:05", 3700 -> "1:01:40"."""
    minutes, rest = divmod(int(round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
