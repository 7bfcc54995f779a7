"""MedMamba (Yue and Li 2024, "MedMamba: Vision Mamba for Medical Image Classification"), sizes of the released code."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.backbones.swin import PatchMerging
from jaxmed.errors import UserError
from jaxmed.nn import TRANSFORMER_INIT, Linear, PatchEmbed, SSConvSSM, drop_path_rates, global_avg_pool, torch_uniform
from jaxmed.registry import register

EPS = 1e-5
PATCH = 4


class Stage(nnx.Module):
    """SS-Conv-SSM blocks; then, except in the last stage, `downsample` to half the size and twice the channels."""

    def __init__(self, dim: int, rates: list[float], merge: bool, *, d_state: int, dtype, rngs: nnx.Rngs):
        options = dict(dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([SSConvSSM(dim, d_state=d_state, drop_path=rate, **options) for rate in rates])
        if merge:
            self.downsample = PatchMerging(dim, **options)

    def __call__(self, x: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b h w c"]:
        for block in self.blocks:
            x = block(x, train, rngs)
        return x

    def merged(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c2"]:
        """The map for the next stage; an odd last row or column is dropped, as released."""
        return self.downsample(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])


@register("medmamba_tiny")
@register("medmamba_small", depths=(2, 2, 8, 2))
@register("medmamba_base", depths=(2, 2, 12, 2), dims=(128, 256, 512, 1024))
class MedMamba(Backbone):
    """Four stages of SS-Conv-SSM blocks, images of 32 pixels or more, any shape.

    Each stage has twice the channels of the one before. The sizes are those of the released code; the paper quotes other
    parameter counts for S and B. The release trains with drop_path=0.1, Adam 1e-4, batch 32, 100 epochs, images normalised by
    mean 0.5 and std 0.5.
    """

    def __init__(
        self, num_classes: int | None = 2, *, depths: tuple[int, ...] = (2, 2, 4, 2),
        dims: tuple[int, ...] = (96, 192, 384, 768), d_state: int = 16, drop_path: float = 0.0, in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        if any(wide != 2 * narrow for narrow, wide in zip(dims, dims[1:], strict=False)) or dims[0] % 2:
            raise UserError(f"dims={tuple(dims)}: stages of MedMamba have twice the channels of the one before, an even number")
        self.num_classes, self.tap_channels = num_classes, tuple(dims)
        options = dict(dtype=dtype, rngs=rngs)
        self.patch_embed = PatchEmbed(
            in_channels, dims[0], PATCH, PATCH, eps=EPS, bias_init=torch_uniform(in_channels * PATCH**2), **options
        )
        rates, last = drop_path_rates(drop_path, depths), len(depths) - 1
        self.layers = nnx.List([
            Stage(dims[s], rates[s], merge=s < last, d_state=d_state, **options) for s in range(len(depths))
        ])
        if num_classes is not None:
            self.head = Linear(dims[-1], num_classes, **TRANSFORMER_INIT, **options)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the stages' blocks, strides 4, 8, 16, 32. Raises UserError where an image is too small."""
        least = PATCH * 2 ** (len(self.layers) - 1)
        if min(image.shape[1:3]) < least:
            raise UserError(f"{image.shape[1]} x {image.shape[2]} pixels are too few: MedMamba needs {least} x {least} or more")
        x, maps = self.patch_embed(image), []
        for stage in self.layers:
            maps.append(stage(x, train, rngs))
            x = stage.merged(maps[-1]) if hasattr(stage, "downsample") else x
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the last map; there is no final norm."""
        return global_avg_pool(self.features(image, train, rngs)[-1])

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head(features)
