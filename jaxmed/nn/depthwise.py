"""Depthwise convolution, one function that lowers by platform."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Pair, lax_conv, pair
from jaxmed.nn.init import Initializer, kaiming_normal, torch_uniform
from jaxmed.nn.strips import sum_over_strips, window_slice


def depthwise_conv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw 1 c"], stride: Pair = 1, padding: Pair = 0
) -> Float[Array, "b h2 w2 c"]:
    """Each channel with its own kh x kw kernel; zero padding as torch counts it.

    GPU and TPU run `lax.conv`; CPU sums shifted slices times taps, forward and backward (reverse mode only: no `jax.jvp`).
    """
    return _depthwise(x, kernel, pair(stride), pair(padding))


def lax_depthwise(x: Array, kernel: Array, stride, padding) -> Array:
    """XLA's grouped convolution (cuDNN on GPU)."""
    return lax_conv(x, kernel, stride, padding, (1, 1), x.shape[3])


def cpu_depthwise(x: Array, kernel: Array, stride, padding) -> Array:
    """Sum over the taps of a shifted slice of `x` times the tap."""
    (top, left), (kh, kw) = padding, kernel.shape[:2]
    x = jnp.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    size = tuple((n - k) // s + 1 for n, k, s in zip(x.shape[1:3], (kh, kw), stride, strict=True))
    return sum(window_slice(x, (i, j), size, stride) * _tap(kernel, i, j) for i in range(kh) for j in range(kw))


def lax_gradients(x: Array, kernel: Array, g: Array, stride, padding) -> tuple[Array, Array]:
    """Gradients of `x` and `kernel` from XLA's grouped convolution."""
    return jax.vjp(lambda x, k: lax_depthwise(x, k, stride, padding), x, kernel)[1](g)


def cpu_gradients(x: Array, kernel: Array, g: Array, stride, padding) -> tuple[Array, Array]:
    """Gradients of `x`, from shifted slices of `g`, and of `kernel`, strip by strip."""
    return _input_gradient(g, kernel, x.shape, stride, padding), _kernel_gradient(x, g, kernel, stride, padding)


def _input_gradient(g: Array, kernel: Array, shape: tuple[int, ...], stride, padding) -> Array:
    """Pixels with the same remainder modulo the stride use the same taps; each such set is a sum of shifted slices."""
    (kh, kw), (sh, sw) = kernel.shape[:2], stride
    size = (-(-shape[1] // sh), -(-shape[2] // sw))
    wide = jnp.pad(g, ((0, 0), (kh, kh + size[0]), (kw, kw + size[1]), (0, 0)))

    def pixels(a: int, b: int) -> Array:
        rows = [(i, (a + padding[0] - i) // sh + kh) for i in range(kh) if (a + padding[0] - i) % sh == 0]
        columns = [(j, (b + padding[1] - j) // sw + kw) for j in range(kw) if (b + padding[1] - j) % sw == 0]
        parts = [
            window_slice(wide, (row, column), size, (1, 1)) * _tap(kernel, i, j) for i, row in rows for j, column in columns
        ]
        return sum(parts) if parts else jnp.zeros((g.shape[0], *size, g.shape[3]), g.dtype)

    dx = jnp.stack([jnp.stack([pixels(a, b) for b in range(sw)], 3) for a in range(sh)], 2)
    return dx.reshape(g.shape[0], size[0] * sh, size[1] * sw, g.shape[3])[:, : shape[1], : shape[2]]


def _kernel_gradient(x: Array, g: Array, kernel: Array, stride, padding) -> Array:
    kh, kw = kernel.shape[:2]

    def body(xs: Array, gs: Array) -> Array:
        shifted = [window_slice(xs, (i, j), gs.shape[1:3], stride) for i in range(kh) for j in range(kw)]
        return jnp.stack([jnp.sum(part * gs, (0, 1, 2), dtype=jnp.float32) for part in shifted])

    total = sum_over_strips(x, g, (kh, kw), stride, padding, body)
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _tap(kernel: Array, i: int, j: int) -> Array:
    return kernel[i, j].reshape(1, 1, 1, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: Array, kernel: Array, stride, padding) -> Array:
    shape = dict(stride=stride, padding=padding)
    return jax.lax.platform_dependent(
        x, kernel, cpu=functools.partial(cpu_depthwise, **shape), default=functools.partial(lax_depthwise, **shape)
    )


def _forward(x: Array, kernel: Array, *shape) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(x, kernel, *shape), (x, kernel)


def _backward(stride, padding, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    shape = dict(stride=stride, padding=padding)
    return jax.lax.platform_dependent(
        *residuals, g, cpu=functools.partial(cpu_gradients, **shape), default=functools.partial(lax_gradients, **shape)
    )


_depthwise.defvjp(_forward, _backward)


class DepthwiseConv(nnx.Module):
    """Depthwise convolution, kernel [kh, kw, 1, channels], optional bias; parameters float32, computes in `dtype`."""

    def __init__(
        self, channels: int, kernel_size: Pair, *, stride: Pair = 1, padding: Pair = 0, bias: bool = True,
        kernel_init: Initializer | None = None, bias_init: Initializer | None = None,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.stride, self.padding, self.dtype = pair(stride), pair(padding), jnp.dtype(dtype)
        shape = (*pair(kernel_size), 1, channels)
        self.kernel = nnx.Param((kernel_init or kaiming_normal())(rngs.params(), shape, channels))
        if bias:
            self.bias = nnx.Param((bias_init or torch_uniform(shape[0] * shape[1]))(rngs.params(), (channels,)))

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        kernel = self.kernel.get_value().astype(self.dtype)
        y = depthwise_conv(x.astype(self.dtype), kernel, self.stride, self.padding)
        return y + self.bias.get_value().astype(self.dtype).reshape(1, 1, 1, -1) if hasattr(self, "bias") else y
