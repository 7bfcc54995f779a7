"""The learning rate of every update: from the step number, or halved when a validation value stalls, or both."""

from ml_collections import ConfigDict

from jaxmed.train.plateau import Plateau
from jaxmed.train.schedule import first_beta, learning_rate


class Rates:
    """`at(step)` gives the arguments of update number `step` (0 to `total` - 1); `end_epoch` hears what the plateau watches."""

    def __init__(self, config: ConfigDict, total: int):
        """Args:
            config: the run's; of it `optimizer` (schedule, learning_rate, pct_start, b1, cycle_b1) and `plateau`.
            total: updates of the whole run.
        """
        self.optimizer, self.total, self.watched = config.optimizer, total, config.plateau.monitor
        options = {key: value for key, value in config.plateau.items() if key not in ("monitor", "on_schedule")}
        alone = self.optimizer.schedule == "plateau"
        start = config.optimizer.learning_rate if alone else 1.0  # of a factor, where the plateau acts on another schedule
        self.plateau = Plateau(start, **options) if alone or config.plateau.on_schedule else None

    def at(self, step: int) -> dict[str, float]:
        """learning_rate, and b1 where it is cycled."""
        if self.optimizer.schedule == "plateau":
            return {"learning_rate": self.plateau.lr}
        factor = self.plateau.lr if self.plateau else 1.0
        rates = {"learning_rate": factor * learning_rate(self.optimizer, step, self.total)}
        return rates | ({"b1": first_beta(self.optimizer, step, self.total)} if self.optimizer.cycle_b1 else {})

    def end_epoch(self, value: float) -> None:
        """The epoch's value of `watched`."""
        if self.plateau:
            self.plateau.update(value)

    def state(self) -> dict:
        """What a checkpoint keeps."""
        return self.plateau.state() if self.plateau else {}

    def restore(self, state: dict) -> None:
        """The inverse of `state`."""
        if self.plateau:
            self.plateau.restore(state)
