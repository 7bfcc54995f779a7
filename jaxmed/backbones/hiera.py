"""Hiera (Ryali et al. 2023, "Hiera: A Hierarchical Vision Transformer without the Bells-and-Whistles"), names as in timm."""

import math
from itertools import accumulate

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.errors import UserError
from jaxmed.nn import (
    TRANSFORMER_INIT,
    Conv,
    LayerNorm,
    Linear,
    Mlp,
    add_branch,
    attend,
    drop_path_rates,
    global_avg_pool,
    trunc_normal,
    zeros,
)
from jaxmed.nn.conv import Pair, pair
from jaxmed.registry import register

EPS = 1e-6
PATCH = 4  # pixels
LEVELS = 3  # 2x2 poolings, after which one token is left of a mask unit
SIDE = PATCH * 2**LEVELS  # pixels along one side of a mask unit
WINDOW = 4  # tokens that a pooling takes the maximum of
HEAD = trunc_normal(2e-5)  # the classifier starts a thousand times smaller than the rest


def unroll(x: Float[Array, "b h w c"], levels: int) -> Float[Array, "b u t c"]:
    """A map cut into mask units of 2^levels x 2^levels tokens (row by row), tokens in pooling order.

    Seen as [2, 2, ..., 2, 2] the tokens of a unit go from the finest (row, column) bit to the coarsest, so the four of a 2x2
    window lie a quarter of the unit apart: a maximum over the leading 4 pools the map, as often as there are levels.
    """
    b, h, w, c = x.shape
    units = (h >> levels, w >> levels)
    x = x.reshape(b, units[0], *(2,) * levels, units[1], *(2,) * levels, c)
    return x.transpose(_order(levels)).reshape(b, math.prod(units), 4**levels, c)


def reroll(x: Float[Array, "b u t c"], units: tuple[int, int], levels: int) -> Float[Array, "b h w c"]:
    """The inverse of `unroll`, for `units` mask units along each axis."""
    b, c = x.shape[0], x.shape[3]
    order = _order(levels)
    x = x.reshape(b, *units, *(2,) * (2 * levels), c).transpose([order.index(axis) for axis in range(len(order))])
    return x.reshape(b, units[0] << levels, units[1] << levels, c)


def _order(levels: int) -> list[int]:
    """[b, rows, row bits, columns, column bits, c] -> [b, rows, columns, (row bit, column bit) from fine to coarse, c]."""
    columns = 2 + levels
    bits = [axis for bit in reversed(range(levels)) for axis in (2 + bit, columns + 1 + bit)]
    return [0, 1, columns, *bits, 3 + 2 * levels]


