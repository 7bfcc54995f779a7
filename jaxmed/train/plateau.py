"""Halve the learning rate when the validation loss stops falling.

`torch.optim.lr_scheduler.ReduceLROnPlateau`'s arithmetic (mode "min", relative threshold 1e-4, no cooldown), once per
epoch, on the host. optax's version is not the same: it fires one epoch earlier, errs on negative scores and counts steps.
"""

import dataclasses
import math


@dataclasses.dataclass
class Plateau:
    """`lr` is the current learning rate; `update(loss)` is called once after each epoch.

    Paper CSA-MoE-Net, III-A-2: factor 0.5, patience 3, floor 1e-6.
    """

    lr: float
    factor: float = 0.5
    patience: int = 3
    min_lr: float = 1e-6
    threshold: float = 1e-4
    best: float = math.inf
    bad_epochs: int = 0

    def update(self, loss: float) -> float:
        """Takes an epoch's validation loss and returns the learning rate of the next epoch."""
        if loss < self.best * (1.0 - self.threshold):
            self.best, self.bad_epochs = loss, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            reduced = max(self.lr * self.factor, self.min_lr)
            if self.lr - reduced > 1e-8:  # torch's eps: smaller changes are ignored
                self.lr = reduced
            self.bad_epochs = 0
        return self.lr

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"lr": self.lr, "best": self.best, "bad_epochs": self.bad_epochs}

    def restore(self, state: dict[str, float]) -> None:
        """The inverse of `state`."""
        self.lr, self.best, self.bad_epochs = float(state["lr"]), float(state["best"]), int(state["bad_epochs"])
