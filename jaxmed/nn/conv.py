"""2-D convolution with torch's explicit padding."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn.init import Initializer, kaiming_normal, torch_uniform
from jaxmed.nn.strips import largest_divisor, sum_over_strips, window_slice

Pair = int | tuple[int, int]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
SMALL_MAP = 16  # output positions
NARROW = 8  # channels of a group; from 16 on XLA's grouped convolution is level
GROUPED_WIDTH = 64  # channels of the groups that are treated as one dense kernel


def pair(value: Pair) -> tuple[int, int]:
    """3 -> (3, 3)."""
    return (value, value) if isinstance(value, int) else tuple(value)


def conv2d(
    x: Float[Array, "b h w i"], kernel: Float[Array, "kh kw _ o"],
    stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1,
) -> Float[Array, "b h2 w2 o"]:
    """Cross-correlation; `padding` zeros on both sides of each axis, as torch counts them.

    GPU and TPU run `lax.conv`. On CPU the gradient of the kernel is a sum of matrix products over strips, and an ungrouped 1x1
    convolution is a matrix product, because XLA's own forms are slow there (reverse mode only: no `jax.jvp`).
    """
    return _conv(x, kernel, pair(stride), pair(padding), pair(dilation), groups)


def lax_conv(x: Array, kernel: Array, stride, padding, dilation, groups: int = 1) -> Array:
    """XLA's convolution (cuDNN on GPU)."""
    return jax.lax.conv_general_dilated(
        x, kernel, stride, [(p, p) for p in padding], rhs_dilation=dilation,
        dimension_numbers=DIMENSIONS, feature_group_count=groups,
    )


def cpu_conv(x: Array, kernel: Array, stride, padding, dilation, groups: int = 1) -> Array:
    """The same; an ungrouped 1x1 kernel, or a map of few positions, becomes a matrix product, narrow groups a dense kernel.

    XLA's convolution falls to a very slow loop on some small maps: 2x2x512 with a 3x3 kernel, batch 32, took 646 ms against
    4 ms as a product; from 5 x 5 on the two are level.
    """
    kh, kw, channels, out = kernel.shape
    if groups > 1 and channels <= NARROW:
        return blockwise_conv(x, kernel, stride, padding, dilation, groups)
    padded = [n + 2 * p for n, p in zip(x.shape[1:3], padding, strict=True)]
    size = [(n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(padded, (kh, kw), dilation, stride, strict=True)]
    if groups > 1 or ((kh, kw) != (1, 1) and size[0] * size[1] > SMALL_MAP):
        return lax_conv(x, kernel, stride, padding, dilation, groups)
    x = jnp.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0)))
    taps = [(i * dilation[0], j * dilation[1]) for i in range(kh) for j in range(kw)]
    windows = jnp.concatenate([window_slice(x, tap, size, stride) for tap in taps], -1)
    product = jnp.dot(windows.reshape(-1, kh * kw * channels), kernel.reshape(-1, out))
    return product.reshape(x.shape[0], *size, out)


