"""What every data source gives: a table of cases, and the pixels of each of them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """One image with its lesion mask and its label.

    label is an index into the source's `classes`, or -1 where it is not known (prediction).
    patient_id "" means the source has no patient ids; split "" means it does not fix the split.
    """

    case_id: str
    label: int
    patient_id: str = ""
    split: str = ""


class Source:
    """A random-access table of cases; the base class of `busi`, `busi_whu`, `folder` and `phantom`.

    Attributes:
        name: the source's name in `config.data.source`.
        classes: class names; the last one is the positive class of binary metrics.
        cases: one `Case` per image, in a fixed order.
        notes: facts worth printing ("17 images have several masks: united").
        has_masks: whether `read` gives "mask".
        mask_origin: whose masks these are, for the report.
        people: what `Case.patient_id` names, in the plural.
        test_sets: names in `Case.split` of test sets that the source brings; its other cases are to be divided.
    """

    name: str = ""
    classes: tuple[str, ...] = ()
    has_masks: bool = False
    mask_origin: str = ""
    people: str = "patients"
    test_sets: tuple[str, ...] = ()

    def __init__(self):
        self.cases: list[Case] = []
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.cases)

    def read(self, index: int) -> dict[str, np.ndarray]:
        """The pixels of one case at native size.

        Returns:
            "image": uint8 [h, w] gray; "mask": uint8 [h, w], 0 outside and 1 inside the lesion, if `has_masks`.

        Raises:
            UserError: the file is missing, broken or of an unsupported kind; the message names it.
        """
        raise NotImplementedError

    def columns(self, index: int) -> dict[str, str]:
        """What a case's row of predictions.csv has besides (a breast: its study and side)."""
        return {}

    def fingerprint(self, index: int) -> str:
        """A text that changes when the pixels of this case change."""
        raise NotImplementedError