def pool(x: Float[Array, "b u t c"]) -> Float[Array, "b u t2 c"]:
    """2x2 max-pooling of unrolled tokens."""
    b, units, tokens, c = x.shape
    return x.reshape(b, units, WINDOW, tokens // WINDOW, c).max(2)


class MaskUnitAttention(nnx.Module):
    """Attention inside each mask unit (`local`) or over all tokens; with `pooled` the query is max-pooled first."""

    def __init__(self, dim: int, out: int, num_heads: int, *, pooled: bool, local: bool, dtype, rngs: nnx.Rngs):
        self.num_heads, self.pooled, self.local = num_heads, pooled, local
        options = TRANSFORMER_INIT | dict(dtype=dtype, rngs=rngs)
        self.qkv = Linear(dim, 3 * out, **options)
        self.proj = Linear(out, out, **options)

    def __call__(self, x: Float[Array, "b u t c"]) -> Float[Array, "b u t2 d"]:
        b, units = x.shape[:2]
        q, k, v = jnp.split(self.qkv(x), 3, -1)
        if self.pooled:
            q = pool(q)
        groups = b * units if self.local else b
        q, k, v = (y.reshape(groups, -1, self.num_heads, y.shape[-1] // self.num_heads) for y in (q, k, v))
        y = attend(q, k, v)
        return self.proj(y).reshape(b, units, -1, y.shape[-1])


class Block(nnx.Module):
    """Attention and MLP around shortcuts; the first block of a stage widens and pools, its shortcut through `proj`."""

    def __init__(
        self, dim: int, out: int, num_heads: int, *, pooled: bool, local: bool, drop_path: float, dtype, rngs: nnx.Rngs
    ):
        self.rate = drop_path
        shape = dict(dtype=dtype, rngs=rngs)
        self.norm1 = LayerNorm(dim, eps=EPS, dtype=dtype)
        if pooled:
            self.proj = Linear(dim, out, **TRANSFORMER_INIT, **shape)
        self.attn = MaskUnitAttention(dim, out, num_heads, pooled=pooled, local=local, **shape)
        self.norm2 = LayerNorm(out, eps=EPS, dtype=dtype)
        self.mlp = Mlp(out, 4 * out, **shape)

    def __call__(self, x: Float[Array, "b u t c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b u t2 d"]:
        normed = self.norm1(x)
        shortcut = pool(self.proj(normed)) if hasattr(self, "proj") else x  # the widened shortcut is normed, the plain one not
        x = add_branch(shortcut, self.attn(normed), self.rate, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), self.rate, train, rngs)


@register("hiera_tiny_224", depths=(1, 2, 7, 2))
@register("hiera_small_224", depths=(1, 2, 11, 2))
@register("hiera_base_224", depths=(2, 3, 16, 3))
@register("hiera_base_plus_224", depths=(2, 3, 16, 3), dims=(112, 224, 448, 896), num_heads=(2, 4, 8, 16))
@register("hiera_large_224", depths=(2, 6, 36, 4), dims=(144, 288, 576, 1152), num_heads=(2, 4, 8, 16))
class Hiera(Backbone):
    """Patches of 4 x 4 pixels with learned positions, `depths` blocks per stage.

    Stages 1 and 2 attend inside mask units of 8 x 8 patches, stages 3 and 4 over the whole map; a stage's first block, which
    pools, still attends as the stage before it did. Positions are fixed, so `img_size` (int or (height, width), multiples of
    32) is too. Inside, tokens are [b, units, tokens, c] in pooling order; the maps of `features` are in image order.
    """

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (2, 3, 16, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768), num_heads: tuple[int, ...] = (1, 2, 4, 8), img_size: Pair = 224,
        in_channels: int = 3, drop_path: float = 0.0, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.tap_channels, self.dtype = num_classes, tuple(dims), jnp.dtype(dtype)
        self.img_size, self.ends = pair(img_size), tuple(accumulate(depths))
        if any(side % SIDE for side in self.img_size):
            raise UserError(f"img_size={img_size}: both sides must be multiples of {SIDE}, the side of a mask unit in pixels")
        shape = dict(dtype=dtype, rngs=rngs)
        self.patch_embed = nnx.Dict({"proj": Conv(in_channels, dims[0], 7, stride=PATCH, padding=3, **shape)})
        patches = math.prod(side // PATCH for side in self.img_size)
        self.pos_embed = nnx.Param(trunc_normal(0.02)(rngs.params(), (1, patches, dims[0])))
        blocks = []
        for stage, rates in enumerate(drop_path_rates(drop_path, depths)):
            for rate in rates:
                before = max(stage - 1, 0) if len(blocks) in self.ends else stage  # where the block's input comes from
                sizes = (dims[before], dims[stage], num_heads[stage])
                blocks.append(Block(*sizes, pooled=before < stage, local=before < 2, drop_path=rate, **shape))
        self.blocks = nnx.List(blocks)
        head = {} if num_classes is None else {"fc": Linear(dims[-1], num_classes, kernel_init=HEAD, bias_init=zeros, **shape)}
        self.head = nnx.Dict({"norm": LayerNorm(dims[-1], eps=EPS, dtype=dtype)} | head)

    def embed(self, image: Float[Array, "b h w c"]) -> Float[Array, "b u t c"]:
        """Patches with their positions, unrolled. Raises UserError for another size than `img_size`."""
        if image.shape[1:3] != self.img_size:
            want, got = (" x ".join(map(str, size)) for size in (self.img_size, image.shape[1:3]))
            raise UserError(f"this Hiera was built for images of {want}, got {got}: resize them, or build it with img_size=")
        x = self.patch_embed["proj"](image)
        return unroll(x + self.pos_embed.get_value().astype(self.dtype).reshape(1, *x.shape[1:]), LEVELS)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the four stages, before the final norm, in image order."""
        x, maps, units = self.embed(image), [], tuple(side // SIDE for side in self.img_size)
        for number, block in enumerate(self.blocks, 1):
            x = block(x, train, rngs)
            if number in self.ends:
                maps.append(reroll(x, units, (x.shape[2].bit_length() - 1) // 2))
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the last map, then the norm."""
        return self.head["norm"](global_avg_pool(self.features(image, train, rngs)[-1]))

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head["fc"](features)
