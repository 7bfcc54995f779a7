"""FocalNet (Yang et al. 2022, "Focal Modulation Networks"), module names as in timm."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.errors import UserError
from jaxmed.nn import (
    TRANSFORMER_INIT,
    DepthwiseConv,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    add_branch,
    drop_path_rates,
    gelu,
    global_avg_pool,
)
from jaxmed.registry import register

EPS = 1e-5


class FocalModulation(nnx.Module):
    """y = proj(q * h(sum over levels of gate_l * context_l)) (section 3.2, eqs. 4 to 6).

    One linear layer `f` gives the query, the first context and a gate per position and level. Context l is the GELU of a
    depthwise convolution, 3 + 2 l wide, of context l - 1; the last one is the GELU of the mean of the widest over the map.
    """

    def __init__(self, dim: int, levels: int, *, dtype, rngs: nnx.Rngs):
        shape = dict(dtype=dtype, rngs=rngs)
        self.f = Linear(dim, 2 * dim + levels + 1, **TRANSFORMER_INIT, **shape)
        self.h, self.proj = (Linear(dim, dim, **TRANSFORMER_INIT, **shape) for _ in range(2))
        options = dict(bias=False, kernel_init=TRANSFORMER_INIT["kernel_init"], **shape)
        self.focal_layers = nnx.List([DepthwiseConv(dim, 3 + 2 * k, padding=1 + k, **options) for k in range(levels)])

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        query, context, gates = jnp.split(self.f(x), (x.shape[-1], 2 * x.shape[-1]), -1)
        total = 0
        for k, layer in enumerate(self.focal_layers):
            context = gelu(layer(context))
            total = total + context * gates[..., k : k + 1]
        everywhere = gelu(jnp.mean(context, (1, 2), keepdims=True))
        return self.proj(query * self.h(total + everywhere * gates[..., -1:]))


class Block(nnx.Module):
    """Focal modulation, then the MLP, each behind a norm and around a shortcut."""

    def __init__(self, dim: int, levels: int, drop: float, *, dtype, rngs: nnx.Rngs):
        self.drop = drop
        self.norm1, self.norm2 = (LayerNorm(dim, eps=EPS, dtype=dtype) for _ in range(2))
        self.modulation = FocalModulation(dim, levels, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(dim, 4 * dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h w c"]:
        x = add_branch(x, self.modulation(self.norm1(x)), self.drop, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), self.drop, train, rngs)


class Stage(nnx.Module):
    """Halve the map (not in the first stage), then the blocks."""

    def __init__(
        self, in_channels: int, dim: int, downsample: bool, levels: int, rates: list[float], *, dtype, rngs: nnx.Rngs
    ):
        if downsample:
            self.downsample = PatchEmbed(in_channels, dim, 2, 2, eps=EPS, **TRANSFORMER_INIT, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([Block(dim, levels, rate, dtype=dtype, rngs=rngs) for rate in rates])

    def __call__(self, x: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h2 w2 d"]:
        x = self.downsample(x) if hasattr(self, "downsample") else x
        for block in self.blocks:
            x = block(x, train, rngs)
        return x


@register("focalnet_tiny_srf")
@register("focalnet_tiny_lrf", levels=3)
@register("focalnet_small_srf", depths=(2, 2, 18, 2))
@register("focalnet_small_lrf", depths=(2, 2, 18, 2), levels=3)
@register("focalnet_base_srf", depths=(2, 2, 18, 2), dims=(128, 256, 512, 1024))
@register("focalnet_base_lrf", depths=(2, 2, 18, 2), dims=(128, 256, 512, 1024), levels=3)
class FocalNet(Backbone):
    """Four stages of focal modulation with 2 focal `levels` (srf: windows of 3 and 5) or 3 (lrf: and 7).

    An image side of n gives maps of floor(n / 4), then the half, rounded down: positions that do not fill a patch are
    dropped, as in the released networks. The smallest side is 32.
    """

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (2, 2, 6, 2),
        dims: tuple[int, ...] = (96, 192, 384, 768), levels: int = 2, in_channels: int = 3, drop_path: float = 0.0,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.tap_channels = num_classes, tuple(dims)
        shape = dict(dtype=dtype, rngs=rngs)
        self.stem = PatchEmbed(in_channels, dims[0], 4, 4, eps=EPS, **TRANSFORMER_INIT, **shape)
        self.layers = nnx.List([
            Stage(dims[max(k - 1, 0)], dims[k], k > 0, levels, rates, **shape)
            for k, rates in enumerate(drop_path_rates(drop_path, depths))
        ])
        self.norm = LayerNorm(dims[-1], eps=EPS, dtype=dtype)
        if num_classes is not None:
            self.head = Linear(dims[-1], num_classes, **TRANSFORMER_INIT, **shape)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """The four stages' outputs; the last one before the final norm."""
        if min(image.shape[1:3]) < 32:
            raise UserError(f"FocalNet takes images of 32 x 32 or more, got {list(image.shape)}: resize them")
        x, maps = self.stem(image), []
        for stage in self.layers:
            x = stage(x, train, rngs)
            maps.append(x)
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the normalised last map."""
        return global_avg_pool(self.norm(self.features(image, train, rngs)[-1]))

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head(features)
