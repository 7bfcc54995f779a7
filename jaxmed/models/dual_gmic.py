"""DV-GMIC: the CC and the MLO view of a breast in two unshared GMIC streams (a baseline of X-Pruning)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.models.dual_view import check_views
from jaxmed.models.gmic import FEATURES, GMIC, joined
from jaxmed.nn import Linear
from jaxmed.nn.cross_view import VIEWS
from jaxmed.registry import register


@register("dv_gmic")
class DualGMIC(nnx.Module):
    """Two GMICs without their last layers; one linear layer answers to the features of both.

    model(cc [b, h, w, in_channels], mlo likewise) -> dict: logits [b, classes]; the other outputs of GMIC with an axis of the
    two views behind the batch, such as saliency [b, 2, h / 64, w / 64, classes]; under aux=True features [b, 1536].
    Options are those of GMIC. Raises UserError for views of different batch or size.
    """

    input_names: tuple[str, ...] = VIEWS
    frozen = ()
    roles: dict[str, tuple[str, ...]] = {"encoder": VIEWS, "local": tuple(f"{view}.local_net" for view in VIEWS)}
    outputs, normalisation = GMIC.outputs, GMIC.normalisation

    def __init__(
        self, num_classes: int | None = 2, *, num_crops: int = 6, crop_size: int = 256, top_t: float = 0.02,
        in_channels: int = 1, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.num_classes = num_classes
        options = dict(num_crops=num_crops, crop_size=crop_size, top_t=top_t, in_channels=in_channels, dtype=dtype, rngs=rngs)
        self.cc, self.mlo = GMIC(num_classes, **options), GMIC(num_classes, **options)
        for stream in (self.cc, self.mlo):
            del stream.fusion_head
        self.fusion_head = Linear(2 * FEATURES, num_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, cc: Float[Array, "b h w c"], mlo: Float[Array, "b h w c"], train: bool = False, aux: bool = False,
        rngs: nnx.Rngs | None = None,
    ) -> dict[str, Array]:
        check_views(cc, mlo)
        seen = [getattr(self, view).look(x, train, rngs) for view, x in zip(VIEWS, (cc, mlo), strict=True)]
        out = {name: jnp.stack([one[name] for one in seen], 1) for name in seen[0]}
        return joined(self.fusion_head, out | {"features": out["features"].reshape(len(cc), -1)}, aux)
