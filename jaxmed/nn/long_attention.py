"""Attention over many tokens whose [queries, keys] matrix is never held whole."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CPU_SCORES = 2**21  # scores held at a time (8 MB): they stay in the processor's cache
GPU_SCORES = 2**27  # 0.5 GB
FLASH_SCORES = 2**20  # per head; below it the matrix is small


def attend_long(
    q: Float[Array, "b t h d"], k: Float[Array, "b s h d"], v: Float[Array, "b s h d"]
) -> Float[Array, "b t c"]:
    """softmax(q k^T / sqrt(d)) v with the heads side by side again, equal to `attend`; softmax in float32.

    Queries go in chunks, and the backward pass computes each chunk's scores anew. On two CPU cores, against
    jax.nn.dot_product_attention (time, temporary memory):

    tokens, heads of 32, batch | forward: here, there | with the backward pass: here, there
    3136, 3, 4 | 0.13 s, 27 MB; 0.65 s, 944 MB | 0.56 s, 46 MB; 2.06 s, 1893 MB
    784, 6, 4 | 24 ms, 18 MB; 89 ms, 118 MB | 111 ms, 38 MB; 335 ms, 239 MB

    On a GPU half-precision tokens in great number go to cuDNN's flash attention.
    """
    if _flash(q, k):
        out = jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    else:
        out = jax.lax.platform_dependent(
            q, k, v, cpu=functools.partial(attend_in_chunks, scores=CPU_SCORES),
            default=functools.partial(attend_in_chunks, scores=GPU_SCORES),
        )  # fmt: skip
    return out.reshape(*out.shape[:2], -1)


def attend_in_chunks(
    q: Float[Array, "b t h d"], k: Float[Array, "b s h d"], v: Float[Array, "b s h d"], scores: int
) -> Float[Array, "b t h d"]:
    """Attention with at most about `scores` scores, over all heads and images, at a time."""
    b, t, h, d = q.shape
    rows = min(t, max(16, scores // (b * h * k.shape[1])))
    chunks = -(-t // rows)
    rows = -(-t // chunks)  # even chunks
    k, v = (x.transpose(0, 2, 1, 3).reshape(b * h, -1, d) for x in (k, v))
    part = functools.partial(_chunk, k=k, v=v)
    q = jnp.pad(q, ((0, 0), (0, chunks * rows - t), (0, 0), (0, 0)))
    q = q.transpose(0, 2, 1, 3).reshape(b * h, chunks, rows, d).transpose(1, 0, 2, 3)
    out = part(q[0])[None] if chunks == 1 else jax.lax.map(jax.checkpoint(part), q)
    return out.transpose(1, 0, 2, 3).reshape(b, h, -1, d).transpose(0, 2, 1, 3)[:, :t]


def _chunk(q: Float[Array, "g r d"], k: Float[Array, "g s d"], v: Float[Array, "g s d"]) -> Float[Array, "g r d"]:
    """Some of the queries against all keys; an image's heads lie side by side in the first axis."""
    scores = jnp.einsum("grd,gsd->grs", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    return jnp.einsum("grs,gsd->grd", jax.nn.softmax(scores).astype(v.dtype), v)


def _flash(q: Array, k: Array) -> bool:
    """Whether cuDNN takes it: a GPU, half precision, heads of at most 128 numbers."""
    half = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] <= 128 and q.shape[-1] % 8 == 0
    return half and q.shape[1] * k.shape[1] >= FLASH_SCORES and jax.default_backend() == "gpu"
