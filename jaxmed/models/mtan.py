"""MTAN: one SegNet for all tasks; each task attends to what it needs of it (Liu, Johns, Davison, CVPR 2019)."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn import BatchNorm, Conv, Linear, global_avg_pool, max_pool, zeros
from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.image_size import check_multiple
from jaxmed.nn.mask_outputs import mask_outputs
from jaxmed.ops.max_unpool import pool_with_places, unpool
from jaxmed.ops.resize import resize
from jaxmed.registry import register

DIMS = (64, 128, 256, 512, 512)
Maps = list[Float[Array, "b h w c"]]


class TaskAttention(nnx.Module):
    """A mask in [0, 1] for every number of a shared map: 1x1 convolution, BN, ReLU, 1x1 convolution, BN, sigmoid (eq. 2)."""

    def __init__(self, in_channels: int, channels: int, *, dtype, rngs: nnx.Rngs):
        options = dict(bias_init=zeros, dtype=dtype, rngs=rngs)
        self.conv1, self.bn1 = Conv(in_channels, channels, 1, **options), BatchNorm(channels, dtype=dtype)
        self.conv2, self.bn2 = Conv(channels, channels, 1, **options), BatchNorm(channels, dtype=dtype)

    def __call__(self, x: Float[Array, "b h w i"], train: bool = False) -> Float[Array, "b h w c"]:
        x = jax.nn.relu(self.bn1(self.conv1(x), train))
        return jax.nn.sigmoid(self.bn2(self.conv2(x), train))


class Head(nnx.Module):
    """3x3 and 1x1 convolution, nothing in between, as in the released code."""

    def __init__(self, channels: int, out_channels: int, *, dtype, rngs: nnx.Rngs):
        options = dict(bias_init=zeros, dtype=dtype, rngs=rngs)
        self.conv1, self.conv2 = Conv(channels, channels, 3, padding=1, **options), Conv(channels, out_channels, 1, **options)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w o"]:
        return self.conv2(self.conv1(x))


@register("mtan")
class MTAN(nnx.Module):
    """SegNet, five levels, and per dense task an attention mask on every level of its encoder and decoder.

    dense_tasks: {name of the output: channels}; None is {"mask_logits": mask_channels}. `dims` are the channels of the levels.
    The network has no class task, so the head is ours: an encoder attention stream of its own, the mean of that stream's last
    map, a linear layer. num_classes=None leaves stream and layer off. `logsigma` [tasks] is for a loss that weighs the dense
    tasks by it (Kendall et al. 2018); the outputs do not depend on it.

    model(image [b, h, w, c], h and w multiples of 32) -> {one [b, h, w, channels] per dense task, "logits": [b, num_classes]};
    without classes and with the default task the mask logits alone. Outputs are raw: the released code takes the log-softmax
    of its segmentation and gives its normals unit length. aux=True always gives a dict, with `features` [b, dims[-1]], what the
    linear layer sees. Raises UserError for no dense task and other image sizes.
    """

    input_names: tuple[str, ...] = ("image",)
    roles: dict[str, tuple[str, ...]] = {}  # a SegNet with batch norm and biases: nobody publishes an encoder that fits
    frozen: tuple[str, ...] = ()

    def __init__(
        self, num_classes: int | None = 2, *, mask_channels: int = 1, dense_tasks: Mapping[str, int] | None = None,
        dims: Sequence[int] = DIMS, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        tasks = {"mask_logits": mask_channels} if dense_tasks is None else dict(dense_tasks)
        check_tasks(tasks)
        self.num_classes, self.tasks, self.stride = num_classes, tuple(tasks), 2 ** len(dims)
        self._add_segnet(dims, in_channels, dtype=dtype, rngs=rngs)
        shape = dict(dtype=dtype, rngs=rngs)
        self.encoder_att = nnx.List([encoder_attention(dims, **shape) for _ in tasks])
        self.decoder_att = nnx.List([decoder_attention(dims, **shape) for _ in tasks])
        self.logsigma = nnx.Param(jnp.full((len(tasks),), -0.5))
        self.heads = nnx.List([Head(dims[0], channels, **shape) for channels in tasks.values()])
        if num_classes is not None:
            self.class_att = encoder_attention(dims, **shape)
            self.fc = Linear(dims[-1], num_classes, **shape)

    def _add_segnet(self, dims: Sequence[int], in_channels: int, *, dtype, rngs: nnx.Rngs) -> None:
        """The shared network, and the convolutions that all tasks share between their levels."""

        def conv(inside: int, outside: int) -> ConvNorm:
            return ConvNorm(inside, outside, bias=True, dtype=dtype, rngs=rngs)

        below, above = (in_channels, *dims[:-1]), (dims[0], *dims[:-1])  # channels before a level, and after it in the decoder
        self.encoder_block = nnx.List([conv(*size) for size in zip(below, dims, strict=True)])
        self.decoder_block = nnx.List([conv(*size) for size in zip(dims, above, strict=True)])
        depths = [1 if k < 2 else 2 for k in range(len(dims))]
        self.conv_block_enc = nnx.List([nnx.List([conv(d, d) for _ in range(n)]) for d, n in zip(dims, depths, strict=True)])
        self.conv_block_dec = nnx.List([nnx.List([conv(d, d) for _ in range(n)]) for d, n in zip(above, depths, strict=True)])
        self.encoder_block_att = nnx.List([conv(*size) for size in zip(dims, (*dims[1:], dims[-1]), strict=True)])
        self.decoder_block_att = nnx.List([conv(*size) for size in zip(dims, above, strict=True)])

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w m"] | dict[str, Array]:
        check_multiple(image, self.stride)
        encoder, pooled, places = self.encode(image, train)
        decoder = self.decode(pooled, places, train)
        out = {}
        for name, down, up, head in zip(self.tasks, self.encoder_att, self.decoder_att, self.heads, strict=True):
            x = self.attend_encoder(down, encoder, train)
            out[name] = head(self.attend_decoder(up, x, decoder, train))
        if self.num_classes is not None:
            out["features"] = global_avg_pool(self.attend_encoder(self.class_att, encoder, train))
            out["logits"] = self.fc(out["features"])
        return mask_outputs(out, aux)

    def encode(self, image: Float[Array, "b h w c"], train: bool) -> tuple[list[tuple[Array, Array]], Array, Maps]:
        """([first map, last map] of each level, the last level pooled, where each level's maxima stood)."""
        x, maps, places = image, [], []
        for first, rest in zip(self.encoder_block, self.conv_block_enc, strict=True):
            x = start = first(x, train)
            for conv in rest:
                x = conv(x, train)
            maps.append((start, x))
            x, where = pool_with_places(x)
            places.append(where)
        return maps, x, places

    def decode(self, x: Float[Array, "b h w c"], places: Maps, train: bool) -> list[tuple[Array, Array]]:
        """[unpooled map, last map] of each level, deepest first."""
        maps = []
        for first, rest, where in zip(self.decoder_block[::-1], self.conv_block_dec[::-1], places[::-1], strict=True):
            start = unpool(x, where)
            x = first(start, train)
            for conv in rest:
                x = conv(x, train)
            maps.append((start, x))
        return maps

    def attend_encoder(self, attention: nnx.List, levels: list, train: bool) -> Float[Array, "b h w c"]:
        """One task's way down: a level's first map and the task's own give the mask, which acts on the level's last map."""
        x = None
        for mask, conv, (first, last) in zip(attention, self.encoder_block_att, levels, strict=True):
            seen = first if x is None else jnp.concatenate([first, x], -1)
            x = max_pool(conv(mask(seen, train) * last, train), 2, 2)
        return x

    def attend_decoder(self, attention: nnx.List, x: Float[Array, "b h w c"], levels: list, train: bool) -> Array:
        """One task's way up."""
        for mask, conv, (first, last) in zip(attention[::-1], self.decoder_block_att[::-1], levels, strict=True):
            x = conv(resize(x, first.shape[1:3], align_corners=True), train)
            x = mask(jnp.concatenate([first, x], -1), train) * last
        return x


def encoder_attention(dims: Sequence[int], *, dtype, rngs: nnx.Rngs) -> nnx.List:
    """One mask per level; all but the first also see the task's own map."""
    sizes = [(dim if k == 0 else 2 * dim, dim) for k, dim in enumerate(dims)]
    return nnx.List([TaskAttention(*size, dtype=dtype, rngs=rngs) for size in sizes])


def decoder_attention(dims: Sequence[int], *, dtype, rngs: nnx.Rngs) -> nnx.List:
    """One mask per level, for the unpooled map beside the task's own."""
    above = (dims[0], *dims[:-1])
    return nnx.List([TaskAttention(a + b, a, dtype=dtype, rngs=rngs) for a, b in zip(above, dims, strict=True)])


def check_tasks(tasks: Mapping[str, int]) -> None:
    """Raises UserError where there is no dense task, or one of no channels."""
    if not tasks or any(channels < 1 for channels in tasks.values()) or {"logits", "features"} & tasks.keys():
        raise UserError(
            f"dense_tasks={tasks} must name one output or more, each with 1 channel or more, and none 'logits' or 'features'"
        )
