"""HSQformer (She et al. 2025, arXiv 2502.03772): learned queries read the maps of a Swin and a ConvNeXt, scale by scale."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Backbone
from jaxmed.errors import UserError
from jaxmed.nn import TRANSFORMER_INIT, LayerNorm, Linear, drop_path_rates, normal, zeros
from jaxmed.nn.csm import EPS, CSMProjector, CSMQueryBlock, Stats, run_block
from jaxmed.nn.moe import MoE
from jaxmed.registry import create_model, model_options, register

SCALES = 4
STRIDE = 32


@register("hsqformer_s")
@register("hsqformer_b", depths=(2, 2, 6, 2), top_k=2)
@register("hsqformer_l", depths=(2, 2, 6, 2), num_queries=400, query_dim=768, num_experts=8, top_k=2)
class HSQformer(nnx.Module):
    """Two encoders, one projector per scale that joins their maps, and query blocks that read the four scales in turn.

    Sizes are those of the paper's Table 4 (the released constructor fixes 4 experts and top-1 for all three). Encoder maps are
    taken as they leave the stages, without a norm. Each map gets a learned position table [tokens, channels] (N(0, 1) at the
    start, the same for both encoders) and, after its projection to query_dim, a learned scale vector, as in the released code;
    the answer is the mean over the queries of head(norm(q)).

    Ablations: depths = query blocks per scale (Fig. 5), 0 leaves a scale out with its projector (Fig. 4: (0, 0, 0, 1));
    num_queries, query_dim (Fig. 6); order of the projector's attentions, query_order of the queries', "serial", "parallel" or
    "invert_serial" (Fig. 7); num_experts and top_k of the query blocks, projector_num_experts and projector_top_k (Fig. 8):
    top_k = num_experts is the dense mixture, num_experts=0 the plain MLP; routing "token" or "expert". The baseline without
    any of this is `late_fusion_swin_convnext`. router_noise, routing, dispatch: see `jaxmed.nn.moe.MoE`; the released code is
    router_noise="always". balance_weight scales the load-balancing loss in `aux_loss` (the paper has none).
    dropout: in the projector's experts only. drop_path: last rate of both encoders and of the query blocks.
    swin, convnext: any two encoders of one geometry, with constructor options; published weights go into the roles so named.
    remat=True computes the inside of projectors and query blocks again in the backward pass instead of storing it.

    model(image [b, img_size, img_size, c]) -> logits [b, num_classes], or without classes the feature. aux=True gives a dict:
    logits; features [b, query_dim], the mean normed query; router_load {"projector": [scales, experts], "query": [blocks,
    experts]}, the share of routed tokens that each expert got; router_entropy, of the routers' softmax, {"projector": [scales],
    "query": [blocks]}, and router_margin likewise (see `router_statistics`; plain MLPs have no rows); aux_loss, a number.
    attention=True (with aux) adds query_attention: per scale [b, queries, tokens], row-major tokens, the mean over heads in the
    last block of that scale.
    Raises UserError for options that do not fit together and for images of another size.
    """

    input_names: tuple[str, ...] = ("image",)
    frozen: tuple[str, ...] = ()
    roles: dict[str, tuple[str, ...]] = {"swin": ("swintransformer",), "convnext": ("convnext",)}

    def __init__(
        self, num_classes: int | None = 2, *, depths: Sequence[int] = (1, 1, 1, 1), num_queries: int = 200,
        query_dim: int = 384, num_heads: Sequence[int] = (3, 6, 12, 24), num_experts: int = 4, top_k: int = 1,
        projector_num_heads: Sequence[int] = (3, 6, 12, 24), projector_num_experts: int = 4, projector_top_k: int = 1,
        router_noise: str = "train", routing: str = "token", dispatch: str = "auto", balance_weight: float = 0.0,
        order: str = "serial", query_order: str = "serial", drop_path: float = 0.2, dropout: float = 0.5,
        swin: str = "swin_small_patch4_window7_224", swin_options: Mapping[str, Any] | None = None,
        convnext: str = "convnext_small", convnext_options: Mapping[str, Any] | None = None, img_size: int = 224,
        remat: bool = False, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        check_sizes(depths, num_heads, projector_num_heads, img_size)
        self.num_classes, self.img_size, self.balance_weight, self.remat = num_classes, img_size, balance_weight, remat
        self.dtype, shape = jnp.dtype(dtype), dict(dtype=dtype, rngs=rngs)
        common = dict(drop_path=drop_path, in_channels=in_channels, **shape)
        self.swintransformer = headless(swin, **common, **(swin_options or {}))
        self.convnext = headless(convnext, **common, **(convnext_options or {}))
        scales = [str(s) for s in range(SCALES) if depths[s]]
        channels = dict(zip("0123", map_channels(self.swintransformer, self.convnext), strict=True))
        side = {s: img_size // (4 << int(s)) for s in scales}
        self.pos_embedding = nnx.Dict({
            s: nnx.Param(normal(1.0)(rngs.params(), (side[s] ** 2, channels[s]))) for s in scales
        })  # fmt: skip
        moe = dict(router_noise=router_noise, routing=routing, dispatch=dispatch)
        projector = dict(num_experts=projector_num_experts, top_k=projector_top_k, order=order, dropout=dropout, moe=moe)
        self.sc_att_mlp = nnx.Dict({
            s: CSMProjector(channels[s], projector_num_heads[int(s)], **projector, **shape) for s in scales
        })
        self.stage_proj = nnx.Dict({s: Linear(channels[s], query_dim, **TRANSFORMER_INIT, **shape) for s in scales})
        self.level_embed = nnx.Param(normal(1.0)(rngs.params(), (SCALES, query_dim)))
        self.query_tokens = nnx.Param(zeros(None, (1, num_queries, query_dim)))
        self.pos_embedding_query_tokens = nnx.Param(normal(0.02)(rngs.params(), (1, num_queries, query_dim)))
        rates = drop_path_rates(drop_path, depths)
        block = dict(num_experts=num_experts, top_k=top_k, order=query_order, moe=moe, **shape)
        self.q_cross_stage = nnx.Dict({
            s: nnx.List([CSMQueryBlock(query_dim, num_heads[int(s)], drop_path=r, **block) for r in rates[int(s)]])
            for s in scales
        })
        self.head_norm = LayerNorm(query_dim, eps=EPS, dtype=dtype)
        if num_classes is not None:
            self.head = Linear(query_dim, num_classes, **TRANSFORMER_INIT, **shape)

    def __call__(
        self, image: Float[Array, "b h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None, *,
        attention: bool = False,
    ) -> Float[Array, "b k"] | dict[str, Any]:
        if image.ndim != 4 or image.shape[1:3] != (self.img_size, self.img_size):
            raise UserError(
                f"this HSQformer was built for [b, {self.img_size}, {self.img_size}, c] images, got {list(image.shape)}; "
                "resize them, or build it with img_size="
            )
        tokens, projected = self.tokens(image, train, rngs)
        q, blocks, looks = self.read(tokens, train, rngs, attention)
        features = jnp.mean(self.head_norm(q).astype(jnp.float32), 1)
        out = {"features": features} | self.router_summary({"projector": projected, "query": blocks})
        out |= {"query_attention": looks} if attention else {}
        if self.num_classes is None:
            return out if aux else features
        logits = self.head(features).astype(jnp.float32)
        return {"logits": logits, **out} if aux else logits

    @property
    def routers(self) -> tuple[tuple[str, int, int], ...]:
        """(part, layers, experts) of the mixture layers, as `router_load` is laid out."""
        blocks = [block for stage in self.q_cross_stage.values() for block in stage]
        parts = {"projector": list(self.sc_att_mlp.values()), "query": blocks}
        mixtures = {part: [layer.moe for layer in layers if isinstance(layer.moe, MoE)] for part, layers in parts.items()}
        return tuple((part, len(found), found[0].num_experts) for part, found in mixtures.items() if found)

    def tokens(
        self, image: Float[Array, "b h w c"], train: bool = False, rngs: nnx.Rngs | None = None
    ) -> tuple[dict[str, Float[Array, "b _n d"]], list[Stats]]:
        """({scale: both encoders' maps joined, in query_dim channels}, the projectors' router statistics)."""
        swin, convnext = (encoder.features(image, train, rngs) for encoder in (self.swintransformer, self.convnext))
        tokens, stats = {}, []
        for scale, project in self.sc_att_mlp.items():
            table = self.pos_embedding[scale].get_value().astype(self.dtype)[None]
            pair = (m[int(scale)].reshape(len(image), *table.shape[1:]) + table for m in (swin, convnext))
            joined, routed = run_block(project, *pair, train=train, rngs=rngs, remat=self.remat)
            level = self.level_embed.get_value()[int(scale)].astype(self.dtype).reshape(1, 1, -1)
            tokens[scale] = self.stage_proj[scale](joined) + level
            stats.append(routed)
        return tokens, stats

    def read(
        self, tokens: Mapping[str, Float[Array, "b _n d"]], train: bool = False, rngs: nnx.Rngs | None = None,
        attention: bool = False,
    ) -> tuple[Float[Array, "b q d"], list[Stats], list[Float[Array, "b q _n"]]]:
        """(the queries after all blocks, the blocks' router statistics, attention of each scale's last block where asked)."""
        start = (self.query_tokens.get_value() + self.pos_embedding_query_tokens.get_value()).astype(self.dtype)
        batch = len(next(iter(tokens.values())))
        q, stats, looks = jnp.broadcast_to(start, (batch, *start.shape[1:])), [], []
        for scale, blocks in self.q_cross_stage.items():
            for block in blocks:
                before = q
                q, routed = run_block(block, q, tokens[scale], train=train, rngs=rngs, remat=self.remat)
                stats.append(routed)
            looks += [blocks[-1].attention(before, tokens[scale])] if attention else []
        return q, stats, looks

    def router_summary(self, parts: Mapping[str, list[Stats]]) -> dict[str, Any]:
        """Router statistics of all layers by part of the network, and their weighted balancing loss."""
        routed = {part: [s for s in stats if s] for part, stats in parts.items()}
        out = {
            f"router_{name}": {part: jnp.stack([s[name] for s in stats]) for part, stats in routed.items() if stats}
            for name in ("load", "entropy", "margin")
        }
        total = sum((s["aux_loss"] for stats in routed.values() for s in stats), jnp.float32(0))
        return out | {"aux_loss": self.balance_weight * total}


def headless(name: str, *, drop_path: float, **options: Any) -> nnx.Module:
    """An encoder without its final norm and head, of which only `features` is left; drop path where it knows it."""
    known = {"drop_path": drop_path} if "drop_path" in model_options(name) else {}
    encoder = create_model(name, num_classes=None, **known | options)
    for part in ("norm", "head"):
        if hasattr(encoder, part):
            delattr(encoder, part)
    return encoder


def map_channels(swin: nnx.Module, convnext: nnx.Module) -> tuple[int, ...]:
    """Channels of the four maps, equal for both encoders. Raises UserError where they differ or are not known."""
    channels = [tuple(encoder.tap_channels) for encoder in (swin, convnext)]
    known = all(type(encoder).csa_taps is Backbone.csa_taps for encoder in (swin, convnext))
    if channels[0] != channels[1] or len(channels[0]) != SCALES or not known:
        raise UserError(
            f"the two encoders must give {SCALES} maps with the same channels in features(): swin= has {channels[0]}, "
            f"convnext= has {channels[1]}" + ("" if known else ", of which one belongs to maps of another kind")
        )
    return channels[0]


def check_sizes(depths: Sequence[int], num_heads: Sequence[int], projector_heads: Sequence[int], img_size: int) -> None:
    """Raises UserError unless there is one number per scale, a block in some scale, and an image of whole strides."""
    for name, value in (("depths", depths), ("num_heads", num_heads), ("projector_num_heads", projector_heads)):
        if len(value) != SCALES:
            raise UserError(f"{name}={tuple(value)}: HSQformer needs one number for each of its {SCALES} scales")
    if not any(depths):
        raise UserError("depths=(0, 0, 0, 0) leaves nothing; the network without query blocks is late_fusion_swin_convnext")
    if img_size % STRIDE:
        raise UserError(f"img_size={img_size} must be a multiple of {STRIDE}, so that both encoders give maps of one size")
