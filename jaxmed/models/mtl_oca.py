"""MTL-OCA: mask and class of breast ultrasound with object-contextual attention (Lu, Sun, Wang, Yu, Front. Oncol. 2025).

Our reading. No code was released and of the paper only the abstract could be had: attention over pixel-region relationships
enhances the mask, and the class uses features of the unenhanced one. The rest is the plainest network that does so.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.resnet import ResNet
from jaxmed.errors import UserError
from jaxmed.models.mask_model import mask_conv
from jaxmed.nn import Linear, dropout, global_avg_pool
from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.double_conv import DoubleConv
from jaxmed.nn.image_size import check_multiple
from jaxmed.nn.mask_outputs import mask_outputs
from jaxmed.nn.object_context import ObjectContext, gather_regions
from jaxmed.ops.resize import double, resize
from jaxmed.registry import create_model, register

STRIDE = 32
CLASS_DIM = 256
MASK_DROPOUT = 0.05  # that of the released code of object-contextual representations


@register("mtl_oca")
class MTLOCA(nnx.Module):
    """ResNet, U-Net decoder to stride 4, a coarse mask M0, object context of its regions, the enhanced mask M1; see the file.

    M0 has a background region and one per mask channel. The class sees the mean of the encoder's last map and the mean of the
    decoder's over each lesion region of M0, through a layer of 256 with ReLU and dropout. encoder: any registered ResNet or
    ResNeXt (`depths` are handed on); decoder_dims: channels of the decoder's three levels; key_dim: see ObjectContext.

    model(image [b, h, w, c], h and w multiples of 32) -> {"logits": [b, num_classes], "mask_logits": M1, "side_logits_0": M0
    without its background}, masks [b, h, w, mask_channels]; with num_classes=None the mask logits alone. aux=True always gives
    a dict, with `features` [b, 256], what the last linear layer sees.
    Raises UserError for another encoder and other image sizes.
    """

    input_names: tuple[str, ...] = ("image",)
    roles = {"encoder": ("encoder",)}
    frozen: tuple[str, ...] = ()

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, encoder: str = "resnet50",
        depths: Sequence[int] | None = None, decoder_dims: Sequence[int] = (512, 256, 256), key_dim: int = 128,
        dropout: float = 0.3, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes, self.rate = num_classes, dropout
        shape = dict(dtype=dtype, rngs=rngs)
        given = {} if depths is None else {"depths": tuple(depths)}
        self.encoder = make_encoder(encoder, in_channels=in_channels, **given, **shape)
        *skips, deepest = self.encoder.tap_channels
        below, dim = (deepest, *decoder_dims[:-1]), decoder_dims[-1]
        sizes = zip(below, skips[::-1], decoder_dims, strict=True)
        self.decoder = nnx.List([DoubleConv(a + b, channels, **shape) for a, b, channels in sizes])
        self.coarse_conv, self.coarse_out = ConvNorm(dim, dim, **shape), mask_conv(dim, 1 + mask_channels, **shape)
        self.context = ObjectContext(dim, key_dim, **shape)
        self.mask_out = mask_conv(dim, mask_channels, **shape)
        if num_classes is not None:
            self.cls_fc = Linear(deepest + mask_channels * dim, CLASS_DIM, **shape)
            self.cls_out = Linear(CLASS_DIM, num_classes, **shape)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w m"] | dict[str, Array]:
        check_multiple(image, STRIDE)
        maps = self.encoder.features(image, train, rngs)
        x = self.decode(maps, train)
        coarse = self.coarse_out(self.coarse_conv(x, train))
        regions = gather_regions(x, coarse)
        enhanced = dropout(self.context(x, regions, train), MASK_DROPOUT, train, rngs)
        masks = {"mask_logits": self.mask_out(enhanced), "side_logits_0": coarse[..., 1:]}
        out = {name: resize(mask.astype(jnp.float32), image.shape[1:3]) for name, mask in masks.items()}
        if self.num_classes is not None:
            lesions = regions[:, 1:].reshape(len(regions), -1)
            joined = jnp.concatenate([global_avg_pool(maps[-1]), lesions], -1)
            features = dropout(jax.nn.relu(self.cls_fc(joined)), self.rate, train, rngs)
            out |= {"features": features, "logits": self.cls_out(features)}
        return mask_outputs(out, aux)

    def decode(self, maps: list[Array], train: bool) -> Float[Array, "b h w c"]:
        """The encoder's maps, deepest first, each level doubled and joined with the next: a map of stride 4."""
        x = maps[-1]
        for conv, skip in zip(self.decoder, maps[2::-1], strict=True):
            x = conv(jnp.concatenate([skip, double(x)], -1), train)
        return x


def make_encoder(name: str, **options) -> ResNet:
    """A registered ResNet or ResNeXt without classifier; raises UserError for another network."""
    if not name.startswith(("resnet", "resnext")):
        raise UserError(f"encoder={name!r}: this network takes a ResNet or ResNeXt, e.g. 'resnet50'")
    return create_model(name, None, **options)
