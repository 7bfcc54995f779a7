"""A Swin block on some of its windows; the others keep what they have (X-Pruning, "Pruned transformer block")."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxmed.nn.residual import add_branch
from jaxmed.ops.window_pruning import Windows


def run_on_windows(
    block: nnx.Module, x: Float[Array, "b h w c"], index: Int[Array, "b k"], windows: Windows, train: bool = False,
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "b h w c"]:
    """`block` (norm1, attn, norm2, mlp, rate as in Swin) on the windows `index` of each image, attention and MLP alike.

    Pruned windows skip both branches, so their features are those of the block before ("replication"). Only the kept windows
    are ever computed: nothing here is as large as the map but the copy that the results are written into.
    """
    part = windows.take(x, index)
    part = add_branch(part, _attention(block, part, index, windows), block.rate, train, rngs)
    part = add_branch(part, block.mlp(block.norm2(part)), block.rate, train, rngs)
    return windows.put(x, index, part.astype(x.dtype))


def _attention(
    block: nnx.Module, part: Float[Array, "b k t c"], index: Int[Array, "b k"], windows: Windows
) -> Float[Array, "b k t c"]:
    """Attention inside the kept windows; padding is zero behind the norm, as in the published code."""
    normed, mask = block.norm1(part), windows.mask(index)
    if windows.padded:
        normed = normed * windows.inside(index)[..., None].astype(normed.dtype)
    qkv = block.attn.qkv(normed)
    mask = None if mask is None else mask.reshape(-1, *mask.shape[2:])
    mixed = block.attn.mix(qkv.reshape(-1, *qkv.shape[2:]), mask)
    return block.attn.proj(mixed.reshape(part.shape))


def mark(windows: Windows, index: Int[Array, "b k"]) -> Float[Array, "b h w"]:
    """1 where a token lies in one of the windows `index`, else 0."""
    empty = jnp.zeros((index.shape[0], windows.height, windows.width, 1))
    return windows.put(empty, index, jnp.ones((*index.shape, windows.size**2, 1)))[..., 0]
