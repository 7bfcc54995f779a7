"""MPViT (Lee et al. 2022, "MPViT: Multi-Path Vision Transformer for Dense Prediction"), parameter names as published."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import (
    TRANSFORMER_INIT,
    BatchNorm,
    Conv,
    DepthwiseConv,
    LayerNorm,
    Linear,
    Mlp,
    add_branch,
    drop_path_rates,
    global_avg_pool,
    normal,
    torch_uniform,
)
from jaxmed.registry import register

EPS = 1e-6
HEADS = 8
WINDOWS = ((3, 2), (5, 3), (7, 3))  # relative positions: window, number of heads that use it; 8 heads together


class ConvNorm(nnx.Module):
    """Convolution, norm."""

    def __init__(self, in_channels: int, channels: int, kernel: int = 1, stride: int = 1, *, dtype, rngs: nnx.Rngs):
        self.conv = Conv(
            in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False, dtype=dtype, rngs=rngs
        )
        self.bn = BatchNorm(channels, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 c2"]:
        return self.bn(self.conv(x), train)


class PatchConv(nnx.Module):
    """3x3 depthwise and 1x1 convolution, norm, Hardswish."""

    def __init__(self, dim: int, stride: int, *, dtype, rngs: nnx.Rngs):
        options = dict(bias=False, dtype=dtype, rngs=rngs)
        published = normal((2 / (9 * dim)) ** 0.5)  # the authors' fan-out leaves the groups out, so these weights start small
        self.dwconv = DepthwiseConv(dim, 3, stride=stride, padding=1, kernel_init=published, **options)
        self.pwconv = Conv(dim, dim, 1, **options)
        self.bn = BatchNorm(dim, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 c"]:
        return jax.nn.hard_swish(self.bn(self.pwconv(self.dwconv(x)), train))


class PatchEmbedding(nnx.Module):
    """The paper's "multi-scale patch embedding": each further convolution widens the view, 3x3, 5x5, 7x7; one map per path."""

    def __init__(self, dim: int, paths: int, stride: int, *, dtype, rngs: nnx.Rngs):
        strides = [stride] + [1] * (paths - 1)
        self.patch_embeds = nnx.List([nnx.Dict(patch_conv=PatchConv(dim, s, dtype=dtype, rngs=rngs)) for s in strides])

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Maps:
        maps = []
        for embed in self.patch_embeds:
            x = embed.patch_conv(x, train)
            maps.append(x)
        return maps


