"""PVTv2 (Wang et al. 2022, "PVT v2: Improved Baselines with Pyramid Vision Transformer"), module names as in timm."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.errors import UserError
from jaxmed.nn import (
    TRANSFORMER_INIT,
    Conv,
    DepthwiseConv,
    LayerNorm,
    Linear,
    PatchEmbed,
    adaptive_avg_pool,
    add_branch,
    attend,
    drop_path_rates,
    gelu,
    global_avg_pool,
    split_heads,
    zeros,
)
from jaxmed.registry import register

REDUCTIONS = (8, 4, 2, 1)  # keys and values lie on a map smaller by this factor, per stage: 7 x 7 for an image of 224
POOLED = 7  # side of that map in the linear variant, whatever the image
EPS, EMBED_EPS = 1e-6, 1e-5  # the released networks: blocks and stage ends; patch embeddings and the norm before the keys


def linear(in_features: int, out_features: int, **shape) -> Linear:
    """Weights N(0, 0.02), biases 0."""
    return Linear(in_features, out_features, **TRANSFORMER_INIT, **shape)


def patch_embed(in_channels: int, dim: int, kernel: int, stride: int, **shape) -> PatchEmbed:
    """Overlapping patches (section 3.2), half a patch of padding: a side of n pixels gives ceil(n / stride)."""
    return PatchEmbed(in_channels, dim, kernel, stride, eps=EMBED_EPS, padding=kernel // 2, **shape)


class Attention(nnx.Module):
    """Every position attends over a shrunken copy of the map (section 3.1).

    The copy is a convolution over windows of `reduction` x `reduction` that do not overlap (rows and columns that do not fill
    a window are dropped); in the linear variant the mean over 7 x 7 cells, a 1x1 convolution, norm and GELU.
    """

    def __init__(self, dim: int, num_heads: int, reduction: int, is_linear: bool, *, dtype, rngs: nnx.Rngs):
        self.num_heads, self.is_linear = num_heads, is_linear
        shape = dict(dtype=dtype, rngs=rngs)
        self.q, self.kv, self.proj = linear(dim, dim, **shape), linear(dim, 2 * dim, **shape), linear(dim, dim, **shape)
        if is_linear or reduction > 1:
            window = 1 if is_linear else reduction
            self.sr = Conv(dim, dim, window, stride=window, bias_init=zeros, **shape)
            self.norm = LayerNorm(dim, eps=EMBED_EPS, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        small = self.shrink(x)
        tokens, source = (y.reshape(y.shape[0], -1, y.shape[-1]) for y in (x, small))
        (q,) = split_heads(self.q(tokens), 1, self.num_heads)
        k, v = split_heads(self.kv(source), 2, self.num_heads)
        return self.proj(attend(q, k, v)).reshape(x.shape)

    def shrink(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """The map that keys and values come from."""
        if not hasattr(self, "sr"):
            return x
        if self.is_linear:
            return gelu(self.norm(self.sr(adaptive_avg_pool(x, POOLED))))
        return self.norm(self.sr(x))


class Mlp(nnx.Module):
    """dim -> hidden, 3x3 depthwise convolution, GELU, hidden -> dim (section 3.3); the linear variant adds a ReLU before it.

    The convolution's zero padding is what tells the network about positions.
    """

    def __init__(self, dim: int, hidden: int, is_linear: bool, *, dtype, rngs: nnx.Rngs):
        self.is_linear = is_linear
        shape = dict(dtype=dtype, rngs=rngs)
        self.fc1 = linear(dim, hidden, **shape)
        self.dwconv = DepthwiseConv(hidden, 3, padding=1, bias_init=zeros, **shape)
        self.fc2 = linear(hidden, dim, **shape)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = self.fc1(x)
        x = self.dwconv(jax.nn.relu(x) if self.is_linear else x)
        return self.fc2(gelu(x))


class Block(nnx.Module):
    """Attention, then the MLP, each behind a norm and around a shortcut."""

    def __init__(
        self, dim: int, num_heads: int, reduction: int, mlp_ratio: int, is_linear: bool, drop: float, *, dtype, rngs: nnx.Rngs
    ):
        self.drop = drop
        shape = dict(dtype=dtype, rngs=rngs)
        self.norm1, self.norm2 = (LayerNorm(dim, eps=EPS, dtype=dtype) for _ in range(2))
        self.attn = Attention(dim, num_heads, reduction, is_linear, **shape)
        self.mlp = Mlp(dim, dim * mlp_ratio, is_linear, **shape)

    def __call__(self, x: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h w c"]:
        x = add_branch(x, self.attn(self.norm1(x)), self.drop, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), self.drop, train, rngs)


class Stage(nnx.Module):
    """Halve the map (not in the first stage), the blocks, a norm."""

    def __init__(
        self, in_channels: int, dim: int, downsample: bool, blocks: list[nnx.Module], *, eps: float = EPS, dtype, rngs: nnx.Rngs
    ):
        if downsample:
            self.downsample = patch_embed(in_channels, dim, 3, 2, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(blocks)
        self.norm = LayerNorm(dim, eps=eps, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h2 w2 d"]:
        x = self.downsample(x) if hasattr(self, "downsample") else x
        for block in self.blocks:
            x = block(x, train, rngs)
        return self.norm(x)


@register("pvt_v2_b0", depths=(2, 2, 2, 2), dims=(32, 64, 160, 256))
@register("pvt_v2_b1", depths=(2, 2, 2, 2))
@register("pvt_v2_b2")
@register("pvt_v2_b2_li", is_linear=True)
@register("pvt_v2_b3", depths=(3, 4, 18, 3))
@register("pvt_v2_b4", depths=(3, 8, 27, 3))
@register("pvt_v2_b5", depths=(3, 6, 40, 3), mlp_ratios=(4, 4, 4, 4))
class PVTv2(Backbone):
    """Four stages of attention over shrunken maps; `is_linear` shrinks them to 7 x 7 for every image size (section 3.1).

    An image side of n gives maps of ceil(n / 4), then the half, rounded up. The smallest side is 29 (1 if `is_linear`).
    """

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (3, 4, 6, 3),
        dims: tuple[int, ...] = (64, 128, 320, 512), num_heads: tuple[int, ...] = (1, 2, 5, 8),
        mlp_ratios: tuple[int, ...] = (8, 8, 4, 4), is_linear: bool = False, in_channels: int = 3, drop_path: float = 0.0,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.tap_channels, self.is_linear = num_classes, tuple(dims), is_linear
        shape = dict(dtype=dtype, rngs=rngs)
        self.patch_embed = patch_embed(in_channels, dims[0], 7, 4, **shape)
        self.stages = nnx.List([])
        for k, rates in enumerate(drop_path_rates(drop_path, depths)):
            options = (dims[k], num_heads[k], REDUCTIONS[k], mlp_ratios[k], is_linear)
            blocks = [Block(*options, rate, **shape) for rate in rates]
            self.stages.append(Stage(dims[max(k - 1, 0)], dims[k], k > 0, blocks, **shape))
        if num_classes is not None:
            self.head = linear(dims[-1], num_classes, **shape)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """The four stages' outputs, after their norms."""
        self._check_size(image)
        x, maps = self.patch_embed(image), []
        for stage in self.stages:
            x = stage(x, train, rngs)
            maps.append(x)
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the last map."""
        return global_avg_pool(self.features(image, train, rngs)[-1])

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head(features)

    def _check_size(self, image: Array) -> None:
        """A map must hold one window of its stage's reduction."""
        smallest = 1 if self.is_linear else max((r - 1) * 4 * 2**k + 1 for k, r in enumerate(REDUCTIONS))
        if min(image.shape[1:3]) < smallest:
            raise UserError(f"PVTv2 takes images of {smallest} x {smallest} or more, got {list(image.shape)}: resize them")
