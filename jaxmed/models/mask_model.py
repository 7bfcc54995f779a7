"""What a network with one mask and one class has around its encoder and decoder."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn import Conv, Linear, global_avg_pool, torch_uniform
from jaxmed.nn.image_size import check_multiple
from jaxmed.nn.mask_outputs import mask_outputs


class MaskModel(nnx.Module):
    """A segmentation network; the class comes from the mean of its deepest map through one linear layer, `head`.

    The comparison that these networks take part in says that they have a class head but not which; this is the plainest one.

    model(image [b, h, w, in_channels], h and w multiples of `stride`) -> {"logits": [b, num_classes], "mask_logits": [b, h, w,
    mask_channels]}; with num_classes=None the mask logits alone. aux=True always gives a dict, with `features` [b, d], what the
    head sees. Raises UserError for other image sizes.

    A subclass sets `stride`, calls `add_head`, and defines `masks`: image -> (deepest map, mask logits by name).
    """

    input_names: tuple[str, ...] = ("image",)
    frozen: tuple[str, ...] = ()
    roles: dict[str, tuple[str, ...]] = {}
    stride: int

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w m"] | dict[str, Array]:
        check_multiple(image, self.stride)
        deepest, out = self.masks(image, train, rngs)
        features = global_avg_pool(deepest)
        if hasattr(self, "head"):
            out = {"logits": self.head(features)} | out
        return mask_outputs(out | {"features": features}, aux)

    def add_head(self, channels: int, num_classes: int | None, *, dtype, rngs: nnx.Rngs) -> None:
        """The linear layer from the deepest map's channels to the classes, if there are any."""
        self.num_classes = num_classes
        if num_classes is not None:
            self.head = Linear(channels, num_classes, dtype=dtype, rngs=rngs)


def mask_conv(
    channels: int, mask_channels: int, kernel_size: int = 1, *, bias: bool = True, dtype: jnp.dtype | str, rngs: nnx.Rngs
) -> Conv:
    """The last convolution, to the mask's logits."""
    options = dict(padding=kernel_size // 2, bias=bias, kernel_init=torch_uniform(), dtype=dtype, rngs=rngs)
    return Conv(channels, mask_channels, kernel_size, **options)
