"""CSWin Transformer (Dong et al. 2022, "CSWin Transformer: A General Vision Transformer Backbone with Cross-Shaped Windows"),
module names as in microsoft/CSWin-Transformer."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.errors import UserError
from jaxmed.nn import (
    TRANSFORMER_INIT,
    Conv,
    DepthwiseConv,
    LayerNorm,
    Linear,
    Mlp,
    add_branch,
    attend,
    drop_path_rates,
    global_avg_pool,
    split_heads,
    torch_uniform,
)
from jaxmed.ops.windows import window_merge, window_partition
from jaxmed.registry import register

EPS = 1e-5


class StripeAttention(nnx.Module):
    """Self-attention inside each window plus LePE, the paper's "locally-enhanced positional encoding".

    LePE is a 3x3 depthwise convolution of the values. It sees one window at a time: zeros stand for pixels beyond the border.
    """

    def __init__(self, dim: int, num_heads: int, window: tuple[int, int], *, dtype, rngs: nnx.Rngs):
        self.num_heads, self.window = num_heads, window
        self.get_v = DepthwiseConv(dim, 3, padding=1, kernel_init=torch_uniform(), dtype=dtype, rngs=rngs)

    def __call__(self, qkv: Float[Array, "b h w c3"]) -> Float[Array, "b h w c"]:
        """Query, key and value side by side in the channels -> the attended values."""
        q, k, v = split_heads(window_partition(qkv, self.window), 3, self.num_heads)
        maps = v.reshape(-1, *self.window, qkv.shape[-1] // 3)
        out = attend(q, k, v) + self.get_v(maps).reshape(q.shape[0], q.shape[1], -1)
        return window_merge(out, self.window, *qkv.shape[1:3])


class CSWinBlock(nnx.Module):
    """Cross-shaped window attention and an MLP, each normalised before and added to its input.

    Half of the channels (and heads) attends within columns that are `stripe` wide, the other half within such rows. Where
    one stripe is the whole map there is a single branch with all channels.
    """

    def __init__(self, dim: int, num_heads: int, size: int, stripe: int, rate: float, *, dtype, rngs: nnx.Rngs):
        self.rate = rate
        windows = [(size, size)] if stripe == size else [(size, stripe), (stripe, size)]
        parts, options = len(windows), dict(dtype=dtype, rngs=rngs)
        self.norm1 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.qkv = Linear(dim, 3 * dim, **TRANSFORMER_INIT, **options)
        self.attns = nnx.List([StripeAttention(dim // parts, num_heads // parts, window, **options) for window in windows])
        self.proj = Linear(dim, dim, **TRANSFORMER_INIT, **options)
        self.norm2 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.mlp = Mlp(dim, 4 * dim, **options)

    def __call__(self, x: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h w c"]:
        x = add_branch(x, self.attention(self.norm1(x)), self.rate, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), self.rate, train, rngs)

    def attention(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Each branch on its share of the channels of query, key and value; the results side by side."""
        place, parts = x.shape[:3], len(self.attns)
        qkv = self.qkv(x).reshape(*place, 3, parts, -1)
        branches = [attn(qkv[..., i, :].reshape(*place, -1)) for i, attn in enumerate(self.attns)]
        return self.proj(jnp.concatenate(branches, -1))


class Merge(nnx.Module):
    """Between stages: 3x3 convolution with stride 2, norm."""

    def __init__(self, dim: int, out: int, *, dtype, rngs: nnx.Rngs):
        self.conv = Conv(dim, out, 3, stride=2, padding=1, kernel_init=torch_uniform(), dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(out, eps=EPS, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        return self.norm(self.conv(x))


@register("cswin_tiny_224", depths=(1, 2, 21, 1), dims=(64, 128, 256, 512), num_heads=(2, 4, 8, 16))
@register("cswin_small_224", depths=(2, 4, 32, 2), dims=(64, 128, 256, 512), num_heads=(2, 4, 8, 16))
@register("cswin_base_224", depths=(2, 4, 32, 2), dims=(96, 192, 384, 768), num_heads=(4, 8, 16, 32))
@register("cswin_large_224", depths=(2, 4, 32, 2), dims=(144, 288, 576, 1152), num_heads=(6, 12, 24, 24))
class CSWinTransformer(Backbone):
    """Four stages of cross-shaped window blocks on square images of `img_size`.

    `window_size` is the stripe width of the first three stages and divides their maps (img_size / 4, / 8 and / 16); the last
    stage attends over its whole map.
    """

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (1, 2, 21, 1),
        dims: tuple[int, ...] = (64, 128, 256, 512), num_heads: tuple[int, ...] = (2, 4, 8, 16),
        window_size: tuple[int, int, int] = (1, 2, 7), in_channels: int = 3, img_size: int = 224, drop_path: float = 0.0,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.img_size, self.tap_channels = num_classes, img_size, tuple(dims)
        options = dict(dtype=dtype, rngs=rngs)
        sizes = map_sizes(img_size, window_size)
        stripes, rates = (*window_size, sizes[-1]), drop_path_rates(drop_path, depths)
        stem = Conv(in_channels, dims[0], 7, stride=4, padding=2, kernel_init=torch_uniform(), **options)
        self.stage1_conv_embed = nnx.Dict({"0": stem, "2": LayerNorm(dims[0], eps=EPS, dtype=dtype)})
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            nnx.List([CSWinBlock(dims[k], num_heads[k], sizes[k], stripes[k], rate, **options) for rate in rates[k]])
            for k in range(4)
        )
        self.merge1, self.merge2, self.merge3 = (Merge(dims[k], dims[k + 1], **options) for k in range(3))
        self.norm = LayerNorm(dims[-1], eps=EPS, dtype=dtype)
        if num_classes is not None:
            self.head = Linear(dims[-1], num_classes, **TRANSFORMER_INIT, **options)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the four stages, before the final norm."""
        if image.shape[1:3] != (self.img_size, self.img_size):
            raise UserError(
                f"this CSWin was built for {self.img_size} x {self.img_size} images, got {image.shape[1]} x {image.shape[2]}: "
                "resize them, or build the network with img_size="
            )
        embed, stages = self.stage1_conv_embed, (self.stage1, self.stage2, self.stage3, self.stage4)
        x, maps = embed["2"](embed["0"](image)), []
        for stage, merge in zip(stages, (None, self.merge1, self.merge2, self.merge3), strict=True):
            x = merge(x) if merge else x
            for block in stage:
                x = block(x, train, rngs)
            maps.append(x)
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean over the normalised last map."""
        return global_avg_pool(self.norm(self.features(image, train, rngs)[-1]))

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head(features)


def map_sizes(img_size: int, stripes: tuple[int, int, int]) -> list[int]:
    """Rows of the four stages' maps; a UserError where the stripes do not tile the first three."""
    sizes = [img_size // stride for stride in (4, 8, 16, 32)]
    if img_size % 32 or any(size % stripe for size, stripe in zip(sizes[:3], stripes, strict=True)):
        raise UserError(
            f"CSWin cannot cut img_size={img_size} into stripes: img_size must be a multiple of 32, and the stripes of stages "
            f"1 to 3, window_size={stripes}, must divide the rows of their maps, {img_size / 4:g}, {img_size / 8:g} and "
            f"{img_size / 16:g}"
        )
    return sizes
