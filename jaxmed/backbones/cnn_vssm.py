"""The hybrid encoder of the CNN-VSSM mammography paper: the first stages of a ResNet-18, then the last ones of a MedMamba."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone, Maps
from jaxmed.backbones.medmamba import Stage
from jaxmed.backbones.resnet import ResNet
from jaxmed.backbones.swin import PatchMerging
from jaxmed.errors import UserError
from jaxmed.nn import Linear, drop_path_rates, global_avg_pool
from jaxmed.registry import register

CUTS = ("layer1", "layer2", "layer3")
RESNET18 = (2, 2, 2, 2)


@register("cnn_vssm")
class CnnVssm(Backbone):
    """ResNet-18 up to and with `cut`; its map goes on as tokens (section 2.3). ImageNet weights fill it (role "encoder").

    The paper leaves open where the CNN ends. Default: the CNN stands for the patch embedding and first two stages of a VSSM
    with 64, 128, 256 and 512 channels, so that patch merging 128 -> 256, a block, merging 256 -> 512 and a block follow (half
    of the pure model's four blocks), and the feature is as long as ResNet-18's. `pre_merge=False` lets blocks look at the
    CNN's own map first: 128 channels, then 256. `depths`: blocks per VSSM stage. There is no norm behind the CNN nor before
    the pooling. `features`: one map per stride, 4, 8, 16, ...
    """

    roles = {"encoder": ("resnet",)}

    def __init__(
        self, num_classes: int | None = 2, *, cut: str = "layer2", pre_merge: bool = True, depths: Sequence[int] = (1, 1),
        d_state: int = 16, drop_path: float = 0.0, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if cut not in CUTS:
            raise UserError(f"cut={cut!r} is none of {', '.join(map(repr, CUTS))}, the last ResNet-18 stage that is kept")
        options = dict(dtype=dtype, rngs=rngs)
        kept = RESNET18[: CUTS.index(cut) + 1]
        self.num_classes = num_classes
        self.resnet = ResNet(None, depths=kept, in_channels=in_channels, **options)
        *early, last = self.resnet.tap_channels
        self.merge = nnx.List([PatchMerging(last, **options)] if pre_merge else [])
        dims = [last * 2 ** (s + pre_merge) for s in range(len(depths))]
        rates = drop_path_rates(drop_path, depths)
        self.layers = nnx.List([
            Stage(dim, rates[s], merge=s < len(depths) - 1, d_state=d_state, **options) for s, dim in enumerate(dims)
        ])
        self.tap_channels = (*early, *([last] if pre_merge else []), *dims)
        if num_classes is not None:
            self.head = Linear(dims[-1], num_classes, **options)

    def features(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the ResNet's and the VSSM's stages; without `pre_merge` the VSSM's first replaces the ResNet's last.

        Raises UserError where an image is too small for the last one.
        """
        least = 4 * 2 ** (len(self.tap_channels) - 1)
        if min(image.shape[1:3]) < least:
            raise UserError(f"{image.shape[1]} x {image.shape[2]} pixels are too few: this cut needs {least} x {least} or more")
        *maps, x = self.resnet.features(image, train, rngs)
        for merging in self.merge:
            maps.append(x)
            x = merging(x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2])
        for stage in self.layers:
            maps.append(stage(x, train, rngs))
            x = stage.merged(maps[-1]) if hasattr(stage, "downsample") else x
        return maps

    def pooled(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the last map."""
        return global_avg_pool(self.features(image, train, rngs)[-1])

    def classify(self, features: Float[Array, "b d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b k"]:
        """The linear head."""
        return self.head(features)
