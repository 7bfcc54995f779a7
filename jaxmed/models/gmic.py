"""GMIC (Shen et al. 2021): a cheap look at the whole mammogram finds regions, a costly one looks at them, both are joined."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxmed.backbones.thin_resnet import WIDTHS, ThinResNet
from jaxmed.errors import UserError
from jaxmed.nn import Conv, Linear, global_max_pool, torch_uniform
from jaxmed.nn.gated_attention import GatedAttention
from jaxmed.ops.roi import cells_to_pixels, crop_rois, crop_window, greedy_windows
from jaxmed.registry import create_model, register

LOCAL_DIM, ATTENTION_DIM = 512, 128
FEATURES = WIDTHS[-1] + LOCAL_DIM


@register("gmic")
class GMIC(nnx.Module):
    """A thin ResNet-22 makes a saliency map per class at 1/64 of the image's size; the `num_crops` windows with most saliency
    are cut out at full resolution; a ResNet-18 looks at each of them, gated attention weighs what it sees, and a linear layer
    joins both. Classes are independent findings: benign, malignant.

    model(image [b, h, w, in_channels]) -> dict, all float32: logits [b, classes], whose sigmoid is the prediction;
    local_logits [b, classes]; global [b, classes], the mean of the `top_t` share of largest saliencies (probabilities);
    saliency [b, h / 64, w / 64, classes]; rois [b, num_crops, 2], int: row and column of the upper left pixels; attention
    [b, num_crops]; under aux=True features [b, 768], global ones first. No gradient goes through the positions. Crops come
    from the first channel.

    Raises UserError for num_classes=None, crops of no pixels or number, and a `top_t` outside 0..1.
    """

    input_names = ("image",)
    frozen = ()
    roles = {"local": ("local_net",)}
    outputs = "sigmoid"  # one independent probability per class
    normalisation = "image"  # by mean and standard deviation of the image itself

    def __init__(
        self, num_classes: int | None = 2, *, num_crops: int = 6, crop_size: int = 256, top_t: float = 0.02,
        in_channels: int = 1, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        check_options(num_classes, num_crops, crop_size, top_t)
        self.num_classes, self.num_crops, self.crop_size, self.top_t = num_classes, num_crops, crop_size, top_t
        shape = dict(dtype=dtype, rngs=rngs)
        self.global_net = ThinResNet(in_channels=in_channels, **shape)
        # float32: rounding would make ties in the map, and ties move crops
        self.saliency = Conv(WIDTHS[-1], num_classes, 1, bias=False, kernel_init=torch_uniform(), rngs=rngs)
        self.local_net = create_model("resnet18", None, **shape)
        self.attention = GatedAttention(LOCAL_DIM, ATTENTION_DIM, **shape)
        self.local_head = Linear(LOCAL_DIM, num_classes, bias=False, **shape)
        self.fusion_head = Linear(FEATURES, num_classes, **shape)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> dict[str, Array]:
        return joined(self.fusion_head, self.look(image, train, rngs), aux)

    def look(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> dict[str, Array]:
        """All outputs but the logits."""
        h = self.global_net.features(image, train, rngs)[-1]
        saliency = jax.nn.sigmoid(self.saliency(h))
        rois = self.regions(saliency, image.shape[1:3])
        seen = self.local_features(crop_rois(image[..., :1], rois, self.crop_size), train, rngs)
        z, attention = self.attention(seen)
        return {
            "local_logits": self.local_head(z).astype(jnp.float32), "global": top_mean(saliency, self.top_t),
            "saliency": saliency, "rois": rois, "attention": attention,
            "features": jnp.concatenate([global_max_pool(h), z], -1),
        }  # fmt: skip

    def regions(self, saliency: Float[Array, "b h w c"], image_size: tuple[int, int]) -> Int[Array, "b k 2"]:
        """Upper left pixels of the crops."""
        map_size = saliency.shape[1:3]
        window = crop_window(self.crop_size, image_size, map_size)
        return cells_to_pixels(greedy_windows(saliency, window, self.num_crops), map_size, image_size)

    def local_features(
        self, crops: Float[Array, "b k s s 1"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k d"]:
        """One vector per crop; the crops of all images go through the network as one batch."""
        gray = crops.reshape(-1, *crops.shape[2:])
        seen = self.local_net(jnp.repeat(gray, 3, -1), train, rngs=rngs)
        return seen.reshape(*crops.shape[:2], -1)


def joined(head: Linear, out: dict[str, Array], aux: bool) -> dict[str, Array]:
    """The outputs with the answer to their features first; the features themselves under `aux`."""
    out = {"logits": head(out["features"]).astype(jnp.float32)} | out
    return out if aux else {name: value for name, value in out.items() if name != "features"}


def top_mean(saliency: Float[Array, "b h w c"], share: float) -> Float[Array, "b c"]:
    """Mean of the largest values of each map; their number is `share` of the cells, rounded, at least one."""
    b, h, w, c = saliency.shape
    largest = jax.lax.top_k(jnp.swapaxes(saliency.reshape(b, h * w, c), 1, 2), max(1, round(h * w * share)))[0]
    return jnp.mean(largest, -1)


def check_options(num_classes: int | None, num_crops: int, crop_size: int, top_t: float) -> None:
    """Raises UserError as GMIC says."""
    if num_classes is None:
        raise UserError("GMIC has one saliency map per class, so num_classes=None leaves nothing; give it a number")
    if num_crops < 1 or crop_size < 1:
        raise UserError(f"num_crops={num_crops}, crop_size={crop_size}: GMIC looks at one crop or more, of one pixel or more")
    if not 0 < top_t <= 1:
        raise UserError(f"top_t={top_t}: the share of a saliency map that is averaged lies above 0 and is at most 1")
