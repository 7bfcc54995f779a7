"""TransUNet (Chen et al. 2021): a convolutional decoder on a hybrid of ResNet-50 and Vision Transformer."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.hybrid_vit import STRIDE, HybridViT
from jaxmed.models.mask_model import MaskModel, mask_conv
from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.double_conv import DoubleConv
from jaxmed.ops.resize import double
from jaxmed.registry import register

DIM = 512  # channels in front of the decoder


@register("trans_unet")
class TransUNet(MaskModel):
    """R50-ViT-B/16 with three skip connections; the decoder doubles the map four times (bilinear, corners on corners).

    `base_width` and `depths` are those of the ResNet, `dim`, `depth` and `num_heads` those of the transformer, `decoder_dims`
    the channels of the decoder's levels. The role "encoder" takes the weights that the paper starts from. See MaskModel; images
    must be img_size x img_size, because the positions are learned for that grid. Its paper has no classes.
    """

    stride = STRIDE
    roles = {"encoder": ("encoder",)}

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, img_size: int = 224, base_width: int = 64,
        depths: Sequence[int] = (3, 4, 9), dim: int = 768, depth: int = 12, num_heads: int = 12,
        decoder_dims: Sequence[int] = (256, 128, 64, 16), dropout: float = 0.1, in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.encoder = HybridViT(
            img_size=img_size, base_width=base_width, depths=depths, dim=dim, depth=depth, num_heads=num_heads,
            dropout=dropout, in_channels=in_channels, **shape,
        )
        self.conv_more = ConvNorm(dim, DIM, **shape)
        skips = (*self.encoder.channels[-2::-1], 0)
        inputs = (DIM, *decoder_dims)
        self.blocks = nnx.List([
            DoubleConv(below + skip, width, **shape) for below, skip, width in zip(inputs, skips, decoder_dims, strict=False)
        ])
        self.mask_head = mask_conv(decoder_dims[-1], mask_channels, 3, **shape)
        self.add_head(dim, num_classes, **shape)

    def masks(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> tuple[Array, dict[str, Array]]:
        """(the transformer's tokens as a map, mask logits)."""
        *skips, deepest = self.encoder.maps(image, train, rngs)
        x = self.conv_more(deepest, train)
        for block, skip in zip(self.blocks, [*reversed(skips), None], strict=True):
            x = double(x, align_corners=True)
            x = block(x if skip is None else jnp.concatenate([x, skip], -1), train)
        return deepest, {"mask_logits": self.mask_head(x)}
