"""Findings that do not exclude each other, learned by three answers and a sparse saliency map (GMIC, Shen et al. 2021).

What the loss takes from a network with `outputs = "sigmoid"`: local_logits [b, k], global [b, k] (probabilities), saliency
[b, h, w, k] and the fused answer, logits [b, k] - each of them with an axis of views behind b where it is there per view:

* `gmic`: none has.
* `dv_gmic`: all but the logits have; the streams' terms are added to that of the one fused answer.
* `gmic` on each view of a breast (`EachView`): all have. The views' fused answers are `member_logits` [b, views, k], and a
  breast's loss is the mean over its views. `logits` [b, k] are those of the mean probabilities: what is predicted.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.tasks.classification import Classification, Outputs

BETA = 3.26e-6
CLIP = 2.0**-23  # float32: a mean of sigmoids may round to 0 or 1


@dataclasses.dataclass(frozen=True)
class Gmic(Classification):
    """Two findings, the negative class first: benign, malignant.

    A label says whether the last finding is there and nothing about the first, whose outputs the loss then leaves out.
    The columns prob_<class> are the two sigmoids; they need not sum to 1, and the decision is that of the last.
    beta: weight of the L1 norm of the saliency maps. Raises UserError for other than two classes.
    """

    beta: float = BETA
    exclusive: ClassVar[bool] = False

    def __post_init__(self):
        if len(self.classes) != 2:
            raise UserError(f"this network finds benign and malignant lesions: data.classes={self.classes} must be two classes")

    def losses(self, out: Outputs, batch: Outputs) -> Float[Array, " b"]:
        """`finding_losses` of each case; 0 where the label is not known. Mixed batches have soft `targets`."""
        there = batch["targets"][:, 1] if "targets" in batch else (batch["label"] == 1).astype(jnp.float32)
        learned = jnp.stack([jnp.zeros_like(there), (batch["label"] >= 0).astype(jnp.float32)], -1)
        return finding_losses(out, jnp.stack([jnp.zeros_like(there), there], -1), learned, self.beta)

    def probabilities(self, out: Outputs) -> Float[Array, "b k"]:
        """Independent sigmoids."""
        return jax.nn.sigmoid(out["logits"].astype(jnp.float32))


def finding_losses(
    out: Mapping[str, Array], target: Float[Array, "b k"], known: Float[Array, "b k"], beta: float = BETA
) -> Float[Array, " b"]:
    """Sum over the known findings c of BCE(local) + BCE(global) + BCE(fused) + beta sum_ij |A^c_ij|, float32.

    For views see above. The formula is that of the paper's section on training, its beta one of the values searched there.
    """
    fused = out["member_logits"] if "member_logits" in out else out["logits"][:, None]
    local, whole, maps = (_by_view(out[name], n) for name, n in (("local_logits", 3), ("global", 3), ("saliency", 5)))
    target = target[:, None]
    entropy = [optax.sigmoid_binary_cross_entropy(x.astype(jnp.float32), target).sum(1) for x in (fused, local)]
    each = sum(entropy) + _cross_entropy(whole, target).sum(1) + beta * jnp.abs(maps).sum((1, 2, 3))
    return jnp.sum(each * known, -1) / fused.shape[1]


def task_class(model: Any) -> type[Classification]:
    """What a network's kind of answers asks for."""
    return Gmic if getattr(model, "outputs", "softmax") == "sigmoid" else Classification


def _by_view(x: Array, ndim: int) -> Array:
    """With an axis of views behind the batch; `ndim` is the number of axes then."""
    return x if x.ndim == ndim else x[:, None]


def _cross_entropy(probability: Array, target: Array) -> Array:
    p = jnp.clip(probability.astype(jnp.float32), CLIP, 1 - CLIP)
    return -(target * jnp.log(p) + (1 - target) * jnp.log1p(-p))
