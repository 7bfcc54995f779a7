"""One class per case: cross-entropy, accuracy, and the columns that a prediction row gets."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jaxmed.data.cases import Source
from jaxmed.evaluate.metrics import metric_values, predicted_class
from jaxmed.tasks.case_rows import case_features, case_row
from jaxmed.tasks.routers import router_meters, router_values
from jaxmed.tasks.soft_targets import soft_losses

Outputs = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Classification:
    """`experts` names the gate's columns (empty for a network without a gate).

    routers: (part, layers, experts) of mixture-of-experts layers; their mean load and entropy are metered in training.
    class_weights: of the training loss (empty: all 1), which is then the mean weighted by them, as torch's.
    """

    classes: tuple[str, ...]
    experts: tuple[str, ...] = ()
    routers: tuple[tuple[str, int, int], ...] = ()
    class_weights: tuple[float, ...] = ()
    exclusive: ClassVar[bool] = True  # a case has one of the classes

    @property
    def names(self) -> tuple[str, ...]:
        """One task."""
        return ("label",)

    @property
    def meters(self) -> tuple[str, ...]:
        """Names of the sums that `loss` returns."""
        gates = tuple(f"gate_{name}" for name in self.experts)
        return ("loss", "accuracy", "count", *gates, *router_meters(self.routers))

    def losses(self, out: Outputs, batch: Outputs) -> Float[Array, " b"]:
        """Cross-entropy of each case, float32; cases without a label (-1) count 0. Mixed batches have soft `targets`.

        The members of an ensemble (`member_logits`) each learn from their own: the sum of theirs.
        """
        if "targets" in batch:
            return soft_losses(out, batch["targets"])
        logits = out["member_logits"] if "member_logits" in out else out["logits"][:, None]
        labels = jnp.broadcast_to(jnp.maximum(batch["label"], 0)[:, None], logits.shape[:2])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels).sum(1)
        return jnp.where(batch["label"] >= 0, losses, 0.0)

    def weights(self, batch: Outputs) -> Float[Array, " b"]:
        """What each case counts in the batch's mean loss; 0 for padding and where the label is not known."""
        of_class = jnp.asarray(self.class_weights or (1.0,) * len(self.classes), jnp.float32)
        return batch["weight"] * (batch["label"] >= 0) * of_class[jnp.maximum(batch["label"], 0)]

    def loss(self, out: Outputs, batch: Outputs) -> tuple[Array, dict[str, Array]]:
        """(mean loss over the batch, by `weights`, plus the network's own `aux_loss`; sums for the epoch's meters, accuracy
        against the labels as they are, also where a batch is mixed)."""
        case = self.per_case(out, batch)
        known, weights = batch["weight"] * (batch["label"] >= 0), self.weights(batch)
        count, total = jnp.sum(known), jnp.sum(weights)
        mean = jnp.sum(case["loss"] * weights) / jnp.where(total > 0, total, 1.0)
        sums = {"loss": mean * count, "accuracy": jnp.sum(case["correct"] * known), "count": count}
        sums |= {f"gate_{name}": jnp.sum(case[f"gate_{name}"] * known) for name in self.experts}
        sums |= {name: value * count for name, value in router_values(out, self.routers).items()}
        return mean + out.get("aux_loss", 0.0), sums

    def per_case(self, out: Outputs, batch: Outputs) -> dict[str, Array]:
        """Arrays [b]: loss, correct, prob_<class>, gate_<expert>; and features [b, d]."""
        probs = self.probabilities(out)
        case = {"loss": self.losses(out, batch)}
        case["correct"] = (predicted_class(probs) == batch["label"]).astype(jnp.float32)
        case |= {f"prob_{name}": probs[:, i] for i, name in enumerate(self.classes)}
        case |= {f"gate_{name}": out["gate"][:, i].astype(jnp.float32) for i, name in enumerate(self.experts)}
        return case | {"features": out["features"].astype(jnp.float32)}

    def probabilities(self, out: Outputs) -> Float[Array, "b k"]:
        """Of the classes, float32."""
        return jax.nn.softmax(out["logits"].astype(jnp.float32))

    def validation(self, cases: Mapping[str, np.ndarray], source: Source) -> dict[str, float]:
        """Mean loss and gate weights, accuracy and AUC of evaluated cases (`per_case` joined, with case_id)."""
        labels = np.array([source.cases[i].label for i in cases["case_id"]])
        metrics = metric_values(labels, np.stack([cases[f"prob_{name}"] for name in self.classes], 1))
        means = {k: float(np.mean(cases[k], dtype=np.float64)) for k in cases if k == "loss" or k.startswith("gate_")}
        return means | {k: float(metrics[k]) for k in ("accuracy", "auc")}

    def rows(self, cases: Mapping[str, np.ndarray], source: Source, groups: np.ndarray, part: Mapping[str, Any]) -> list[dict]:
        """Rows of predictions.csv, one per case, `source.columns` last; `target` is empty where the label is not known.

        groups: of every case of the source. part: the columns split, fold and repeat.
        """
        extras = [f"prob_{name}" for name in self.classes]  # in order: jit sorts them
        extras += [key for key in cases if key.startswith("gate_")]
        rows = []
        for k, i in enumerate(cases["case_id"]):
            row = case_row(source, i, groups[i], part)
            rows.append(row | {key: float(cases[key][k]) for key in extras} | source.columns(int(i)))
        return rows

    def features(self, cases: Mapping[str, np.ndarray], source: Source) -> dict[str, np.ndarray]:
        """{"case_id": [n], "features": [n, d]}: what feeds the classifier, by the rows' case_id."""
        return case_features(cases, source)
