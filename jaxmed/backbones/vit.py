"""Vision Transformer (Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words"), module names as in timm."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.errors import UserError
from jaxmed.nn import (
    TRANSFORMER_INIT,
    Attention,
    Conv,
    LayerNorm,
    Linear,
    Mlp,
    add_branch,
    drop_path_rates,
    normal,
    trunc_normal,
)
from jaxmed.registry import register

EPS = 1e-6


class Block(nnx.Module):
    """Attention over all tokens and a two-layer network, each after a norm and around a shortcut."""

    def __init__(self, dim: int, num_heads: int, drop_path: float, *, dtype, rngs: nnx.Rngs):
        self.rate = drop_path
        self.norm1 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.attn = Attention(dim, num_heads, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(dim, eps=EPS, dtype=dtype)
        self.mlp = Mlp(dim, 4 * dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "b t c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Float[Array, "b t c"]:
        x = add_branch(x, self.attn(self.norm1(x)), self.rate, train, rngs)
        return add_branch(x, self.mlp(self.norm2(x)), self.rate, train, rngs)


@register("vit_tiny_patch16_224", dim=192, num_heads=3)
@register("vit_small_patch16_224", dim=384, num_heads=6)
@register("vit_base_patch16_224")
@register("vit_large_patch16_224", dim=1024, depth=24, num_heads=16)
class VisionTransformer(Backbone):
    """A class token and one token per patch, learned positions, `depth` blocks; the normed class token is classified.

    Images must be img_size x img_size: the positions are learned for that grid. There are no stages, so `features` is refused;
    `tokens` gives the sequence.
    """

    def __init__(
        self, num_classes: int | None = 2, *, dim: int = 768, depth: int = 12, num_heads: int = 12, img_size: int = 224,
        patch_size: int = 16, drop_path: float = 0.0, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if img_size % patch_size:
            raise UserError(f"img_size={img_size} is not a multiple of the patches' {patch_size} pixels")
        self.num_classes, self.img_size, self.dtype = num_classes, img_size, jnp.dtype(dtype)
        shape = dict(dtype=dtype, rngs=rngs)
        self.patch_embed = nnx.Dict({"proj": Conv(in_channels, dim, patch_size, stride=patch_size, **shape)})
        self.cls_token = nnx.Param(normal(1e-6)(rngs.params(), (1, 1, dim)))
        self.pos_embed = nnx.Param(trunc_normal(0.02)(rngs.params(), (1, (img_size // patch_size) ** 2 + 1, dim)))
        (rates,) = drop_path_rates(drop_path, (depth,))
        self.blocks = nnx.List([Block(dim, num_heads, rate, **shape) for rate in rates])
        self.norm = LayerNorm(dim, eps=EPS, dtype=dtype)
        if num_classes is not None:
            self.head = Linear(dim, num_classes, **TRANSFORMER_INIT, **shape)

    def tokens(
        self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b t d"]:
        """Class token first, then the patches row by row, after the final norm. Raises UserError for another image size."""
        if image.shape[1:3] != (self.img_size, self.img_size):
            raise UserError(
                f"this network takes {self.img_size} x {self.img_size} pixels, got {image.shape[1]} x {image.shape[2]}: "
                "resize the images (config.data.size) or build it with img_size="
            )
        x = self.patch_embed["proj"](image)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        cls = jnp.broadcast_to(self.cls_token.get_value().astype(x.dtype), (x.shape[0], 1, x.shape[-1]))
        x = jnp.concatenate([cls, x], 1) + self.pos_embed.get_value().astype(x.dtype)
        for block in self.blocks:
            x = block(x, train, rngs)
        return self.norm(x)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Raises UserError: a plain transformer keeps one resolution."""
        raise UserError("a Vision Transformer has no stages, so no four maps: use tokens(), or an encoder with stages")

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """The class token."""
        return self.tokens(image, train, rngs)[:, 0].astype(jnp.float32)

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head(features)
