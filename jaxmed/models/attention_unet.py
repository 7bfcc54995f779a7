"""Attention U-Net (Oktay et al. 2018) in its common 2-D form."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.models.mask_model import MaskModel, mask_conv
from jaxmed.nn.additive_gate import AdditiveGate
from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.double_conv import DoubleConv, pyramid
from jaxmed.ops.resize import double
from jaxmed.registry import register

DEPTH = 4  # halvings


class Level(nnx.Module):
    """Double the map (nearest pixels, 3x3 convolution), gate the skip connection with it, join both, two convolutions."""

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        shape = dict(dtype=dtype, rngs=rngs)
        self.up = ConvNorm(2 * channels, channels, bias=True, **shape)
        self.gate = AdditiveGate(channels, channels, channels // 2, **shape)
        self.conv = DoubleConv(2 * channels, channels, bias=True, **shape)

    def __call__(self, x: Float[Array, "b h w i"], skip: Float[Array, "b h2 w2 c"], train: bool) -> Float[Array, "b h2 w2 c"]:
        up = self.up(double(x, "nearest"), train)
        return self.conv(jnp.concatenate([self.gate(skip, up, train), up], -1), train)


@register("attention_unet")
class AttentionUNet(MaskModel):
    """Four halvings, channels doubling from `base_width`, a gate on every skip connection; see MaskModel."""

    stride = 2**DEPTH

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, base_width: int = 64, in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        widths = [base_width * 2**k for k in range(DEPTH + 1)]
        inputs = [in_channels, *widths]
        self.encoder = nnx.List([DoubleConv(inputs[k], width, bias=True, **shape) for k, width in enumerate(widths)])
        self.levels = nnx.List([Level(width, **shape) for width in reversed(widths[:-1])])
        self.mask_head = mask_conv(base_width, mask_channels, **shape)
        self.add_head(widths[-1], num_classes, **shape)

    def masks(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> tuple[Array, dict[str, Array]]:
        """(deepest map, mask logits)."""
        *skips, deepest = pyramid(self.encoder, image, train)
        x = deepest
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            x = level(x, skip, train)
        return deepest, {"mask_logits": self.mask_head(x)}
