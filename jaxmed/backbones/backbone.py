"""What every image encoder offers, and the part of it that does not depend on the network."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

Maps = list[Float[Array, "b h w c"]]


class Backbone(nnx.Module):
    """An image encoder.

    `model(image[b, h, w, in_channels])` gives logits [b, num_classes], or the pooled feature where `num_classes` is None;
    with `aux=True` a dict of `features` [b, d] (what the last linear layer sees) and, with a head, `logits`.
    `model.features(image)` gives four maps with strides 4, 8, 16, 32, those of timm's `features_only`.
    `model.csa_taps(image)` gives the four maps that cross-stage attention looks at, with `tap_channels` channels; the
    last one is the map that the network's own classifier pools.

    A subclass defines `features`, `pooled` (image -> d numbers per image) and `classify` (those -> logits).
    """

    input_names: tuple[str, ...] = ("image",)
    frozen: tuple[str, ...] = ()
    roles: dict[str, tuple[str, ...]] = {}
    num_classes: int | None
    tap_channels: tuple[int, ...]

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k"] | dict[str, Any]:
        features = self.pooled(image, train, rngs)
        if self.num_classes is None:
            return {"features": features} if aux else features
        logits = self.classify(features, train, rngs).astype(jnp.float32)
        return {"logits": logits, "features": features} if aux else logits

    def csa_taps(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Maps for cross-stage attention; where an encoder says nothing else, those of `features`."""
        return self.features(image, train, rngs)
