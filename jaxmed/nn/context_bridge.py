"""MISSFormer's Enhanced Transformer Context Bridge (Huang et al. 2021): the maps of four scales attend to each other."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.attention import attend, split_heads
from jaxmed.nn.conv import Conv
from jaxmed.nn.init import TRANSFORMER_INIT, zeros
from jaxmed.nn.linear import Linear
from jaxmed.nn.mix_ffn import MixFFNSkip
from jaxmed.nn.norm import LayerNorm
from jaxmed.nn.residual import computed_once

EPS = 1e-5
REDUCTIONS = (8, 4, 2)  # of the maps, the finest first; the coarsest is kept
Maps = list[Float[Array, "b h w _"]]


def to_tokens(maps: Maps, dim: int) -> Float[Array, "b n d"]:
    """Maps one behind the other, the numbers of each cut into tokens of `dim`: a pixel of 5 dim channels gives 5 tokens."""
    return jnp.concatenate([x.reshape(x.shape[0], -1, dim) for x in maps], 1)


def to_maps(tokens: Float[Array, "b n d"], shapes: Sequence[tuple[int, int, int]]) -> Maps:
    """The inverse; `shapes` are height, width and channels of the maps."""
    maps, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape) // tokens.shape[-1]
        maps.append(tokens[:, start:stop].reshape(-1, *shape))
        start = stop
    return maps


class ScaleReduce(nnx.Module):
    """Shrinks each map to the size of the coarsest; tokens again; norm.

    The released code flattens a shrunken map of m dim channels channels first and cuts it into `dim` rows; tokens are the m h w
    columns. So number c of token t is number c m h w + t of the flat map, and a token is not a pixel.
    """

    def __init__(self, dims: Sequence[int], *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        self.sr = nnx.List([
            Conv(dim, dim, r, stride=r, bias_init=zeros, dtype=dtype, rngs=rngs)
            for dim, r in zip(dims[:-1], REDUCTIONS, strict=True)
        ])  # fmt: skip
        self.norm = LayerNorm(dims[0], eps=EPS, dtype=dtype)

    def __call__(self, maps: Maps) -> Float[Array, "b k d"]:
        b, *_, dim = maps[0].shape
        small = [conv(x).transpose(0, 3, 1, 2).reshape(b, dim, -1) for conv, x in zip(self.sr, maps[:-1], strict=True)]
        tokens = [x.transpose(0, 2, 1) for x in small]
        return self.norm(jnp.concatenate([*tokens, maps[-1].reshape(b, -1, dim)], 1))


class BridgeAttention(nnx.Module):
    """Every token of all scales attends, with one head, to the tokens of the shrunken maps."""

    def __init__(self, dims: Sequence[int], *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        shape, dim = dict(dtype=dtype, rngs=rngs), dims[0]
        self.q, self.kv, self.proj = (Linear(dim, n * dim, **TRANSFORMER_INIT, **shape) for n in (1, 2, 1))
        self.scale_reduce = ScaleReduce(dims, **shape)

    def __call__(self, tokens: Float[Array, "b n d"], shapes: Sequence[tuple[int, int, int]]) -> Float[Array, "b n d"]:
        (q,) = split_heads(self.q(tokens), 1, 1)
        k, v = split_heads(self.kv(self.scale_reduce(to_maps(tokens, shapes))), 2, 1)
        return self.proj(attend(q, k, v))


class BridgeLayer(nnx.Module):
    """Attention over all scales, then a network of its own for the map of each; each behind a norm and around a shortcut."""

    def __init__(self, dims: Sequence[int], *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (LayerNorm(dims[0], eps=EPS, dtype=dtype) for _ in range(2))
        self.attn = BridgeAttention(dims, dtype=dtype, rngs=rngs)
        self.mixffn = nnx.List([MixFFNSkip(dim, dtype=dtype, rngs=rngs) for dim in dims])

    def __call__(self, tokens: Float[Array, "b n d"], shapes: Sequence[tuple[int, int, int]]) -> Float[Array, "b n d"]:
        tokens = computed_once(tokens + self.attn(self.norm1(tokens), shapes))
        maps = [ffn(x) for ffn, x in zip(self.mixffn, to_maps(self.norm2(tokens), shapes), strict=True)]
        return computed_once(tokens + to_tokens(maps, tokens.shape[-1]))


class ContextBridge(nnx.Module):
    """`depth` layers between an encoder's four maps and the decoder's skip connections; the maps keep their shapes.

    `dims`, the channels, are multiples of the first, which is the width of all tokens; each map has half the side of the one
    before it.
    """

    def __init__(self, dims: Sequence[int], depth: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        self.layers = nnx.List([BridgeLayer(dims, dtype=dtype, rngs=rngs) for _ in range(depth)])

    def __call__(self, maps: Maps) -> Maps:
        shapes = [x.shape[1:] for x in maps]
        tokens = to_tokens(maps, maps[0].shape[-1])
        for layer in self.layers:
            tokens = layer(tokens, shapes)
        return to_maps(tokens, shapes)
