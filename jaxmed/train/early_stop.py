"""Ends a training that has stopped getting better."""

import dataclasses
import math

from jaxmed.errors import UserError


@dataclasses.dataclass(frozen=True)
class EarlyStop:
    """Keras' EarlyStopping: an epoch is better if its value is above the best one so far by more than `min_delta`; after
    `patience` epochs in a row that are not, the run ends. patience 0: never.

    Decoder interaction paper, section 3.1, with the released code's numbers: patience 22, min_delta 0.004.
    """

    patience: int = 0
    min_delta: float = 0.0

    def __post_init__(self):
        if self.patience < 0 or self.min_delta < 0:
            raise UserError(f"config.early_stop: patience={self.patience} and min_delta={self.min_delta:g} must be 0 or more")

    def after(self, value: float, best: float = -math.inf, stalled: int = 0) -> tuple[float, int]:
        """(best value, epochs in a row without a better one) after an epoch of this value; larger is better."""
        return (value, 0) if value > best + self.min_delta else (best, stalled + 1)

    def stops(self, stalled: int) -> bool:
        """Whether the run ends after so many epochs without a better one."""
        return 0 < self.patience <= stalled
