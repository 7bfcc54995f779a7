"""Four views, two breasts, up to two tasks each: the loss of the Hybrid CNN-VSSM paper (eqs. 11 to 13) and what goes with it.

A batch holds left_label, right_label, left_birads, right_birads (int32 [b]; -1 = not known: that breast touches neither loss
nor meters) and weight [b] (0 for padding).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmed.data.studies import StudySource
from jaxmed.errors import UserError
from jaxmed.tasks.breast_rows import breast_features, breast_rows, validation
from jaxmed.tasks.breast_task import SIDES, VIEWS, BreastTask

Outputs = Mapping[str, Array]


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

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks, the report's headline first."""
        return tuple(task.name for task in self.tasks)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the first task: those of the report's headline."""
        return self.tasks[0].classes

    def validation(self, cases: Mapping[str, np.ndarray], source: StudySource) -> dict[str, float]:
        """Mean loss, accuracy and gate weights, AUC of each task and their mean."""
        return validation(cases, source, self.tasks)

    def rows(
        self, cases: Mapping[str, np.ndarray], source: StudySource, groups: np.ndarray, part: Mapping[str, Any]
    ) -> list[dict]:
        """Rows of predictions.csv, one per breast: see `jaxmed.tasks.breast_rows`."""
        return breast_rows(cases, source, groups, part, self.tasks)

    def features(self, cases: Mapping[str, np.ndarray], source: StudySource) -> dict[str, np.ndarray]:
        """{"case_id": [2 n], "features": [2 n, 2 d]}: of each breast the gated features of its own two views."""
        return breast_features(cases, source)

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
