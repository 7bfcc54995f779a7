"""Late fusion: several complete classifiers look at the image, and their answers are added up."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.registry import create_model, register

MODES = ("joint", "ensemble")


class LateFusion(nnx.Module):
    """`members`: {role: registry name}, each with its own head; a role is also the name of the submodule.

    mode="joint": the logits are summed, and one loss trains all members together. mode="ensemble": the class probabilities are
    averaged (logits = log of the mean), and each member learns from a loss of its own, as if trained apart with one schedule.

    model(image [b, h, w, c]) -> logits [b, num_classes]. aux=True gives a dict: logits; features [b, d], the members' features
    side by side; in an ensemble member_logits [b, members, num_classes].
    Raises UserError for another mode, and for num_classes=None: without heads there is nothing to add.
    """

    input_names: tuple[str, ...] = ("image",)
    frozen: tuple[str, ...] = ()

    def __init__(
        self, num_classes: int | None = 2, *, members: Mapping[str, str], mode: str = "joint", drop_path: float = 0.0,
        in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        if mode not in MODES:
            raise UserError(f"mode={mode!r} is neither 'joint' (logits summed) nor 'ensemble' (probabilities averaged)")
        if num_classes is None:
            raise UserError("late fusion adds the answers of complete classifiers: num_classes=None leaves nothing to add")
        self.num_classes, self.mode, self.members = num_classes, mode, tuple(members)
        for role, name in members.items():
            options = dict(drop_path=drop_path) if drop_path else {}
            member = create_model(name, num_classes, rngs=rngs, in_channels=in_channels, dtype=dtype, **options)
            setattr(self, role, member)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Each member is a role of its own: weights differ between them."""
        return {role: (role,) for role in self.members}

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k"] | dict[str, Any]:
        outs = [getattr(self, role)(image, train, aux=True, rngs=rngs) for role in self.members]
        each = jnp.stack([out["logits"] for out in outs], 1)
        if self.mode == "joint":
            logits, own = jnp.sum(each, 1), {}
        else:
            logits = jax.nn.logsumexp(jax.nn.log_softmax(each), 1) - jnp.log(float(len(outs)))
            own = {"member_logits": each}
        features = jnp.concatenate([out["features"] for out in outs], -1)
        return {"logits": logits, "features": features, **own} if aux else logits


# HSQformer's baseline (its supplement's LivNet_Baseline): the two encoders of HSQformer-S, logits summed
register(
    "late_fusion_swin_convnext", members={"swin": "swin_small_patch4_window7_224", "convnext": "convnext_small"}
)(LateFusion)
