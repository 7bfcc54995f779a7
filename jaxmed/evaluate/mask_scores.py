"""How well a predicted mask agrees with the true one: pixel counts, overlap and contour distances of one picture."""

import numpy as np
from jaxtyping import Bool
from scipy.ndimage import binary_erosion, distance_transform_edt


def mask_scores(predicted: Bool[np.ndarray, "h w"], true: Bool[np.ndarray, "h w"]) -> dict[str, float]:
    """The mask columns of predictions.csv for one picture.

    Sensitivity and precision are of pixels, nan where the true (the predicted) mask is empty. IoU and Dice of two empty
    masks are 1. hd95: the larger of the two directions' 95th percentiles of the distance from a border pixel to the
    nearest border pixel of the other mask; asd: the mean of these distances over the border pixels of both masks. Both
    in pixels, nan where a mask is empty.

    Raises:
        ValueError: masks of two sizes.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"predicted mask {predicted.shape} and true mask {true.shape} differ in size")
    both, said, lesion = int((predicted & true).sum()), int(predicted.sum()), int(true.sum())
    either = said + lesion - both
    hd95, asd = surface_distances(predicted, true)
    scores = {
        "mask_tp": both, "mask_fp": said - both, "mask_fn": lesion - both,
        "iou": both / either if either else 1.0,
        "dice": 2 * both / (said + lesion) if either else 1.0,
        "mask_sensitivity": both / lesion if lesion else np.nan,
        "mask_precision": both / said if said else np.nan,
        "hd95": hd95, "asd": asd, "lesion_pixels": lesion, "predicted_pixels": said, "mask_pixels": true.size,
    }
    return {name: float(value) for name, value in scores.items()}


def surface_distances(predicted: Bool[np.ndarray, "h w"], true: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """Hausdorff distance at 95 % and average surface distance, both symmetric, in pixels; nan where a mask is empty."""
    if not predicted.any() or not true.any():
        return np.nan, np.nan
    ours, theirs = border(predicted), border(true)
    there, back = distance_transform_edt(~theirs)[ours], distance_transform_edt(~ours)[theirs]
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return float(hd95), float(np.concatenate([there, back]).mean())


def border(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Mask pixels with one of their four neighbours outside the mask; outside the picture nothing is mask."""
    return mask & ~binary_erosion(mask)
