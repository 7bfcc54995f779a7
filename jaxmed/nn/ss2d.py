"""The two-dimensional selective scan of VMamba (Liu et al. 2024) and the block that MedMamba builds from it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv import Conv
from jaxmed.nn.depthwise import DepthwiseConv
from jaxmed.nn.drop_path import drop_path
from jaxmed.nn.init import draw, normal, ones, torch_uniform, trunc_normal
from jaxmed.nn.linear import Linear
from jaxmed.nn.norm import BatchNorm, LayerNorm
from jaxmed.nn.residual import computed_once
from jaxmed.ops.scan2d import by_columns, by_rows, merge
from jaxmed.ops.selective_scan import selective_scan

EPS = 1e-5
DIRECTIONS = 4  # by rows, by columns, and both from the end
DT_RANGE = (0.001, 0.1)  # step sizes at the start


class SS2D(nnx.Module):
    """Every pixel sees all others: four selective scans over the map, summed, normed and gated. [b, h, w, d] -> the same.

    Inside 2 d channels; B, C and the rank-(d / 16) input of the step size are one product with the row-major map for all four
    directions, columns are one transposition of it, and a direction from the end is a reversed scan, not a flipped map.
    Parameters keep the published names and layouts. Directions: rows, columns, rows from the end, columns from the end.
    """

    def __init__(self, dim: int, *, d_state: int = 16, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        inner, rank = 2 * dim, math.ceil(dim / 16)
        self.rank, self.d_state, self.dtype = rank, d_state, jnp.dtype(dtype)
        linear = dict(bias=False, kernel_init=trunc_normal(0.02), dtype=dtype, rngs=rngs)
        self.in_proj = Linear(dim, 2 * inner, **linear)
        # the release's fan-out of a depthwise kernel leaves the groups out, so these weights start small
        self.conv2d = DepthwiseConv(inner, 3, padding=1, kernel_init=normal((2 / (9 * inner)) ** 0.5), dtype=dtype, rngs=rngs)
        uniform = torch_uniform(inner), torch_uniform(rank)
        self.x_proj_weight = nnx.Param(uniform[0](rngs.params(), (DIRECTIONS, rank + 2 * d_state, inner)))
        self.dt_projs_weight = nnx.Param(uniform[1](rngs.params(), (DIRECTIONS, inner, rank)))
        self.dt_projs_bias = nnx.Param(step_bias(rngs.params(), (DIRECTIONS, inner)))
        self.A_logs = nnx.Param(jnp.tile(jnp.log(jnp.arange(1, d_state + 1, dtype=jnp.float32))[None], (DIRECTIONS * inner, 1)))
        self.Ds = nnx.Param(ones(None, (DIRECTIONS * inner,)))
        self.out_norm = LayerNorm(inner, eps=EPS, dtype=dtype)
        self.out_proj = Linear(inner, dim, **linear)

    def __call__(self, x: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        x, gate = jnp.split(self.in_proj(x), 2, -1)
        x = jax.nn.silu(self.conv2d(x))
        return self.out_proj(self.out_norm(self.scans(x)) * jax.nn.silu(gate))

    def scans(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The sum of the four directions, float32."""
        weight = self.x_proj_weight.get_value().astype(self.dtype)
        projected = jnp.dot(x, weight.reshape(-1, x.shape[-1]).T).reshape(*x.shape[:3], DIRECTIONS, -1)

        def both_ways(layout: Callable[[Array], Array], k: int) -> Array:
            u = layout(x)
            return self._scan(u, layout(projected[:, :, :, k]), k) + self._scan(u, layout(projected[:, :, :, k + 2]), k + 2)

        rows, columns = both_ways(by_rows, 0), both_ways(by_columns, 1)
        skip = jnp.sum(self.Ds.get_value().reshape(DIRECTIONS, -1), 0)
        return merge(rows, columns, *x.shape[1:3]) + skip.reshape(1, 1, 1, -1) * x.astype(rows.dtype)

    def _scan(self, u: Float[Array, "b l c"], projected: Float[Array, "b l k"], direction: int) -> Float[Array, "b l c"]:
        """One direction without its skip D u: `projected` holds the step size's input, B and C."""
        r, B, C = jnp.split(projected, (self.rank, self.rank + self.d_state), -1)
        weight = self.dt_projs_weight.get_value()[direction].astype(self.dtype)
        delta = jnp.einsum("blr,cr->blc", r, weight, preferred_element_type=jnp.float32)
        A = -jnp.exp(self.A_logs.get_value().reshape(DIRECTIONS, -1, self.d_state)[direction])
        bias = self.dt_projs_bias.get_value()[direction]
        return selective_scan(u, delta, A, B, C, delta_bias=bias, reverse=direction >= 2)


def step_bias(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """softplus^-1 of step sizes that are log-uniform in [0.001, 0.1]."""
    low, high = (math.log(x) for x in DT_RANGE)
    dt = jnp.maximum(jnp.exp(draw(jax.random.uniform, key, shape, minval=low, maxval=high)), 1e-4)
    return dt + jnp.log(-jnp.expm1(-dt))


class ConvBranch(nnx.Module):
    """Norm, 3x3, norm, ReLU, 3x3, norm, ReLU, 1x1, ReLU: it starts with a norm and ends without one, as released."""

    def __init__(self, dim: int, *, dtype, rngs: nnx.Rngs):
        options = dict(dtype=dtype, rngs=rngs)
        self.norm1, self.norm2, self.norm3 = (BatchNorm(dim, dtype=dtype) for _ in range(3))
        self.conv1 = Conv(dim, dim, 3, padding=1, **options)
        self.conv2 = Conv(dim, dim, 3, padding=1, **options)
        self.conv3 = Conv(dim, dim, 1, **options)

    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        x = self.conv1(self.norm1(x, train))
        x = self.conv2(jax.nn.relu(self.norm2(x, train)))
        return jax.nn.relu(self.conv3(jax.nn.relu(self.norm3(x, train))))


class SSConvSSM(nnx.Module):
    """MedMamba's SS-Conv-SSM block (Yue and Li 2024): half of the channels through convolutions, half through SS2D,
    interleaved again, around a shortcut. Drop path acts on the SS2D half alone, as released."""

    def __init__(
        self, dim: int, *, d_state: int = 16, drop_path: float = 0.0, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        self.rate = drop_path
        self.conv_branch = ConvBranch(dim // 2, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(dim // 2, eps=EPS, dtype=dtype)
        self.ss2d = SS2D(dim // 2, d_state=d_state, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w c"]:
        left, right = jnp.split(x, 2, -1)
        left = self.conv_branch(left, train)
        right = drop_path(self.ss2d(self.norm(right)), self.rate, train, rngs)
        return computed_once(x + jnp.stack([left, right], -1).reshape(x.shape))
