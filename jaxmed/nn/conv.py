"""2-D convolution with torch's explicit padding."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.init import Initializer, kaiming_normal, torch_uniform
from jaxmed.nn.strips import sum_over_strips, window_slice

Pair = int | tuple[int, int]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def pair(value: Pair) -> tuple[int, int]:
    """3 -> (3, 3)."""
    return (value, value) if isinstance(value, int) else tuple(value)


def conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw _ o"],
    stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1,
) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation; `padding` zeros on both sides of each axis, as torch counts them.

    GPU and TPU run `lax.conv`. On CPU the gradient of an ungrouped kernel is a sum of matrix products over strips, and a 1x1
    convolution is a matrix product, because XLA's own forms are slow there (reverse mode only: no `jax.jvp`).
    """
    options = (pair(stride), pair(padding), pair(dilation))
    return lax_conv(x, kernel, *options, groups) if groups > 1 else _dense_conv(x, kernel, *options)


def lax_conv(x: Array, kernel: Array, stride, padding, dilation, groups: int = 1) -> Array:
    """XLA's convolution (cuDNN on GPU)."""
    return jax.lax.conv_general_dilated(
        x, kernel, stride, [(p, p) for p in padding], rhs_dilation=dilation,
        dimension_numbers=DIMENSIONS, feature_group_count=groups,
    )


def cpu_conv(x: Array, kernel: Array, stride, padding, dilation) -> Array:
    """The same; a 1x1 kernel becomes a matrix product."""
    if kernel.shape[:2] != (1, 1) or padding != (0, 0):
        return lax_conv(x, kernel, stride, padding, dilation)
    x = x[:, :: stride[0], :: stride[1]]
    return jnp.dot(x.reshape(-1, x.shape[3]), kernel[0, 0]).reshape(*x.shape[:3], -1)


def lax_kernel_gradient(x: Array, g: Array, kernel: Array, stride, padding, dilation) -> Array:
    """XLA's own form: a convolution whose window is the whole map."""
    return jax.vjp(lambda k: lax_conv(x, k, stride, padding, dilation), kernel)[1](g)[0]


def cpu_kernel_gradient(x: Array, g: Array, kernel: Array, stride, padding, dilation) -> Array:
    """Each strip of the map: its windows side by side, [positions, kh * kw * i], times the gradient, [positions, o]."""
    kh, kw, *_ = kernel.shape
    taps = [(i * dilation[0], j * dilation[1]) for i in range(kh) for j in range(kw)]

    def body(xs: Array, gs: Array) -> Array:
        size, out = gs.shape[1:3], gs.shape[3]
        windows = jnp.concatenate([window_slice(xs, tap, size, stride) for tap in taps], -1)
        # this order of the operands runs twice as fast as the other
        return jnp.einsum(
            "po,pk->ok", gs.reshape(-1, out), windows.reshape(-1, kernel.size // out), preferred_element_type=jnp.float32
        )

    reach = tuple((k - 1) * d + 1 for k, d in zip((kh, kw), dilation, strict=True))
    total = sum_over_strips(x, g, reach, stride, padding, body)
    return total.T.reshape(kernel.shape).astype(kernel.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _dense_conv(x: Array, kernel: Array, stride, padding, dilation) -> Array:
    shape = dict(stride=stride, padding=padding, dilation=dilation)
    return jax.lax.platform_dependent(
        x, kernel, cpu=functools.partial(cpu_conv, **shape), default=functools.partial(lax_conv, **shape)
    )


def _forward(x: Array, kernel: Array, *shape) -> tuple[Array, tuple[Array, Array]]:
    return _dense_conv(x, kernel, *shape), (x, kernel)


def _backward(stride, padding, dilation, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    shape = dict(stride=stride, padding=padding, dilation=dilation)

    def input_gradient(conv):
        return lambda x, kernel, g: jax.vjp(lambda x: conv(x, kernel, **shape), x)[1](g)[0]

    dx = jax.lax.platform_dependent(x, kernel, g, cpu=input_gradient(cpu_conv), default=input_gradient(lax_conv))
    dk = jax.lax.platform_dependent(
        x, g, kernel, cpu=functools.partial(cpu_kernel_gradient, **shape),
        default=functools.partial(lax_kernel_gradient, **shape),
    )
    return dx, dk


_dense_conv.defvjp(_forward, _backward)


class Conv(nnx.Module):
    """Convolution, kernel [kh, kw, in / groups, out], optional bias [out]; parameters float32, computes in `dtype`.

    `kernel_init` defaults to kaiming_normal("fan_out"), the choice of torchvision's and timm's networks.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, *, stride: Pair = 1, padding: Pair = 0,
        dilation: Pair = 1, groups: int = 1, bias: bool = True, kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.stride, self.padding, self.dilation, self.groups = pair(stride), pair(padding), pair(dilation), groups
        self.dtype = jnp.dtype(dtype)
        shape = (*pair(kernel_size), in_channels // groups, out_channels)
        self.kernel = nnx.Param((kernel_init or kaiming_normal())(rngs.params(), shape, groups))
        if bias:
            fan_in = shape[0] * shape[1] * shape[2]
            self.bias = nnx.Param((bias_init or torch_uniform(fan_in))(rngs.params(), (out_channels,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        y = conv2d(
            x.astype(self.dtype), self.kernel.get_value().astype(self.dtype),
            self.stride, self.padding, self.dilation, self.groups,
        )
        return y + self.bias.get_value().astype(self.dtype).reshape(1, 1, 1, -1) if hasattr(self, "bias") else y
