"""Swin Transformer (Liu et al. 2021), module names as in timm: a stage starts with its patch merging."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.nn import (
    TRANSFORMER_INIT,
    LayerNorm,
    Linear,
    Mlp,
    PatchEmbed,
    WindowAttention,
    add_branch,
    drop_path_rates,
    global_avg_pool,
    trunc_normal,
)
from jaxmed.ops.windows import pad_to_multiple, shift_mask, window_merge, window_partition
from jaxmed.registry import register

EPS = 1e-5
PATCH = 4


class SwinBlock(nnx.Module):
    """Window attention and a two-layer network, each after a norm and around a shortcut (section 3.2, eq. 3)."""

    def __init__(self, dim: int, num_heads: int, window_size: int, shift: int, drop_path: float, *, dtype, rngs: nnx.Rngs):
        self.window_size, self.shift, self.rate = window_size, shift, drop_path
        self.norm1 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.attn = WindowAttention(dim, num_heads, window_size, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.mlp = Mlp(dim, 4 * dim, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w c"]:
        x = add_branch(x, self.attention(self.norm1(x)), self.rate, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), self.rate, train, rngs)

    def attention(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Attention in (shifted) windows. The map is padded to whole windows; padding takes part, as in the published code."""
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window_size)
        padded = x.shape[1:3]
        shift = tuple(self.shift if n > self.window_size else 0 for n in padded)  # a single window has nothing to shift
        mask = shift_mask(*padded, self.window_size, shift) if any(shift) else None
        qkv = jnp.roll(self.attn.qkv(x), (-shift[0], -shift[1]), (1, 2)) if any(shift) else self.attn.qkv(x)
        window = (self.window_size, self.window_size)
        mixed = window_merge(self.attn.mix(window_partition(qkv, window), mask), window, *padded)
        mixed = jnp.roll(mixed, shift, (1, 2)) if any(shift) else mixed
        return self.attn.proj(mixed[:, :height, :width])


class PatchMerging(nnx.Module):
    """Each 2x2 group of tokens side by side (down the columns first), norm, linear to twice the channels."""

    def __init__(self, dim: int, *, dtype, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * dim, eps=EPS, dtype=dtype)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False, kernel_init=trunc_normal(0.02), dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        x = pad_to_multiple(x, 2)
        b, h, w, c = x.shape
        groups = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
        return self.reduction(self.norm(groups.reshape(b, h // 2, w // 2, 4 * c)))


def shifting_blocks(
    dim: int, num_heads: int, window_size: int, rates: list[float], *, dtype, rngs: nnx.Rngs
) -> nnx.List:
    """Blocks, one for each drop-path rate, that shift their windows every other time."""
    shifts = [window_size // 2 if i % 2 else 0 for i in range(len(rates))]
    shape = dict(dtype=dtype, rngs=rngs)
    return nnx.List([
        SwinBlock(dim, num_heads, window_size, *each, **shape) for each in zip(shifts, rates, strict=True)
    ])


class Stage(nnx.Module):
    """Patch merging (not in the first stage), then blocks that shift their windows every other time."""

    def __init__(
        self, dim: int, num_heads: int, window_size: int, rates: list[float], merge: bool, *, dtype, rngs: nnx.Rngs
    ):
        if merge:
            self.downsample = PatchMerging(dim // 2, dtype=dtype, rngs=rngs)
        self.blocks = shifting_blocks(dim, num_heads, window_size, rates, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h2 w2 c2"]:
        return self.mix(self.merge(x), train, rngs)

    def merge(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """The patch merging, if there is one."""
        return self.downsample(x) if hasattr(self, "downsample") else x

    def mix(
        self, x: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w c"]:
        """The blocks."""
        for block in self.blocks:
            x = block(x, train, rngs)
        return x


@register("swin_tiny_patch4_window7_224")
@register("swin_small_patch4_window7_224", depths=(2, 2, 18, 2))
@register("swin_base_patch4_window7_224", depths=(2, 2, 18, 2), dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32))
@register("swin_large_patch4_window7_224", depths=(2, 2, 18, 2), dims=(192, 384, 768, 1536), num_heads=(6, 12, 24, 48))
class Swin(Backbone):
    """Four stages of window attention; images of any size (maps are padded to whole windows, as in the published code).

    Heads are 32 channels wide; the relative position tables are those of `window_size`, whatever the image.
    """

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (2, 2, 6, 2),
        dims: tuple[int, ...] = (96, 192, 384, 768), num_heads: tuple[int, ...] = (3, 6, 12, 24), window_size: int = 7,
        drop_path: float = 0.0, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.tap_channels = num_classes, tuple(dims)
        shape = dict(dtype=dtype, rngs=rngs)
        self.patch_embed = PatchEmbed(in_channels, dims[0], PATCH, PATCH, eps=EPS, **shape)
        rates = drop_path_rates(drop_path, depths)
        self.layers = nnx.List([
            Stage(dims[s], num_heads[s], window_size, rates[s], merge=s > 0, **shape) for s in range(len(depths))
        ])
        self.norm = LayerNorm(dims[-1], eps=EPS, dtype=dtype)
        if num_classes is not None:
            head = Linear(dims[-1], num_classes, **TRANSFORMER_INIT, **shape)
            self.head = nnx.Dict({"fc": head})

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the four stages, before the final norm."""
        x, maps = self.patch_embed(pad_to_multiple(image, PATCH)), []
        for stage in self.layers:
            x = stage(x, train, rngs)
            maps.append(x)
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the normed last map."""
        return global_avg_pool(self.norm(self.features(image, train, rngs)[-1]))

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head["fc"](features)
