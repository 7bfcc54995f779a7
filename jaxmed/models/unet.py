"""U-Net (Ronneberger et al. 2015) in its usual form: batch norms, and padding that keeps the size."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.models.mask_model import MaskModel, mask_conv
from jaxmed.nn.double_conv import DoubleConv, pyramid
from jaxmed.nn.patch_up_conv import PatchUpConv
from jaxmed.ops.resize import double
from jaxmed.registry import register

DEPTH = 4  # halvings


class Up(nnx.Module):
    """Double the map, put it behind the skip connection, two convolutions.

    Doubling is bilinear (corners on corners), or a transposed convolution that halves the channels.
    """

    def __init__(self, below: int, skip: int, channels: int, bilinear: bool, *, dtype, rngs: nnx.Rngs):
        shape, self.bilinear = dict(dtype=dtype, rngs=rngs), bilinear
        if not bilinear:
            self.up = PatchUpConv(below, below // 2, **shape)
        joined = skip + (below if bilinear else below // 2)
        self.conv = DoubleConv(joined, channels, middle=joined // 2 if bilinear else channels, **shape)

    def __call__(self, x: Float[Array, "b h w c"], skip: Float[Array, "b h2 w2 s"], train: bool) -> Float[Array, "b h2 w2 o"]:
        up = double(x, align_corners=True) if self.bilinear else self.up(x)
        return self.conv(jnp.concatenate([skip, up], -1), train)


@register("unet")
class UNet(MaskModel):
    """Four halvings, channels doubling from `base_width`; see MaskModel.

    bilinear: maps are doubled without weights; the deepest has half as many channels then.
    """

    stride = 2**DEPTH

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, bilinear: bool = False, base_width: int = 64,
        in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        share = 2 if bilinear else 1  # nothing halves the channels on the way up, so levels hand on half as many
        widths = [base_width * 2**k for k in range(DEPTH)] + [base_width * 2**DEPTH // share]
        inputs = [in_channels, *widths]
        self.encoder = nnx.List([DoubleConv(inputs[k], width, **shape) for k, width in enumerate(widths)])
        ups = [base_width] + [width // share for width in widths[1:DEPTH]] + [widths[DEPTH]]
        self.ups = nnx.List([Up(ups[k + 1], widths[k], ups[k], bilinear, **shape) for k in reversed(range(DEPTH))])
        self.mask_head = mask_conv(base_width, mask_channels, **shape)
        self.add_head(widths[-1], num_classes, **shape)

    def masks(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> tuple[Array, dict[str, Array]]:
        """(deepest map, mask logits)."""
        *skips, deepest = pyramid(self.encoder, image, train)
        x = deepest
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(x, skip, train)
        return deepest, {"mask_logits": self.mask_head(x)}
