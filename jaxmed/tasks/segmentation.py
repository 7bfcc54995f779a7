"""A mask per case, and perhaps a class: losses, per-case numbers, and the columns that a prediction row gets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmed.data.cases import Source
from jaxmed.evaluate.mask_scores import mask_scores
from jaxmed.evaluate.metrics import metric_values
from jaxmed.tasks.case_rows import case_features, case_row
from jaxmed.tasks.segmentation_losses import (
    classification_loss,
    focal_cross_entropy,
    image_losses,
    scheduled_shares,
    segmentation_loss,
    total_loss,
)
from jaxmed.tasks.segmentation_options import MaskAndClassLoss

Outputs = Mapping[str, Array]
HALF = 128  # of a probability in bytes, round(255 p): at least 0.5
SCORE = (0.7, 0.3)  # weights of IoU and accuracy in the value that the released code watches


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """classifies: whether the network has a class head; if not, the loss is the mask's alone. steps_per_epoch: for the
    schedule of the loss.

    A pixel is lesion where its probability is at least 0.5. Masks have the network's size here, and so have their scores.
    """

    classes: tuple[str, ...]
    classifies: bool = True
    how: MaskAndClassLoss = MaskAndClassLoss()
    steps_per_epoch: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The task of the columns `target` and `prob_<class>`."""
        return ("label",)

    @property
    def meters(self) -> tuple[str, ...]:
        """Names of the sums that `loss` returns."""
        return ("loss", "segmentation", "iou_all", "count", *(("classification", "accuracy") if self.classifies else ()))

    def loss(self, out: Outputs, batch: Outputs) -> tuple[Array, dict[str, Array]]:
        """(loss of the batch, sums for the epoch's meters); `batch["step"]` is the number of the update."""
        weight = batch["weight"]
        count, mask = jnp.sum(weight), batch["mask"].astype(jnp.float32)
        loss = segmentation = self._segmentation(out, mask, weight)
        sums = {"segmentation": segmentation * count, "count": count}
        case = mask_counts(mask_bytes(out) >= HALF, batch)
        sums["iou_all"] = jnp.sum(intersection_over_union(case) * weight)
        if self.classifies:
            classification = classification_loss(out["logits"], batch["label"], weight)
            loss = total_loss(segmentation, classification, self._shares(batch))
            correct = jnp.argmax(out["logits"], -1) == batch["label"]
            sums |= {"classification": classification * count, "accuracy": jnp.sum(correct * weight)}
        return loss, sums | {"loss": loss * count}

    def _segmentation(self, out: Outputs, mask: Float[Array, "b h w 1"], weight: Float[Array, " b"]) -> Float[Array, ""]:
        loss = segmentation_loss(jax.nn.sigmoid(out["mask_logits"]), mask, self.how.mask, weight)
        sides = [value for name, value in out.items() if name.startswith("side_logits")] if self.how.side else []
        for side in sides:
            true = jax.image.resize(mask, side.shape, "nearest") if side.shape != mask.shape else mask
            loss += self.how.side / len(sides) * segmentation_loss(jax.nn.sigmoid(side), true, self.how.mask, weight)
        return loss

    def _shares(self, batch: Outputs) -> tuple[float | Array, float | Array]:
        return self.how.shares if self.how.schedule == "constant" else scheduled_shares(batch["step"] // self.steps_per_epoch)

    def per_case(self, out: Outputs, batch: Outputs) -> dict[str, Array]:
        """Arrays [b]: prob_<class>, upa_d<level>_{seg,cls} (d1 is the deepest level), and where the true mask is known loss,
        mask_tp, mask_fp, mask_fn; features [b, d]; mask_bytes, uint8 [b, h, w], and true_mask, bool [b, h, w]."""
        bytes_ = mask_bytes(out)
        case = {"mask_bytes": bytes_}
        if "mask" in batch:
            case |= {"true_mask": batch["mask"][..., 0] > 0, "loss": self._losses(out, batch)}
            case |= mask_counts(bytes_ >= HALF, batch)
        if self.classifies:
            probs = jax.nn.softmax(out["logits"].astype(jnp.float32))
            case |= {f"prob_{name}": probs[:, i] for i, name in enumerate(self.classes)}
        for level in range(out["upa"].shape[1] if "upa" in out else 0):
            case |= {f"upa_d{level + 1}_{task}": out["upa"][:, level, k] for k, task in enumerate(("seg", "cls"))}
        return case | ({"features": out["features"].astype(jnp.float32)} if "features" in out else {})

    def _losses(self, out: Outputs, batch: Outputs) -> Float[Array, " b"]:
        losses = image_losses(jax.nn.sigmoid(out["mask_logits"]), batch["mask"], self.how.mask)
        if not self.classifies:
            return losses
        return total_loss(losses, focal_cross_entropy(out["logits"], batch["label"]), self.how.shares)

    def validation(self, cases: Mapping[str, np.ndarray], source: Source) -> dict[str, float]:
        """loss; iou and dice, means over the images with a lesion; iou_all over all images, empty on empty counting 1; with a
        class head accuracy and auc; score, 0.7 IoU + 0.3 accuracy (IoU alone without)."""
        counts = {key: cases[key].astype(np.float64) for key in ("mask_tp", "mask_fp", "mask_fn")}
        iou, lesion = intersection_over_union(counts), counts["mask_tp"] + counts["mask_fn"] > 0
        values = {"loss": float(np.mean(cases["loss"], dtype=np.float64)), "iou_all": float(iou.mean())}
        values |= {"iou": _mean(iou[lesion]), "dice": _mean((2 * iou / (1 + iou))[lesion])}
        if not self.classifies:
            return values | {"score": values["iou"]}
        labels = np.array([source.cases[i].label for i in cases["case_id"]])
        metrics = metric_values(labels, np.stack([cases[f"prob_{name}"] for name in self.classes], 1))
        values |= {key: float(metrics[key]) for key in ("accuracy", "auc")}
        return values | {"score": SCORE[0] * values["iou"] + SCORE[1] * values["accuracy"]}

    def rows(self, cases: Mapping[str, np.ndarray], source: Source, groups: np.ndarray, part: Mapping[str, Any]) -> list[dict]:
        """Rows of predictions.csv, one per case: the class columns of a classification, those of `mask_columns`, UPA weights.

        groups: of every case of the source. part: the columns split, fold and repeat.
        """
        probs = [f"prob_{name}" for name in self.classes] if self.classifies else []  # in order: jit sorts them
        upa = [key for key in cases if key.startswith("upa_")]
        rows = []
        for k, i in enumerate(cases["case_id"]):
            row = case_row(source, i, groups[i], part) | {key: float(cases[key][k]) for key in probs}
            row |= mask_columns(cases["mask_bytes"][k] >= HALF, cases["true_mask"][k] if "true_mask" in cases else None)
            rows.append(row | {key: float(cases[key][k]) for key in upa} | source.columns(int(i)))
        return rows

    def features(self, cases: Mapping[str, np.ndarray], source: Source) -> dict[str, np.ndarray]:
        """{"case_id": [n], "features": [n, d]}: what feeds the classifier; empty without one."""
        return case_features(cases, source) if "features" in cases else {}


def mask_bytes(out: Outputs) -> Array:
    """round(255 p) of the lesion's probability p, uint8 [b, h, w]: what the host needs, in a quarter of the memory."""
    return jnp.round(255.0 * jax.nn.sigmoid(out["mask_logits"][..., 0].astype(jnp.float32))).astype(jnp.uint8)


def mask_counts(predicted: Array, batch: Outputs) -> dict[str, Array]:
    """Pixels found, drawn too much, and missed, of each image, as float32 [b] (exact below 2^24)."""
    true = batch["mask"][..., 0] > 0
    parts = {"mask_tp": predicted & true, "mask_fp": predicted & ~true, "mask_fn": ~predicted & true}
    return {name: jnp.sum(part, (1, 2), dtype=jnp.float32) for name, part in parts.items()}


def intersection_over_union(counts: Mapping[str, Any]) -> Any:
    """tp / (tp + fp + fn), of numpy or jax arrays; 1 where both masks are empty."""
    either = counts["mask_tp"] + counts["mask_fp"] + counts["mask_fn"]
    return (counts["mask_tp"] + (either == 0)) / (either + (either == 0))


def mask_columns(predicted: np.ndarray, true: np.ndarray | None) -> dict[str, float]:
    """The columns of `mask_scores`; without the true mask all but the sizes of predicted mask and picture are nan."""
    if true is not None:
        return mask_scores(predicted, true)
    empty = dict.fromkeys(mask_scores(predicted, predicted), np.nan)
    return empty | {"predicted_pixels": float(predicted.sum()), "mask_pixels": float(predicted.size)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
