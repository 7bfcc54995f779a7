"""MTANet: mask, class and, where there are any, clinical findings on a transformer encoder (Ling et al., IEEE TMI 2024)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.pvt_v2 import PVTv2
from jaxmed.errors import UserError
from jaxmed.nn import Linear, global_avg_pool
from jaxmed.nn.clinical_fusion import ClinicalFusion
from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.image_size import check_multiple
from jaxmed.nn.mask_outputs import mask_outputs
from jaxmed.nn.partial_decoder import PartialDecoder
from jaxmed.nn.receptive_field import ReceptiveField
from jaxmed.ops.resize import double, resize
from jaxmed.registry import create_model, register

STRIDE = 32
WIDTH = 32  # channels of the partial decoder


class ReverseAddition(nnx.Module):
    """One decoder level: the map below, doubled, plus the encoder's; its mask is a correction of the coarser one.

    The correction looks at where the coarser mask is not (1 - its sigmoid; of several mask channels the largest).
    """

    def __init__(self, below: int, channels: int, mask_channels: int, *, dtype, rngs: nnx.Rngs):
        options = dict(relu_first=True, dtype=dtype, rngs=rngs)
        self.dconv = ConvNorm(below, channels, **options)
        self.conv1, self.conv2 = ConvNorm(channels, channels, **options), ConvNorm(channels, channels, **options)
        self.conv3 = ConvNorm(channels, mask_channels, **options)

    def __call__(
        self, x: Float[Array, "b h w i"], skip: Float[Array, "b h2 w2 c"], coarse: Float[Array, "b h3 w3 m"], train: bool
    ) -> tuple[Float[Array, "b h2 w2 c"], Float[Array, "b h2 w2 m"]]:
        """(map, mask logits)."""
        x = self.conv2(self.conv1(self.dconv(double(x), train) + skip, train), train)
        coarse = resize(coarse, skip.shape[1:3])
        rest = 1 - jnp.max(jax.nn.sigmoid(coarse), -1, keepdims=True)
        return x, self.conv3(rest * x, train) + coarse


@register("mtanet")
class MTANet(nnx.Module):
    """PVTv2, a partial decoder for a first mask, three reverse-addition levels that refine it; class from the deepest map.

    encoder: any registered PVTv2; `depths` and `drop_path` are handed on to it. clinical_features=0: the mean of the
    deepest map -> 40 -> classes; n > 0: the published network, which also takes n clinical findings (8; see ClinicalFusion).

    model(image [b, h, w, c], h and w multiples of 32), or model(image, clinical [b, n]) -> {"logits": [b, num_classes],
    "mask_logits", and the supervised side outputs "side_logits_4" (stride 8), "side_logits_3" (16), "side_logits_2" (8, the
    first mask)}, all masks [b, h, w, mask_channels] and numbered as in the released code. With num_classes=None the mask logits
    alone, and no clinical input. aux=True always gives a dict, with `features`, what the last linear layer sees.
    Raises UserError for another encoder, other image sizes, and a clinical vector that is missing, not wanted or of another
    length.
    """

    roles = {"encoder": ("backbone",)}
    frozen: tuple[str, ...] = ()

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, clinical_features: int = 0, encoder: str = "pvt_v2_b2",
        depths: Sequence[int] | None = None, drop_path: float = 0.0, in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.num_classes, self.clinical_features = num_classes, clinical_features if num_classes is not None else 0
        given = {} if depths is None else {"depths": tuple(depths)}
        self.backbone = make_encoder(encoder, in_channels=in_channels, drop_path=drop_path, **given, **shape)
        dims = self.backbone.tap_channels
        self.rfb = nnx.List([ReceptiveField(dim, WIDTH, **shape) for dim in dims[1:]])
        self.agg = PartialDecoder(WIDTH, mask_channels, **shape)
        self.levels = nnx.List([ReverseAddition(dims[k + 1], dims[k], mask_channels, **shape) for k in (2, 1, 0)])
        if num_classes is not None:
            self.fusion = ClinicalFusion(dims[-1], clinical_features, **shape)
            self.fc_out1 = Linear(self.fusion.channels, num_classes, **shape)

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the network takes, in this order."""
        return ("image", "clinical") if self.clinical_features else ("image",)

    def __call__(
        self, image: Float[Array, "b h w c"], clinical: Float[Array, "b n"] | None = None, train: bool = False,
        aux: bool = False, rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "b h w m"] | dict[str, Array]:
        check_multiple(image, STRIDE)
        check_clinical(clinical, image, self.clinical_features)
        maps = self.backbone.features(image, train, rngs)
        out = self.masks(maps, image.shape[1:3], train)
        if self.num_classes is not None:
            features = self.fusion(global_avg_pool(maps[-1]), clinical)
            out |= {"features": features, "logits": self.fc_out1(features)}
        return mask_outputs(out, aux)

    def masks(self, maps: list[Array], size: tuple[int, int], train: bool) -> dict[str, Float[Array, "b h w m"]]:
        """The last mask and the three before it, at the image's size."""
        shallow, middle, deep = (block(x, train) for block, x in zip(self.rfb, maps[1:], strict=True))
        mask, x = self.agg(deep, middle, shallow, train), maps[-1]
        masks = [mask]
        for level, skip in zip(self.levels, maps[2::-1], strict=True):
            x, mask = level(x, skip, mask, train)
            masks.append(mask)
        names = ("side_logits_2", "side_logits_3", "side_logits_4", "mask_logits")
        return {name: resize(mask, size) for name, mask in zip(names, masks, strict=True)}


def make_encoder(name: str, **options) -> PVTv2:
    """A registered PVTv2 without classifier; raises UserError for another network."""
    encoder = create_model(name, None, **options) if name.startswith("pvt_v2_") else None
    if encoder is None:
        raise UserError(f"encoder={name!r}: this network takes a PVTv2, e.g. 'pvt_v2_b2', the paper's")
    return encoder


def check_clinical(clinical: Array | None, image: Array, wanted: int) -> None:
    """Raises UserError unless there are `wanted` findings for each image, or none where none are wanted."""
    got = None if clinical is None else list(clinical.shape)
    if got != ([image.shape[0], wanted] if wanted else None):
        how = f"call model(image, clinical [{image.shape[0]}, {wanted}])" if wanted else "leave them out or set that option"
        raise UserError(f"this network has clinical_features={wanted} and got clinical findings of shape {got}: {how}")
