"""A polite end: SIGTERM or SIGUSR1 asks the loop to save and leave."""

import signal

import jax
from jax.experimental import multihost_utils

from jaxmed.parallel import any_process

POLL_STEPS = 10  # several processes compare flags this often; one process looks at every step


class Preemption:
    """Remembers the first signal. The exit code is 128 + signal (143, 138): schedulers treat it as "run me again"."""

    def __init__(self):
        self.signal: int | None = None
        self._before = {}

    def __enter__(self) -> "Preemption":
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exc) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _frame) -> None:
        self.signal = self.signal or number

    def requested(self, step: int) -> bool:
        """Whether to stop before the next step; with several processes all of them answer the same."""
        if jax.process_count() == 1:
            return self.signal is not None
        if multihost_utils.reached_preemption_sync_point(step):  # the scheduler told the coordinator
            self.signal = self.signal or signal.SIGTERM
            return True
        return step % POLL_STEPS == 0 and any_process(self.signal is not None)

    @property
    def exit_code(self) -> int:
        """What the process should exit with after it has saved."""
        return 128 + (self.signal or signal.SIGTERM)
