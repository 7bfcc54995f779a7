"""An image's feature and a vector of clinical findings, joined through a bottleneck (MTANet, Ling et al. 2024)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.linear import Linear

IMAGE, CLINICAL, SHARED, KEPT = 40, 20, 5, 5  # widths: of each stream's first layer, of the bottleneck, of what goes on


class ClinicalFusion(nnx.Module):
    """Two streams of linear layers that meet twice: their last 5 numbers are averaged and go on in both.

    Written from the released code, which has no activations and hands on only a part of each stream (of the image's 35 own
    numbers the last 15, of the clinical 15 the last 5), so some columns of the layers have no effect. Without clinical findings
    (clinical_features=0) the feature is the image's first layer, 40 numbers. `channels` is what comes out.
    """

    def __init__(
        self, image_channels: int, clinical_features: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        shape = dict(dtype=dtype, rngs=rngs)
        self.fc1, self.channels = Linear(image_channels, IMAGE, **shape), IMAGE
        if clinical_features:
            self.fc2 = Linear(clinical_features, CLINICAL, **shape)
            self.fc3 = Linear(CLINICAL, CLINICAL, **shape)
            self.fc4 = Linear(KEPT + SHARED, CLINICAL, **shape)
            self.channels = 2 * KEPT + SHARED

    def __call__(self, image: Float[Array, "b c"], clinical: Float[Array, "b f"] | None) -> Float[Array, "b d"]:
        image = self.fc1(image)
        if not hasattr(self, "fc2"):
            return image
        clinical = self.fc2(clinical)
        own_image, own_clinical, shared = meet(image, clinical)
        joined = jnp.concatenate([own_image[:, -(CLINICAL - SHARED) :], shared], -1)
        image, clinical = self.fc3(joined), self.fc4(jnp.concatenate([own_clinical[:, -KEPT:], shared], -1))
        own_image, own_clinical, shared = meet(image, clinical)
        return jnp.concatenate([own_image[:, -KEPT:], shared, own_clinical[:, -KEPT:]], -1)


def meet(image: Float[Array, "b i"], clinical: Float[Array, "b c"]) -> tuple[Array, Array, Float[Array, "b s"]]:
    """(what is the image's own, what is the clinical stream's own, the mean of both bottlenecks)."""
    shared = (image[:, -SHARED:] + clinical[:, -SHARED:]) / 2
    return image[:, :-SHARED], clinical[:, :-SHARED], shared
