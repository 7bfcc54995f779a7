"""One question about a breast."""

import dataclasses

from jaxmed.errors import UserError

VIEWS = ("L_CC", "L_MLO", "R_CC", "R_MLO")
SIDES = ("left", "right")


@dataclasses.dataclass(frozen=True)
class BreastTask:
    """One question about a breast: `name` is "label" or "birads"; `class_weights` scale the cross-entropy (empty: all 1)."""

    name: str
    classes: tuple[str, ...]
    class_weights: tuple[float, ...] = ()
    share: float = 0.5  # w_label, w_birads of eq. 11

    def __post_init__(self):
        if self.class_weights and len(self.class_weights) != len(self.classes):
            raise UserError(
                f"task {self.name!r} has {len(self.classes)} classes ({', '.join(self.classes)}) and "
                f"{len(self.class_weights)} class weights"
            )
