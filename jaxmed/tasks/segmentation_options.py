"""`config.loss` of runs that learn a mask and a class."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxmed.errors import UserError
from jaxmed.tasks.segmentation_losses import SegmentationLoss

SCHEDULES = ("constant", "official")


@dataclasses.dataclass(frozen=True)
class MaskAndClassLoss:
    """What the parts of the loss count.

    shares: of mask and class. schedule: "constant", or "official", what the released code meant (`scheduled_shares`). side: the
    weight of the mean loss of a network's side outputs beside that of its mask.
    """

    mask: SegmentationLoss = SegmentationLoss()
    shares: tuple[float, float] = (0.8, 0.2)
    schedule: str = "constant"
    side: float = 0.0


def loss_options(given: Mapping[str, Any]) -> MaskAndClassLoss:
    """`config.loss`: the fields of SegmentationLoss, and segmentation, classification (the shares), schedule, side.

    Raises:
        UserError: an unknown key, a negative number, another schedule or handling of null masks.
    """
    fields = {field.name for field in dataclasses.fields(SegmentationLoss)}
    known = {*fields, "segmentation", "classification", "schedule", "side"}
    if unknown := sorted(set(given) - known):
        raise UserError(f"config.loss.{unknown[0]} is unknown; choose from {', '.join(sorted(known))}")
    for key, value in given.items():
        if not isinstance(value, str) and value < 0:
            raise UserError(f"config.loss.{key}={value} must be 0 or more")
    schedule = given.get("schedule", "constant")
    if schedule not in SCHEDULES:
        raise UserError(f"config.loss.schedule={schedule!r} is none of {', '.join(SCHEDULES)}")
    shares = given.get("segmentation", 0.8), given.get("classification", 0.2)
    mask = SegmentationLoss(**{key: given[key] for key in fields & set(given)})
    return MaskAndClassLoss(mask, shares, schedule, given.get("side", 0.0))
