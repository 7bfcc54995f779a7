"""Multi-level bidirectional decoder interaction (breast ultrasound): mask and class inform each other at every level."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.efficientnet import EfficientNet
from jaxmed.errors import UserError
from jaxmed.nn import BatchNorm, Conv, Linear, dropout, global_avg_pool
from jaxmed.nn.attention_gate import AttentionGate
from jaxmed.nn.context_block import ContextBlock
from jaxmed.nn.frozen_norm import freeze_norms
from jaxmed.nn.image_size import check_multiple
from jaxmed.nn.keras_defaults import KERAS_INIT, KERAS_NORM
from jaxmed.nn.task_interaction import TaskInteraction
from jaxmed.nn.uncertainty import UncertaintyProxyAttention
from jaxmed.nn.up_conv import UpConv
from jaxmed.registry import create_model, list_models, register

DIMS = (384, 192, 96, 48)  # channels of the four decoder levels
CLASS_DIM = 256
MASK_DIMS = (24, 16)  # of the segmentation head
STRIDE = 32
ENCODERS = ("efficientnet_", "tf_efficientnet_")


class Level(nnx.Module):
    """One decoder level: double the map, gate the skip connection, join, refine, let the tasks interact.

    `sizes` are the channels of the map below, of the skip connection, of this level, and of the encoder map for the class.
    """

    def __init__(self, sizes: tuple[int, int, int, int], rate: float, switches: dict[str, Any], *, dtype, rngs: nnx.Rngs):
        below, skip, channels, encoded = sizes
        shape, self.rate = dict(dtype=dtype, rngs=rngs), rate
        self.up = UpConv(below, channels, **shape)
        self.gate = AttentionGate(skip, channels, channels // 2, **shape)
        self.res = ContextBlock(channels + skip, channels, attention=False, hmsf=switches["hmsf"], **shape)
        self.clf_fc = Linear(encoded, CLASS_DIM, **KERAS_INIT, **shape)
        if switches["tim"]:
            self.tim = TaskInteraction(channels, CLASS_DIM, pool=switches["pool"], **shape)
        if switches["tim"] and switches["upa"]:
            self.upa = UncertaintyProxyAttention(norm=switches["norm"], rngs=rngs)

    def __call__(
        self, x: Float[Array, "b h w i"], skip: Float[Array, "b h2 w2 s"], encoded: Float[Array, "b e"],
        train: bool, rngs: nnx.Rngs | None,
    ) -> tuple[Float[Array, "b h2 w2 c"], Float[Array, "b d"], Float[Array, "b 2"] | None]:
        """(map for the next level, class feature, the weights of the interaction or None)."""
        up = self.up(x)
        x = self.res(jnp.concatenate([up, self.gate(skip, up)], -1), train)
        return self.interact(dropout(x, self.rate, train, rngs), encoded, train)

    def interact(self, x: Float[Array, "b h w c"], encoded: Float[Array, "b e"], train: bool):
        """TIM, then UPA; what is switched off passes things on as they are."""
        f = jax.nn.relu(self.clf_fc(encoded)).astype(jnp.float32)
        if not hasattr(self, "tim"):
            return x, f, None
        enhanced, f_enhanced = self.tim(x, f, train)
        if not hasattr(self, "upa"):
            return enhanced, f_enhanced, None
        return self.upa(x, enhanced, f, f_enhanced, train)


@register("decoder_interaction")
class DecoderInteraction(nnx.Module):
    """EfficientNet, five refined encoder maps, a four-level decoder with task interaction, a mask head and a class head.

    encoder: any registered EfficientNet; `depths`, `dims` and `drop_path` are handed on to it. `decoder_dims`: channels of the
    decoder's levels. use_hmsf, use_tim, use_upa: the ablations of Table 2; without TIM the class features pass unchanged and
    there is nothing for UPA to weigh. tim_pool: see TaskInteraction. upa_norm: see UncertaintyProxyAttention; None is "ema", or
    "batch" where parity="official". `momentum` is that of all running statistics. freeze: the encoder's first 50 Keras layers
    (stem, stage 1, the first block of stage 2 and half of its second) neither learn nor take batch statistics.

    model(image [b, h, w, c], h and w multiples of 32) -> {"logits": [b, num_classes], "mask_logits": [b, h, w, mask_channels]};
    with num_classes=None the mask logits alone. aux=True always gives a dict, with `features` [b, 256], what the last linear
    layer sees, and `upa` [b, 4, 2], the weights of enhanced map and enhanced class feature per level, deepest first.
    Raises UserError for encoders of another kind, unknown options and other image sizes.
    """

    input_names: tuple[str, ...] = ("image",)
    roles = {"encoder": ("encoder",)}

    def __init__(
        self, num_classes: int | None = 2, *, encoder: str = "tf_efficientnet_b4", mask_channels: int = 1,
        use_hmsf: bool = True, use_tim: bool = True, use_upa: bool = True, tim_pool: str = "mean",
        upa_norm: str | None = None, parity: str | None = None, depths: Sequence[int] | None = None,
        dims: Sequence[int] | None = None, decoder_dims: Sequence[int] = DIMS, dropout: float = 0.3, drop_path: float = 0.2,
        freeze: bool = True, momentum: float = 0.99, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.num_classes, self.rate = num_classes, dropout
        norm = check_norm(upa_norm, parity)
        shape = dict(dtype=dtype, rngs=rngs)
        given = {key: value for key, value in dict(depths=depths, dims=dims).items() if value is not None}
        self.encoder = make_encoder(encoder, in_channels=in_channels, drop_path=drop_path, **given, **shape)
        self.frozen = freeze_start(self.encoder) if freeze else ()
        taps = self.encoder.expanded_channels
        self.refine = nnx.List([ContextBlock(c, c, attention=True, hmsf=use_hmsf, **shape) for c in taps])
        switches = dict(hmsf=use_hmsf, tim=use_tim, upa=use_upa, pool=tim_pool, norm=norm)
        sizes = zip((taps[-1], *decoder_dims), taps[-2::-1], decoder_dims, taps[:0:-1], strict=False)
        self.levels = nnx.List([Level(size, dropout, switches, **shape) for size in sizes])
        self.seg_up = UpConv(decoder_dims[-1], MASK_DIMS[0], **shape)
        self.seg_conv = Conv(*MASK_DIMS, 3, padding=1, **KERAS_INIT, **shape)
        self.seg_out = Conv(MASK_DIMS[1], mask_channels, 1, **KERAS_INIT, **shape)
        if num_classes is not None:
            self.cls_fc = Linear(sum(taps[1:]) + len(self.levels) * CLASS_DIM, CLASS_DIM, **KERAS_INIT, **shape)
            self.cls_bn = BatchNorm(CLASS_DIM, **KERAS_NORM, dtype=dtype)
            self.cls_out = Linear(CLASS_DIM, num_classes, **KERAS_INIT, **shape)
        set_momentum(self, momentum)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b h w m"] | dict[str, Array]:
        check_multiple(image, STRIDE)
        encoded = self.encode(image, train, rngs)
        means = [global_avg_pool(x) for x in encoded[1:]]  # the first map is for the decoder alone
        x, interaction, streams, weights = encoded[-1], means[::-1], [], []
        for level, skip, mean in zip(self.levels, encoded[-2::-1], interaction, strict=True):
            x, stream, weight = level(x, skip, mean, train, rngs)
            streams.append(stream)
            weights += [] if weight is None else [weight]
        out = {"mask_logits": self.mask(x)}
        if self.num_classes is not None:
            features = self.class_features(jnp.concatenate(means + streams, -1), train, rngs)
            out |= {"logits": self.cls_out(features).astype(jnp.float32)}
        if not aux:
            return out["mask_logits"] if self.num_classes is None else out
        out |= {"features": features} if self.num_classes is not None else {}
        return out | ({"upa": jnp.stack(weights, 1)} if weights else {})

    def encode(self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None) -> list[Array]:
        """The five refined maps, strides 2 to 32."""
        taps = self.encoder.taps(image, train, rngs)
        return [block(tap, train) for block, tap in zip(self.refine, taps, strict=True)]

    def mask(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 m"]:
        """Logits of the mask, float32."""
        return self.seg_out(jax.nn.relu(self.seg_conv(self.seg_up(x)))).astype(jnp.float32)

    def class_features(self, x: Float[Array, "b i"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Means of the encoder's maps and the interaction's streams -> what the last linear layer sees."""
        return dropout(self.cls_bn(jax.nn.relu(self.cls_fc(x)), train), self.rate, train, rngs)


