"""ConvNeXt (Liu et al. 2022, "A ConvNet for the 2020s"), module names as in timm."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import (
    TRANSFORMER_INIT,
    Conv,
    DepthwiseConv,
    LayerNorm,
    Linear,
    Mlp,
    add_branch,
    drop_path_rates,
    global_avg_pool,
    trunc_normal,
)
from jaxmed.registry import register

EPS = 1e-6


class Block(nnx.Module):
    """7x7 depthwise convolution, norm, two-layer network, learned scale per channel, around a shortcut (section 2.6)."""

    def __init__(self, dim: int, drop_path: float, *, dtype, rngs: nnx.Rngs):
        self.rate = drop_path
        self.conv_dw = DepthwiseConv(dim, 7, padding=3, kernel_init=trunc_normal(0.02), dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.mlp = Mlp(dim, 4 * dim, dtype=dtype, rngs=rngs)
        self.gamma = nnx.Param(jnp.full((dim,), 1e-6))

    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w c"]:
        y = self.mlp(self.norm(self.conv_dw(x)))
        return add_branch(x, y * self.gamma.get_value().astype(y.dtype).reshape(1, 1, 1, -1), self.rate, train, rngs)


class Stage(nnx.Module):
    """Norm and 2x2 convolution of stride 2 (not in the first stage), then blocks."""

    def __init__(self, in_dim: int, dim: int, rates: list[float], *, dtype, rngs: nnx.Rngs):
        shape = dict(dtype=dtype, rngs=rngs)
        conv = TRANSFORMER_INIT | shape
        shrink = [LayerNorm(in_dim, eps=EPS, dtype=dtype), Conv(in_dim, dim, 2, stride=2, **conv)] if in_dim != dim else []
        self.downsample = nnx.List(shrink)
        self.blocks = nnx.List([Block(dim, rate, **shape) for rate in rates])

    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        for layer in self.downsample:
            x = layer(x)
        for block in self.blocks:
            x = block(x, train, rngs)
        return x


@register("convnext_tiny")
@register("convnext_small", depths=(3, 3, 27, 3))
@register("convnext_base", depths=(3, 3, 27, 3), dims=(128, 256, 512, 1024))
@register("convnext_large", depths=(3, 3, 27, 3), dims=(192, 384, 768, 1536))
class ConvNeXt(Backbone):
    """4x4 stem, four stages; the normed mean of the last map is classified. Any image size; what fills no window is dropped."""

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (3, 3, 9, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768), drop_path: float = 0.0, in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.tap_channels = num_classes, tuple(dims)
        options = TRANSFORMER_INIT | dict(dtype=dtype, rngs=rngs)
        self.stem = nnx.List([Conv(in_channels, dims[0], 4, stride=4, **options), LayerNorm(dims[0], eps=EPS, dtype=dtype)])
        rates = drop_path_rates(drop_path, depths)
        self.stages = nnx.List([
            Stage(dims[max(s - 1, 0)], dims[s], rates[s], dtype=dtype, rngs=rngs) for s in range(len(depths))
        ])
        self.head = nnx.Dict({"norm": LayerNorm(dims[-1], eps=EPS)})
        if num_classes is not None:
            self.head["fc"] = Linear(dims[-1], num_classes, **options)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the four stages."""
        conv, norm = self.stem
        x, maps = norm(conv(image)), []
        for stage in self.stages:
            x = stage(x, train, rngs)
            maps.append(x)
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Normed mean of the last map."""
        return self.head["norm"](global_avg_pool(self.features(image, train, rngs)[-1]))

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head["fc"](features)
