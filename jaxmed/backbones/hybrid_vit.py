"""Vision Transformer on the map of a ResNet (Dosovitskiy et al. 2021, section 3.1, "Hybrid architecture"): R50+ViT-B/16."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.resnet_v2 import ResNetV2
from jaxmed.errors import UserError
from jaxmed.nn import TRANSFORMER_INIT, Conv, LayerNorm, Linear, Mlp, add_branch, attend, dropout, gelu, trunc_normal

EPS = 1e-6
STRIDE = 16


class SplitAttention(nnx.Module):
    """Multi-head self-attention with a linear layer each for query, key and value, as Google's weights have them."""

    def __init__(self, dim: int, num_heads: int, *, dtype, rngs: nnx.Rngs):
        self.num_heads = num_heads
        options = TRANSFORMER_INIT | dict(dtype=dtype, rngs=rngs)
        self.query, self.key, self.value, self.out = (Linear(dim, dim, **options) for _ in range(4))

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        q, k, v = (layer(x).reshape(*x.shape[:2], self.num_heads, -1) for layer in (self.query, self.key, self.value))
        return self.out(attend(q, k, v))


class Block(nnx.Module):
    """Attention and a two-layer network (dropout after both of its layers), each after a norm and around a shortcut."""

    def __init__(self, dim: int, num_heads: int, rate: float, *, dtype, rngs: nnx.Rngs):
        self.rate, shape = rate, dict(dtype=dtype, rngs=rngs)
        self.norm1 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.attn = SplitAttention(dim, num_heads, **shape)
        self.norm2 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.mlp = Mlp(dim, 4 * dim, **shape)

    def __call__(self, x: Float[Array, "b t c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Float[Array, "b t c"]:
        x = add_branch(x, self.attn(self.norm1(x)), 0.0, train, rngs)
        hidden = dropout(gelu(self.mlp.fc1(self.norm2(x))), self.rate, train, rngs)
        return add_branch(x, dropout(self.mlp.fc2(hidden), self.rate, train, rngs), 0.0, train, rngs)


class HybridViT(nnx.Module):
    """ResNetV2, one token for each position of its last map, learned positions (no class token), `depth` blocks, a norm.

    maps(image [b, img_size, img_size, c]) -> the ResNet's maps at strides 2, 4, 8 and the tokens as a map at stride 16.
    Raises UserError for an img_size that is no multiple of 16, and for images of another size.
    """

    def __init__(
        self, *, img_size: int = 224, base_width: int = 64, depths: Sequence[int] = (3, 4, 9), dim: int = 768, depth: int = 12,
        num_heads: int = 12, dropout: float = 0.1, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        if img_size % STRIDE:
            raise UserError(f"img_size={img_size} is not a multiple of {STRIDE}")
        self.img_size, self.rate, shape = img_size, dropout, dict(dtype=dtype, rngs=rngs)
        self.resnet = ResNetV2(base_width=base_width, depths=depths, in_channels=in_channels, **shape)
        self.channels = (*self.resnet.channels[:-1], dim)
        self.patch_embed = Conv(self.resnet.channels[-1], dim, 1, **shape)
        self.pos_embed = nnx.Param(trunc_normal(0.02)(rngs.params(), (1, (img_size // STRIDE) ** 2, dim)))
        self.blocks = nnx.List([Block(dim, num_heads, dropout, **shape) for _ in range(depth)])
        self.norm = LayerNorm(dim, eps=EPS, dtype=dtype)

    def maps(
        self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> list[Float[Array, "b h2 w2 _"]]:
        """Four maps, the finest first."""
        if image.shape[1:3] != (self.img_size, self.img_size):
            raise UserError(
                f"this network takes {self.img_size} x {self.img_size} pixels, got {image.shape[1]} x {image.shape[2]}: "
                "resize the images (config.data.size) or build it with img_size="
            )
        *skips, last = self.resnet.maps(image)
        x = self.patch_embed(last)
        (b, h, w, d), positions = x.shape, self.pos_embed.get_value().astype(x.dtype)
        x = dropout(x.reshape(b, h * w, d) + positions, self.rate, train, rngs)
        for block in self.blocks:
            x = block(x, train, rngs)
        return [*skips, self.norm(x).reshape(b, h, w, d)]
