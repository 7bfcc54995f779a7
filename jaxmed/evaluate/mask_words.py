"""What the report says of masks in sentences: the summary, counts of missed lesions and false alarms, the methods."""

import numpy as np

from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.masks import has_lesion, is_drawn, is_missed
from jaxmed.evaluate.wording import averaged_over, count, passes, with_interval
from jaxmed.evaluate.workdir import Workdir


def mask_sentence(estimates: dict[str, Estimate]) -> str:
    """What the summary says of masks; "" without them."""
    if not estimates:
        return ""
    overlap, dice, missed = (with_interval(name, estimates[f"lesions/{name}"]) for name in ("iou", "dice", "missed"))
    alarms = estimates["normal/false_alarm"]
    text = f"The masks have a mean IoU of {overlap} and a mean Dice of {dice} over the lesions. Missed lesions: {missed}"
    if np.isnan(alarms.value):
        return f"{text}."
    return f"{text}; false alarms on images without a lesion: {with_interval('false_alarm', alarms)}."


def findings(workdir: Workdir) -> str:
    """Missed lesions and false alarms as counts, of several networks per pass over the images."""
    table = workdir.masked
    lesion, drawn, missed = has_lesion(table), is_drawn(table), is_missed(table)
    often, over = passes(table), averaged_over(table)

    def amount(rows: np.ndarray) -> str:
        return count(rows.sum() / often)

    text = (f"Missed lesions (no pixel found): {amount(missed)} of {amount(lesion)}; {amount(missed & ~drawn)} without any "
            f"drawing, {amount(missed & drawn)} with a drawing elsewhere.")
    if not lesion.all():
        text += f" False alarms (a drawing on an image without a lesion): {amount(~lesion & drawn)} of {amount(~lesion)}."
    return text + (f" Counts are means over {over}." if over else "")


def mask_methods(workdir: Workdir) -> str:
    """What a methods section says of mask metrics; "" without masks."""
    table = workdir.masked
    if not len(table):
        return ""
    sizes = np.unique(table.extras["mask_pixels"]).astype(int)
    pixels = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    return (f"Masks of {pixels} pixels were compared at a threshold of 0.5. IoU, Dice and pixel sensitivity are means over "
            "the images with a lesion; means over all images (where two empty masks count 1) and values of the "
            "pooled pixels are given beside them. The Hausdorff distance is the larger of the 95th percentiles of both "
            "directions, the average surface distance the mean of both, between border pixels (4-neighbours) and in pixels of "
            "these masks; they and pixel precision are means over the lesions for which anything was drawn.")
