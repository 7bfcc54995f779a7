"""Four views, two breasts, up to two tasks each: the loss of the Hybrid CNN-VSSM paper (eqs. 11 to 13) and what goes with it.

A batch holds left_label, right_label, left_birads, right_birads (int32 [b]; -1 = not known: that breast touches neither loss
nor meters) and weight [b] (0 for padding).
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from sklearn.metrics import roc_auc_score

from jaxmed.errors import UserError

Outputs = Mapping[str, Array]
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


@dataclasses.dataclass(frozen=True)
class MultiView:
    """The active tasks of a run."""

    tasks: tuple[BreastTask, ...]

    @property
    def meters(self) -> tuple[str, ...]:
        """Names of the sums that `loss` returns."""
        return ("loss", *(f"{task.name}_loss" for task in self.tasks), "accuracy", "count", *(f"gate_{v}" for v in VIEWS))

    def loss(self, out: Outputs, batch: Outputs) -> tuple[Array, dict[str, Array]]:
        """(total loss of the batch, eq. 11; sums for the epoch's meters, each to be divided by `count`, the known studies)."""
        losses = {f"{task.name}_loss": task_loss(out, batch, task) for task in self.tasks}
        losses = {"loss": self.combine(list(losses.values()))} | losses
        case = self.per_case(out, batch)
        known = batch["weight"] * jnp.any(jnp.stack(self._known(batch)), 0)
        count = jnp.sum(known)
        sums = {name: loss * count for name, loss in losses.items()} | {"count": count}
        sums["accuracy"] = jnp.sum(case["correct"] * known)
        sums |= {f"gate_{view}": jnp.sum(case[f"gate_{view}"] * known) for view in VIEWS}
        return losses["loss"], sums

    def combine(self, losses: Sequence[Array]) -> Array:
        """Eq. 11: 0.5 label + 0.5 birads; a task alone counts fully."""
        shares = [task.share for task in self.tasks]
        return sum(share * loss for share, loss in zip(shares, losses, strict=True)) / sum(shares)

    def per_case(self, out: Outputs, batch: Outputs) -> dict[str, Array]:
        """Arrays [b]: {side}_{task}_{class} (probabilities), gate_<view>, loss, correct; and features [b, 4 D].

        loss: eqs. 11 to 13 for the study alone, where class weights cancel. correct: share of its known answers that are right.
        """
        probs = {f"{side}_{task.name}": probabilities(out, side, task) for task in self.tasks for side in SIDES}
        case = {f"{side}_{task.name}_{name}": probs[f"{side}_{task.name}"][:, i]
                for task in self.tasks for side in SIDES for i, name in enumerate(task.classes)}  # fmt: skip
        case |= {f"gate_{view}": out["gate"][:, i].astype(jnp.float32) for i, view in enumerate(VIEWS)}
        known = sum(k.astype(jnp.float32) for k in self._known(batch))
        right = sum((jnp.argmax(probs[key], -1) == batch[key]).astype(jnp.float32) for key in probs)
        each = [sum(cross_entropy(out, batch, side, task) for side in SIDES) / 2 for task in self.tasks]
        case |= {"loss": self.combine(each), "correct": right / jnp.maximum(known, 1.0)}
        return case | {"features": out["features"].astype(jnp.float32)}

    def _known(self, batch: Outputs) -> list[Array]:
        return [batch[f"{side}_{task.name}"] >= 0 for task in self.tasks for side in SIDES]


def task_loss(out: Outputs, batch: Outputs, task: BreastTask) -> Float[Array, ""]:
    """Eqs. 12 and 13: half the loss of the left breasts plus half that of the right ones."""
    return 0.5 * sum(side_loss(out, batch, side, task) for side in SIDES)


def side_loss(out: Outputs, batch: Outputs, side: str, task: BreastTask) -> Float[Array, ""]:
    """Mean cross-entropy of the batch's known breasts of one side, weighted by class; exactly 0 where none is known."""
    target = batch[f"{side}_{task.name}"]
    of_class = jnp.asarray(task.class_weights or (1.0,) * len(task.classes), jnp.float32)
    weight = jnp.where(target >= 0, of_class[jnp.maximum(target, 0)] * batch["weight"], 0.0)
    total = jnp.sum(weight)
    return jnp.sum(weight * cross_entropy(out, batch, side, task)) / jnp.where(total > 0, total, 1.0)


def cross_entropy(out: Outputs, batch: Outputs, side: str, task: BreastTask) -> Float[Array, " b"]:
    """Cross-entropy of each breast, float32, without class weights; 0 where the answer is not known."""
    logits, target = out[f"{side}_{task.name}"].astype(jnp.float32), batch[f"{side}_{task.name}"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(target, 0))
    return jnp.where(target >= 0, losses, 0.0)


def probabilities(out: Outputs, side: str, task: BreastTask) -> Float[Array, "b k"]:
    """Class probabilities of one side, float32."""
    return jax.nn.softmax(out[f"{side}_{task.name}"].astype(jnp.float32))


def class_weights(labels: Int[np.ndarray, "*n"], num_classes: int) -> tuple[float, ...]:
    """Inverse class frequency of the training breasts, w_c = n / (num_classes n_c); -1 does not count.

    Raises UserError for a class that no training breast has: its weight would be infinite.
    """
    labels = np.asarray(labels).reshape(-1)
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    if len(counts) > num_classes:
        raise UserError(f"a label is {len(counts) - 1}, but there are {num_classes} classes (0 to {num_classes - 1})")
    if empty := [str(k) for k in np.flatnonzero(counts == 0)]:
        raise UserError(
            f"no training breast has class {', '.join(empty)} of {num_classes}: it has no inverse frequency and cannot be "
            "learned. Use a subset of the classes that the training split has, or another split"
        )
    return tuple(float(w) for w in counts.sum() / (num_classes * counts))


def pooled_breasts(
    rows: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], task: BreastTask
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n k"]]:
    """(target, probabilities) of the known breasts, left then right.

    rows: what `per_case` gives, over all studies. targets: {"left_label": int [studies], ...}, -1 = not known.
    """
    target = np.concatenate([targets[f"{side}_{task.name}"] for side in SIDES])
    probs = np.concatenate([np.stack([rows[f"{side}_{task.name}_{k}"] for k in task.classes], 1) for side in SIDES])
    return target[target >= 0], probs[target >= 0]


def monitor(
    rows: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], tasks: Sequence[BreastTask]
) -> dict[str, float]:
    """{task}_auc of each task and `auc`, their mean: what the paper selects epochs by (section 4.2).

    Left and right breasts are pooled. Two classes: AUC of the last; more: mean over classes of one against the rest, without
    the classes that these breasts lack (the same in every epoch). nan where fewer than two classes are there; the mean is over
    the tasks that have an AUC.
    """
    values = {f"{task.name}_auc": pooled_auc(*pooled_breasts(rows, targets, task)) for task in tasks}
    defined = [value for value in values.values() if not np.isnan(value)]
    return values | {"auc": float(np.mean(defined)) if defined else float("nan")}


def pooled_auc(target: Int[np.ndarray, " n"], probs: Float[np.ndarray, "n k"]) -> float:
    """Binary AUC, or the macro mean of one class against the rest over the classes that are there; nan below two classes."""
    there = np.unique(target)
    if len(there) < 2:
        return float("nan")
    classes = [1] if probs.shape[1] == 2 else there
    return float(np.mean([roc_auc_score(target == k, probs[:, k]) for k in classes]))
