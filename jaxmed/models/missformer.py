"""MISSFormer: transformers as encoder, bridge and decoder of a U (Huang, Deng, Li, Yuan 2021)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.pvt_v2 import REDUCTIONS, Attention, Stage, patch_embed
from jaxmed.errors import UserError
from jaxmed.models.mask_model import MaskModel, mask_conv
from jaxmed.nn import LayerNorm, Linear, add_branch
from jaxmed.nn.context_bridge import ContextBridge
from jaxmed.nn.init import TRANSFORMER_INIT
from jaxmed.nn.mix_ffn import MixFFNSkip
from jaxmed.nn.patch_expand import PatchExpand
from jaxmed.registry import register

EPS = 1e-5


class Block(nnx.Module):
    """Attention over a shrunken copy of the map, then MixFFNSkip, each behind a norm and around a shortcut."""

    def __init__(self, dim: int, num_heads: int, reduction: int, *, dtype, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (LayerNorm(dim, eps=EPS, dtype=dtype) for _ in range(2))
        self.attn = Attention(dim, num_heads, reduction, is_linear=False, dtype=dtype, rngs=rngs)
        self.mlp = MixFFNSkip(dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Array:
        x = add_branch(x, self.attn(self.norm1(x)), 0.0, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), 0.0, train, rngs)


class Encoder(nnx.Module):
    """Four stages of overlapping patches and blocks: PVTv2 with other feed-forward networks. Its maps have strides 4 to 32."""

    def __init__(
        self, in_channels: int, dims: Sequence[int], depths: Sequence[int], num_heads: Sequence[int], *, dtype, rngs: nnx.Rngs
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.patch_embed = patch_embed(in_channels, dims[0], 7, 4, **shape)
        self.stages = nnx.List([])
        for k, depth in enumerate(depths):
            blocks = [Block(dims[k], num_heads[k], REDUCTIONS[k], **shape) for _ in range(depth)]
            self.stages.append(Stage(dims[max(k - 1, 0)], dims[k], k > 0, blocks, eps=EPS, **shape))

    def __call__(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> list[Array]:
        x, maps = self.patch_embed(image), []
        for stage in self.stages:
            x = stage(x, train, rngs)
            maps.append(x)
        return maps


class Level(nnx.Module):
    """Join the map below and the bridge's through a linear layer, two blocks, expand."""

    def __init__(
        self, joined: int, dim: int, num_heads: int, reduction: int, expand: PatchExpand, *, dtype, rngs: nnx.Rngs
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.concat_linear = Linear(joined, dim, **TRANSFORMER_INIT, **shape)
        self.layer_former = nnx.List([Block(dim, num_heads, reduction, **shape) for _ in range(2)])
        self.layer_up = expand

    def __call__(self, x: Float[Array, "b h w i"], skip: Float[Array, "b h w s"], train: bool) -> Float[Array, "b h2 w2 c"]:
        x = self.concat_linear(jnp.concatenate([x, skip], -1))
        for block in self.layer_former:
            x = block(x, train)
        return self.layer_up(x)


@register("missformer")
class MISSFormer(MaskModel):
    """Encoder, a context bridge of four layers over all scales, four decoder levels; see MaskModel.

    `dims` are multiples of the first. The released code fixes 224 pixels; no parameter depends on the size, so any multiple of
    32 is taken. The deepest level only expands. Its linear layer and two blocks, and the unused norms of every MixFFNSkip, 166
    arrays in all, are here because published checkpoints hold them and parameter counts include them. Its class head is ours:
    the paper compares masks alone.
    """

    stride = 32

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, dims: Sequence[int] = (64, 128, 320, 512),
        depths: Sequence[int] = (2, 2, 2, 2), num_heads: Sequence[int] = (1, 2, 5, 8), in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        check_dims(dims, num_heads)
        shape = dict(dtype=dtype, rngs=rngs)
        self.backbone = Encoder(in_channels, dims, depths, num_heads, **shape)
        self.bridge = ContextBridge(dims, 4, **shape)
        joined = [a + b // 2 for a, b in zip(dims, (*dims[1:], 2 * dims[-1]), strict=True)]
        expansions = [(dims[0], 4), *((dim // 2, 2) for dim in dims[1:])]
        self.decoder = nnx.List([
            Level(joined[k], dim, num_heads[k], REDUCTIONS[k], PatchExpand(dim, *expansions[k], **shape), **shape)
            for k, dim in enumerate(dims)
        ])  # fmt: skip
        self.mask_head = mask_conv(dims[0], mask_channels, **shape)
        self.add_head(dims[-1], num_classes, **shape)

    def masks(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> tuple[Array, dict[str, Array]]:
        """(deepest map of the encoder, mask logits)."""
        maps = self.backbone(image, train, rngs)
        *skips, deepest = self.bridge(maps)
        *levels, last = self.decoder
        x = last.layer_up(deepest)
        for level, skip in zip(levels[::-1], skips[::-1], strict=True):
            x = level(x, skip, train)
        return maps[-1], {"mask_logits": self.mask_head(x)}


def check_dims(dims: Sequence[int], num_heads: Sequence[int]) -> None:
    """Raises UserError unless there are four, each a multiple of the first and of its heads, and even."""
    if len(dims) != 4 or any(dim % dims[0] or dim % heads or dim % 2 for dim, heads in zip(dims, num_heads, strict=True)):
        raise UserError(
            f"dims={tuple(dims)} must be four even numbers, multiples of the first and of num_heads={tuple(num_heads)}"
        )