def blockwise_conv(x: Array, kernel: Array, stride, padding, dilation, groups: int) -> Array:
    """Several narrow groups at once as one dense kernel with zeros off the diagonal.

    XLA's grouped convolution is slow for narrow groups: 32 of 4 channels, 56 x 56 map, batch 4, took 29 ms against 13 ms here.
    """
    kh, kw, width, out = kernel.shape
    together = largest_divisor(groups, max(1, GROUPED_WIDTH // width))
    chunks = groups // together
    own = kernel.reshape(kh, kw, width, chunks, together, out // groups)
    dense = jnp.einsum("abwntv,st->nabswtv", own, jnp.eye(together, dtype=kernel.dtype))
    dense = dense.reshape(chunks, kh, kw, together * width, -1)
    parts = jnp.split(x, chunks, -1)
    return jnp.concatenate([lax_conv(parts[n], dense[n], stride, padding, dilation) for n in range(chunks)], -1)


def lax_kernel_gradient(x: Array, g: Array, kernel: Array, stride, padding, dilation, groups: int = 1) -> Array:
    """XLA's own form: a convolution whose window is the whole map."""
    return jax.vjp(lambda k: lax_conv(x, k, stride, padding, dilation, groups), kernel)[1](g)[0]


def cpu_kernel_gradient(x: Array, g: Array, kernel: Array, stride, padding, dilation, groups: int = 1) -> Array:
    """Each strip of the map: its windows side by side, [positions, kh * kw * i], times the gradient, [positions, o]."""
    kh, kw = kernel.shape[:2]
    if groups > 1:
        return grouped_kernel_gradient(x, g, kernel, stride, padding, dilation, groups)
    if (kh, kw) == (1, 1) and padding == (0, 0):
        return _product(window_slice(x, (0, 0), g.shape[1:3], stride), g).reshape(kernel.shape).astype(kernel.dtype)
    taps = [(i * dilation[0], j * dilation[1]) for i in range(kh) for j in range(kw)]

    def body(xs: Array, gs: Array) -> Array:
        windows = jnp.concatenate([window_slice(xs, tap, gs.shape[1:3], stride) for tap in taps], -1)
        return _rows_product(gs, windows)  # [o, kh * kw * i]: the narrow side first, see _product

    reach = tuple((k - 1) * d + 1 for k, d in zip((kh, kw), dilation, strict=True))
    total = sum_over_strips(x, g, reach, stride, padding, body)
    return total.T.reshape(kernel.shape).astype(kernel.dtype)


def grouped_kernel_gradient(x: Array, g: Array, kernel: Array, stride, padding, dilation, groups: int) -> Array:
    """The same for groups: several groups at once as if dense, of which only the blocks on the diagonal are kept.

    XLA's own form took 9.1 s for 32 groups of 4 channels on a 56 x 56 map, batch 4, where the forward pass took 0.06 s.
    """
    (kh, kw, width, out), together = kernel.shape, largest_divisor(groups, max(1, GROUPED_WIDTH // kernel.shape[2]))
    chunks, wide = groups // together, out // groups
    taps = [(i * dilation[0], j * dilation[1]) for i in range(kh) for j in range(kw)]

    def body(xs: Array, gs: Array) -> Array:
        windows = jnp.stack([window_slice(xs, tap, gs.shape[1:3], stride) for tap in taps], 3)
        windows = windows.reshape(-1, len(taps), chunks, together * width)
        gs = gs.reshape(-1, chunks, together * wide)
        return jnp.einsum("pno,ptni->noti", gs, windows, preferred_element_type=jnp.float32)

    reach = tuple((k - 1) * d + 1 for k, d in zip((kh, kw), dilation, strict=True))
    total = sum_over_strips(x, g, reach, stride, padding, body)
    blocks = total.reshape(chunks, together, wide, len(taps), together, width)
    own = jnp.diagonal(blocks, axis1=1, axis2=4)  # [chunks, wide, taps, width, together]
    return jnp.transpose(own, (2, 3, 0, 4, 1)).reshape(kernel.shape).astype(kernel.dtype)


def _product(a: Array, b: Array) -> Array:
    """a^T b over all axes but the last, [m, n].

    XLA:CPU runs it at 100 GFLOP/s where m > n and at 200 where m <= n, so the narrow side goes first; the barrier keeps the
    compiler from folding the transposition back in.
    """
    if a.shape[-1] <= b.shape[-1]:
        return _rows_product(a, b)
    return jax.lax.optimization_barrier(_rows_product(b, a)).T


def _rows_product(a: Array, b: Array) -> Array:
    rows = [x.reshape(-1, x.shape[-1]) for x in (a, b)]
    return jnp.einsum("pm,pn->mn", *rows, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _conv(x: Array, kernel: Array, stride, padding, dilation, groups: int) -> Array:
    shape = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    return jax.lax.platform_dependent(
        x, kernel, cpu=functools.partial(cpu_conv, **shape), default=functools.partial(lax_conv, **shape)
    )


def _forward(x: Array, kernel: Array, *shape) -> tuple[Array, tuple[Array, Array]]:
    return _conv(x, kernel, *shape), (x, kernel)


def _backward(stride, padding, dilation, groups: int, residuals: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    shape = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)

    def input_gradient(conv):
        return lambda x, kernel, g: jax.vjp(lambda x: conv(x, kernel, **shape), x)[1](g)[0]

    dx = jax.lax.platform_dependent(x, kernel, g, cpu=input_gradient(cpu_conv), default=input_gradient(lax_conv))
    dk = jax.lax.platform_dependent(
        x, g, kernel, cpu=functools.partial(cpu_kernel_gradient, **shape),
        default=functools.partial(lax_kernel_gradient, **shape),
    )
    return dx, dk


_conv.defvjp(_forward, _backward)


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
        self.in_channels, self.dtype = in_channels, jnp.dtype(dtype)
        shape = (*pair(kernel_size), in_channels // groups, out_channels)
        self.kernel = nnx.Param((kernel_init or kaiming_normal())(rngs.params(), shape, groups))
        if bias:
            fan_in = shape[0] * shape[1] * shape[2]
            self.bias = nnx.Param((bias_init or torch_uniform(fan_in))(rngs.params(), (out_channels,)))

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        if x.ndim != 4 or x.shape[-1] != self.in_channels:
            raise UserError(
                f"this convolution takes [batch, height, width, {self.in_channels}], got {list(x.shape)}: channels come last; "
                "repeat a gray image three times, or build the network with in_channels="
            )
        y = conv2d(
            x.astype(self.dtype), self.weight().astype(self.dtype),
            self.stride, self.padding, self.dilation, self.groups,
        )
        return y + self.bias.get_value().astype(self.dtype).reshape(1, 1, 1, -1) if hasattr(self, "bias") else y

    def weight(self) -> Float[Array, "kh kw _ o"]:
        """The kernel that is used."""
        return self.kernel.get_value()