def make_encoder(name: str, **options) -> EfficientNet:
    """A registered EfficientNet without classifier; raises UserError for another network."""
    if not name.startswith(ENCODERS):
        raise UserError(
            f"encoder={name!r} does not give the maps in front of its strides: this network takes EfficientNets, "
            f"e.g. {', '.join(list_models('tf_efficientnet_*'))}"
        )
    return create_model(name, None, **options)


def freeze_start(encoder: EfficientNet) -> tuple[str, ...]:
    """Puts the encoder's start into inference mode; returns its path prefixes for `model.frozen`.

    The released code freezes Keras' first 50 layers of B4; other sizes stop at the same place of the network.
    """
    paths = ["conv_stem", "bn1", "blocks.0", "blocks.1.0"]
    paths += [f"blocks.1.1.{part}" for part in ("conv_pw", "bn1", "conv_dw", "bn2")] if len(encoder.blocks[1]) > 1 else []
    freeze_norms(encoder, paths)
    for block in (*encoder.blocks[0], encoder.blocks[1][0]):
        block.rate = 0.0
    return tuple(f"encoder.{path}" for path in paths)


def set_momentum(model: nnx.Module, momentum: float) -> None:
    """The share that running statistics keep per batch, for every one in the model."""
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm | UncertaintyProxyAttention):
            module.momentum = momentum


def check_norm(upa_norm: str | None, parity: str | None) -> str:
    """The `norm` of UPA; raises UserError for a parity other than None and "official"."""
    if parity not in (None, "official"):
        raise UserError(f"parity={parity!r} is neither None (cases are independent) nor 'official' (the released code)")
    return upa_norm or ("batch" if parity else "ema")
