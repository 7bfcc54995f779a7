"""CSA-MoE-Net (Zhai, Yang, Zhang): three experts look at the image, the lesion's core and its boundary; a gate weighs them."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn import BatchNorm, CrossStageAttention, Gate, Linear, global_avg_pool
from jaxmed.registry import create_model, register

EXPERTS = ("image", "core", "boundary")


class MLPHead(nnx.Module):
    """D -> 512 (BN, ReLU) -> 128 (ReLU) -> classes: the simplest head that gives the parameter counts of Table IV."""

    def __init__(self, dim: int, num_classes: int, *, dtype, rngs: nnx.Rngs):
        self.fc1 = Linear(dim, 512, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(512, dtype=dtype)
        self.fc2 = Linear(512, 128, dtype=dtype, rngs=rngs)
        self.fc3 = Linear(128, num_classes, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b d"], train: bool = False) -> Float[Array, "b k"]:
        x = jax.nn.relu(self.norm(self.fc1(x), train))
        return self.fc3(jax.nn.relu(self.fc2(x)))


class CSAMoE(nnx.Module):
    """Experts with unshared weights: encoder, cross-stage attention (unless `attention=False`), spatial mean; gate; head.

    `encoder` is a registered backbone. `experts` is a subset of ("image", "core", "boundary") in this order; one expert has
    no gate, and ("image",) needs no mask. `head="fc"` is the paper's text, "mlp" what its parameter counts imply.

    model(image, core, boundary), each [b, h, w, c], one per expert -> logits [b, num_classes]. aux=True gives a dict:
    logits; gate [b, experts]; features [b, d], the fused feature; stage_attention [b, experts, 4] where there is attention.
    Raises UserError for experts that do not exist, another order, or another number of inputs.
    """

    def __init__(
        self, num_classes: int | None = 2, *, encoder: str = "resnet18", experts: Sequence[str] = EXPERTS,
        attention: bool = True, head: str = "fc", in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.experts = self.input_names = check_experts(experts)
        check_head(head)
        self.num_classes, self.frozen = num_classes, ()
        shape = dict(dtype=dtype, rngs=rngs)
        self.encoders = nnx.List(
            [create_model(encoder, num_classes=None, in_channels=in_channels, **shape) for _ in self.experts]
        )
        channels = self.encoders[0].tap_channels
        self.attention = nnx.List([CrossStageAttention(channels, **shape) for _ in self.experts] if attention else [])
        if len(self.experts) > 1:
            self.gate = Gate(channels[-1], len(self.experts), **shape)
        if num_classes is not None:
            self.head = (Linear if head == "fc" else MLPHead)(channels[-1], num_classes, **shape)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Where the encoders live."""
        return {"encoder": tuple(f"encoders.{i}" for i in range(len(self.experts)))}

    def __call__(
        self, *views: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k"] | dict[str, Any]:
        if len(views) != len(self.experts):
            raise UserError(f"this network takes {len(self.experts)} images ({', '.join(self.experts)}), got {len(views)}")
        features, stages = zip(*(self.expert(i, view, train, rngs) for i, view in enumerate(views)), strict=True)
        if len(features) > 1:
            fused, weights = self.gate(features, train, rngs)
        else:
            fused, weights = features[0], jnp.ones((features[0].shape[0], 1))
        out = {"features": fused, "gate": weights}
        if self.attention:
            out["stage_attention"] = jnp.stack(stages, 1)
        if self.num_classes is None:
            return out if aux else fused
        logits = self.classify(fused, train)
        return {"logits": logits, **out} if aux else logits

    def expert(self, index: int, view: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None):
        """(feature [b, d], attention over stages [b, 4] or None) of one expert."""
        maps = self.encoders[index].csa_taps(view, train, rngs)
        last, stages = self.attention[index](maps) if self.attention else (maps[-1], None)
        return global_avg_pool(last), stages

    def classify(self, fused: Float[Array, "b d"], train: bool = False) -> Float[Array, "b k"]:
        """The head, float32."""
        logits = self.head(fused, train) if isinstance(self.head, MLPHead) else self.head(fused)
        return logits.astype(jnp.float32)


def check_experts(experts: Sequence[str]) -> tuple[str, ...]:
    """The experts as a tuple; raises UserError unless they are a subset of EXPERTS in that order."""
    experts = (experts,) if isinstance(experts, str) else tuple(experts)
    if not experts or experts != tuple(name for name in EXPERTS if name in experts):
        raise UserError(f"experts={experts} must be one or more of {EXPERTS}, once each, in this order")
    return experts


def check_head(head: str) -> None:
    """Raises UserError unless `head` is "fc" or "mlp"."""
    if head not in ("fc", "mlp"):
        raise UserError(f"head={head!r} is neither 'fc' (the paper's text) nor 'mlp' (the counts of its Table IV)")


register("csa_moe")(CSAMoE)
register("moe", attention=False)(CSAMoE)
for _name, _encoder in (
    ("resnet18", "resnet18"), ("vgg16", "vgg16"), ("densenet121", "densenet121"), ("mobilenetv2", "mobilenetv2_100"),
):
    register(f"csa_moe_{_name}", encoder=_encoder)(CSAMoE)
    register(f"moe_{_name}", encoder=_encoder, attention=False)(CSAMoE)
