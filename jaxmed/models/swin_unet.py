"""Swin-Unet (Cao et al. 2022): a U-Net of Swin blocks, patch merging on the way down and patch expanding on the way up."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.swin import EPS, PATCH, Swin, shifting_blocks
from jaxmed.models.mask_model import MaskModel, mask_conv
from jaxmed.nn import LayerNorm, Linear, drop_path_rates
from jaxmed.nn.patch_expand import PatchExpand
from jaxmed.registry import register


class UpStage(nnx.Module):
    """Map and skip connection side by side, a linear layer back to `dim`, Swin blocks, patch expanding where `expand`."""

    def __init__(
        self, dim: int, num_heads: int, window_size: int, rates: list[float], expand: bool, *, dtype, rngs: nnx.Rngs
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.concat = Linear(2 * dim, dim, **shape)
        self.blocks = shifting_blocks(dim, num_heads, window_size, rates, **shape)
        if expand:
            self.upsample = PatchExpand(dim, dim // 2, 2, **shape)

    def __call__(
        self, x: Float[Array, "b h w c"], skip: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None
    ) -> Float[Array, "b h2 w2 c2"]:
        x = self.concat(jnp.concatenate([x, skip], -1))
        for block in self.blocks:
            x = block(x, train, rngs)
        return self.upsample(x) if hasattr(self, "upsample") else x


@register("swin_unet")
class SwinUNet(MaskModel):
    """A Swin encoder, a decoder that mirrors its last stages, patches expanded four times at the end; see MaskModel.

    Skip connections are the stages' inputs, after their patch merging. With depths=(2, 2, 6, 2) the role "encoder" takes a
    published Swin-T whole; the released network has (2, 2, 2, 2) and starts from its first blocks. Its paper has no classes.
    """

    roles = {"encoder": ("encoder",)}

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, depths: Sequence[int] = (2, 2, 2, 2),
        dims: Sequence[int] = (96, 192, 384, 768), num_heads: Sequence[int] = (3, 6, 12, 24), window_size: int = 7,
        drop_path: float = 0.2, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        options = dict(depths=depths, dims=dims, num_heads=num_heads, window_size=window_size, drop_path=drop_path)
        self.stride = PATCH * 2 ** (len(depths) - 1)
        self.encoder = Swin(None, in_channels=in_channels, **options, **shape)
        self.expand = PatchExpand(dims[-1], dims[-2], 2, **shape)
        rates = drop_path_rates(drop_path, depths)
        self.decoder = nnx.List([
            UpStage(dims[s], num_heads[s], window_size, rates[s], s > 0, **shape) for s in reversed(range(len(depths) - 1))
        ])
        self.norm_up = LayerNorm(dims[0], eps=EPS, dtype=dtype)
        self.up = PatchExpand(dims[0], dims[0], PATCH, **shape)
        self.mask_head = mask_conv(dims[0], mask_channels, bias=False, **shape)
        self.add_head(dims[-1], num_classes, **shape)

    def masks(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> tuple[Array, dict[str, Array]]:
        """(last map of the encoder, normed; mask logits)."""
        x, skips = self.encoder.patch_embed(image), []
        for stage in self.encoder.layers:
            x = stage.merge(x)
            skips.append(x)
            x = stage.mix(x, train, rngs)
        deepest = self.encoder.norm(x)
        x = self.expand(deepest)
        for stage, skip in zip(self.decoder, skips[-2::-1], strict=True):
            x = stage(x, skip, train, rngs)
        return deepest, {"mask_logits": self.mask_head(self.up(self.norm_up(x)))}
