"""ThyNet (Peng et al. 2021, Lancet Digital Health), three CNNs for thyroid ultrasound, in both published definitions."""

import jax.numpy as jnp
from flax import nnx

from jaxmed.models.late_fusion import LateFusion
from jaxmed.registry import register

RESNEXT = {"joint": "resnext101_32x8d", "ensemble": "resnext101_32x4d"}


@register("thynet")
class ThyNet(LateFusion):
    """ResNet-101, DenseNet-201 and a ResNeXt-101.

    mode="joint" (default): the logits are summed and the members trained together, with ResNeXt-101 32x8d: the comparison of
    the HSQformer paper (Table 2). mode="ensemble": the original, with ResNeXt-101 32x4d, members trained apart, probabilities
    averaged. The original calls a case malignant where the three probabilities sum to 2 or more, that is where their mean,
    which is what jaxmed writes to predictions.csv, reaches 2/3.
    """

    def __init__(
        self, num_classes: int | None = 2, *, mode: str = "joint", in_channels: int = 3,
        dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        members = {"resnet": "resnet101", "densenet": "densenet201", "resnext": RESNEXT.get(mode, RESNEXT["joint"])}
        super().__init__(num_classes, members=members, mode=mode, in_channels=in_channels, dtype=dtype, rngs=rngs)