class PositionEncoding(nnx.Module):
    """The map plus its 3x3 depthwise convolution."""

    def __init__(self, dim: int, *, dtype, rngs: nnx.Rngs):
        self.proj = DepthwiseConv(dim, 3, padding=1, kernel_init=torch_uniform(), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return x + self.proj(x)


class RelativePositions(nnx.Module):
    """Query times a depthwise convolution of the values, whose window differs between groups of heads (WINDOWS)."""

    def __init__(self, dim: int, *, dtype, rngs: nnx.Rngs):
        shares = [dim // HEADS * heads for _, heads in WINDOWS]
        self.ends = (shares[0], shares[0] + shares[1])
        options = dict(kernel_init=torch_uniform(), dtype=dtype, rngs=rngs)
        self.conv_list = nnx.List([
            DepthwiseConv(share, window, padding=window // 2, **options)
            for share, (window, _) in zip(shares, WINDOWS, strict=True)
        ])

    def __call__(self, q: Float[Array, "b h w c"], v: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        parts = jnp.split(v, self.ends, -1)
        return q * jnp.concatenate([conv(part) for conv, part in zip(self.conv_list, parts, strict=True)], -1)


class FactorizedAttention(nnx.Module):
    """q (softmax(k)^T v) / sqrt(d) plus relative positions; the softmax runs over tokens, so the cost is linear in them."""

    def __init__(self, dim: int, *, dtype, rngs: nnx.Rngs):
        self.qkv = Linear(dim, 3 * dim, **TRANSFORMER_INIT, dtype=dtype, rngs=rngs)
        self.proj = Linear(dim, dim, **TRANSFORMER_INIT, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], positions: RelativePositions) -> Float[Array, "b h w c"]:
        q, k, v = jnp.split(self.qkv(x), 3, -1)
        return self.proj(factorized_attention(q, k, v, HEADS) + positions(q, v))


def factorized_attention(
    q: Float[Array, "b h w c"], k: Float[Array, "b h w c"], v: Float[Array, "b h w c"], heads: int
) -> Float[Array, "b h w c"]:
    """Per head: softmax of the keys over all pixels, a [d, d] summary of the values, read out by the queries."""
    tokens = [x.reshape(x.shape[0], -1, heads, x.shape[-1] // heads) for x in (q, k, v)]
    weights = jax.nn.softmax(tokens[1].astype(jnp.float32), 1).astype(q.dtype)
    summary = jnp.einsum("bthd,bthe->bhde", weights, tokens[2]) * tokens[0].shape[-1] ** -0.5
    return jnp.einsum("bthd,bhde->bthe", tokens[0], summary).reshape(q.shape)


class Layer(nnx.Module):
    """Position encoding, then attention and an MLP, each normalised before and added to its input."""

    def __init__(self, dim: int, mlp_ratio: int, rate: float, *, dtype, rngs: nnx.Rngs):
        self.rate = rate
        self.norm1, self.norm2 = (LayerNorm(dim, eps=EPS, dtype=dtype) for _ in range(2))
        self.factoratt_crpe = FactorizedAttention(dim, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(dim, dim * mlp_ratio, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], encode: PositionEncoding, positions: RelativePositions, train: bool,
        rngs: nnx.Rngs | None,
    ) -> Float[Array, "b h w c"]:
        x = encode(x)
        x = add_branch(x, self.factoratt_crpe(self.norm1(x), positions), self.rate, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), self.rate, train, rngs)


class Path(nnx.Module):
    """The transformer layers of one path; they share one position encoding and one set of relative positions."""

    def __init__(self, dim: int, mlp_ratio: int, rates: list[float], *, dtype, rngs: nnx.Rngs):
        self.cpe = PositionEncoding(dim, dtype=dtype, rngs=rngs)
        self.crpe = RelativePositions(dim, dtype=dtype, rngs=rngs)
        self.MHCA_layers = nnx.List([Layer(dim, mlp_ratio, rate, dtype=dtype, rngs=rngs) for rate in rates])

    def __call__(self, x: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h w c"]:
        for layer in self.MHCA_layers:
            x = layer(x, self.cpe, self.crpe, train, rngs)
        return x


class LocalPath(nnx.Module):
    """The convolutional branch: 1x1, 3x3 depthwise, 1x1 around a shortcut."""

    def __init__(self, dim: int, *, dtype, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(dim, dim, dtype=dtype, rngs=rngs)
        self.dwconv = DepthwiseConv(dim, 3, padding=1, bias=False, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(dim, dtype=dtype)
        self.conv2 = ConvNorm(dim, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        y = jax.nn.hard_swish(self.conv1(x, train))
        y = jax.nn.hard_swish(self.norm(self.dwconv(y), train))
        return x + self.conv2(y, train)


class Stage(nnx.Module):
    """The local branch on the first map and one transformer path per map, side by side, then a 1x1 convolution."""

    def __init__(
        self, dim: int, out: int, paths: int, mlp_ratio: int, rates: list[float], *, dtype, rngs: nnx.Rngs
    ):
        self.mhca_blks = nnx.List([Path(dim, mlp_ratio, rates, dtype=dtype, rngs=rngs) for _ in range(paths)])
        self.InvRes = LocalPath(dim, dtype=dtype, rngs=rngs)
        self.aggregate = ConvNorm(dim * (paths + 1), out, dtype=dtype, rngs=rngs)

    def __call__(self, maps: Maps, train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h w c2"]:
        paths = [path(x, train, rngs) for path, x in zip(self.mhca_blks, maps, strict=True)]
        return jax.nn.hard_swish(self.aggregate(jnp.concatenate([self.InvRes(maps[0], train), *paths], -1), train))


@register("mpvit_tiny", depths=(1, 2, 4, 1), dims=(64, 96, 176, 216), mlp_ratio=2)
@register("mpvit_xsmall", depths=(1, 2, 4, 1), dims=(64, 128, 192, 256))
@register("mpvit_small", depths=(1, 3, 6, 3), dims=(64, 128, 216, 288))
@register("mpvit_base", depths=(1, 3, 8, 3), dims=(128, 224, 368, 480))
class MPViT(Backbone):
    """`paths[k]` parallel transformer paths of `depths[k]` layers in stage k, on maps with `dims[k]` channels (each divisible
    by the 8 heads); the convolution that ends a stage gives it the width of the next."""

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (1, 2, 4, 1),
        dims: tuple[int, ...] = (64, 96, 176, 216), paths: tuple[int, ...] = (2, 3, 3, 3), mlp_ratio: int = 4,
        in_channels: int = 3, drop_path: float = 0.0,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.tap_channels = num_classes, (*dims[1:], dims[-1])
        rates, options = drop_path_rates(drop_path, depths), dict(dtype=dtype, rngs=rngs)
        half = dims[0] // 2
        self.stem = nnx.List([ConvNorm(in_channels, half, 3, 2, **options), ConvNorm(half, dims[0], 3, 2, **options)])
        self.patch_embed_stages = nnx.List([PatchEmbedding(dims[k], paths[k], 2 if k else 1, **options) for k in range(4)])
        self.mhca_stages = nnx.List([
            Stage(dims[k], self.tap_channels[k], paths[k], mlp_ratio, rates[k], **options) for k in range(4)
        ])
        if num_classes is not None:
            self.cls_head = nnx.Dict({"cls": Linear(dims[-1], num_classes, **TRANSFORMER_INIT, **options)})

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the four stages."""
        x, maps = image, []
        for conv in self.stem:
            x = jax.nn.hard_swish(conv(x, train))
        for embed, stage in zip(self.patch_embed_stages, self.mhca_stages, strict=True):
            x = stage(embed(x, train), train, rngs)
            maps.append(x)
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the last map."""
        return global_avg_pool(self.features(image, train, rngs)[-1])

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.cls_head.cls(features)
