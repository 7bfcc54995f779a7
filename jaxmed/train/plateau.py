"""Halve the learning rate when a validation value stops getting better.

`torch.optim.lr_scheduler.ReduceLROnPlateau`'s arithmetic (relative threshold 1e-4), once per epoch, on the host.
optax's version is not the same: it fires one epoch earlier, errs on negative scores and counts steps.
"""

import dataclasses

from jaxmed.errors import UserError


@dataclasses.dataclass
class Plateau:
    """`lr` is the current learning rate; `update(value)` is called once after each epoch. mode: "min" (a loss) or "max".

    Paper CSA-MoE-Net, III-A-2: factor 0.5, patience 3, floor 1e-6.
    """

    lr: float
    factor: float = 0.5
    patience: int = 3
    min_lr: float = 1e-6
    mode: str = "min"
    threshold: float = 1e-4
    cooldown: int = 0  # epochs after a reduction that do not count as bad
    best: float | None = None  # None before the first epoch
    bad_epochs: int = 0
    resting: int = 0  # epochs left of a cooldown

    def __post_init__(self):
        if self.mode not in ("min", "max"):
            raise UserError(f"config.plateau.mode={self.mode!r} is neither 'min' nor 'max'")

    def better(self, value: float) -> bool:
        """Whether a value beats the best so far by more than the relative threshold."""
        if self.best is None:
            return True
        if self.mode == "min":
            return value < self.best * (1.0 - self.threshold)
        return value > self.best * (1.0 + self.threshold)

    def update(self, value: float) -> float:
        """Takes an epoch's value and returns the learning rate of the next epoch."""
        if self.better(value):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.resting:
            self.resting, self.bad_epochs = self.resting - 1, 0
        if self.bad_epochs > self.patience:
            reduced = max(self.lr * self.factor, self.min_lr)
            if self.lr - reduced > 1e-8:  # torch's eps: smaller changes are ignored
                self.lr = reduced
            self.bad_epochs, self.resting = 0, self.cooldown
        return self.lr

    def state(self) -> dict[str, float | None]:
        """What a checkpoint keeps."""
        return {"lr": self.lr, "best": self.best, "bad_epochs": self.bad_epochs, "resting": self.resting}

    def restore(self, state: dict[str, float | None]) -> None:
        """The inverse of `state`."""
        self.lr, self.best, self.bad_epochs = float(state["lr"]), state["best"], int(state["bad_epochs"])
        self.resting = int(state.get("resting", 0))  # older checkpoints have none
