"""X-Pruning (Dai et al. 2026): two pruned Swin streams that exchange information by cross-attention before the last stage."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxmed.backbones.resnet import ResNet
from jaxmed.backbones.swin_pruned import SwinPruned
from jaxmed.errors import UserError
from jaxmed.models.dual_view import check_views, make_encoders
from jaxmed.nn import Linear, dropout, gelu, global_avg_pool, max_pool
from jaxmed.nn.cross_view import EPS, VIEWS, Exchange, Map, Pair
from jaxmed.nn.norm import LayerNorm
from jaxmed.nn.pruned_block import mark
from jaxmed.ops.window_pruning import Windows, kept, token_magnitude
from jaxmed.registry import register

STAGES = 4


class FusionMLP(nnx.Module):
    """norm, 2 d -> 2 d, norm, GELU, -> d, norm, GELU; dropout behind each GELU. The paper only names a "Fusion module"."""

    def __init__(self, dim: int, rate: float, *, dtype, rngs: nnx.Rngs):
        self.rate, shape = rate, dict(dtype=dtype, rngs=rngs)
        self.norm0 = LayerNorm(2 * dim, eps=EPS, dtype=dtype)
        self.fc1 = Linear(2 * dim, 2 * dim, **shape)
        self.norm1 = LayerNorm(2 * dim, eps=EPS, dtype=dtype)
        self.fc2 = Linear(2 * dim, dim, **shape)
        self.norm2 = LayerNorm(dim, eps=EPS, dtype=dtype)

    def __call__(self, x: Float[Array, "b d2"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        x = dropout(gelu(self.norm1(self.fc1(self.norm0(x)))), self.rate, train, rngs)
        return dropout(gelu(self.norm2(self.fc2(x))), self.rate, train, rngs)


def stem(encoder: nnx.Module, image: Map, train: bool) -> Map:
    """What lies before an encoder's first stage."""
    if isinstance(encoder, SwinPruned):
        return encoder.stem(image)
    return max_pool(jax.nn.relu(encoder.bn1(encoder.conv1(image), train)), 3, 2, 1)


def merge(encoder: nnx.Module, stage: int, x: Map) -> Map:
    """The way into a stage: Swin's patch merging; in a ResNet nothing lies between stages."""
    return encoder.merge(stage, x) if isinstance(encoder, SwinPruned) else x


def blocks(encoder: nnx.Module, stage: int, x: Map, train: bool, rngs: nnx.Rngs | None) -> tuple[Map, Array | None]:
    """(the map behind a stage's blocks, how many of them computed each token or None)."""
    if isinstance(encoder, SwinPruned):
        return encoder.blocks(stage, x, train, rngs)
    for block in getattr(encoder, f"layer{stage + 1}"):
        x = block(x, train)
    return x, None


def pool(encoder: nnx.Module, x: Map) -> Float[Array, "b d"]:
    """Mean of the last map, normed first in Swin."""
    return encoder.pool(x) if isinstance(encoder, SwinPruned) else global_avg_pool(x)


class XPruning(nnx.Module):
    """Two unshared streams, cross-attention behind stage `ctb_position`, last stage, spatial mean, fusion MLP, linear head.

    encoder and the options down to `drop_path`: as in DualView; the encoder is "swin_pruned_tiny" or a ResNet.

    ctb_dim, ctb_depth, ctb_heads: width, blocks per direction and heads of the cross-attention; depth 0 leaves it out.
    ctb_position: the number of stages before it. ctb_after_merge: it looks at the map behind the patch merging that follows
    them. ctb_pool: looks at the means of so many times so many tokens. ctb_plain, ctb_zero_init, ctb_grid: `plain`,
    `zero_init`, `grid` of CrossViewBlock. ctb_pruned: keys and values come only from the other view's windows of highest
    score, as many as the first block of the next stage keeps. head: "mlp" fuses by the MLP of `fusion_dim`, "linear" not at
    all. dropout: inside the MLP, or before a linear head. remat: also for the cross-attention.

    The paper gives neither widths, depths nor the fusion. These defaults give its 69.79 M trained parameters (69,786,482), and
    so do five plain blocks of 384 channels per direction before the merging, with a linear head: ctb_dim=384, ctb_heads=12,
    ctb_depth=5, ctb_plain=True, ctb_after_merge=False, head="linear" (69,790,322). "STN" in its Fig. 1 is read as the Swin
    block: nothing aligns the views.

    model(cc [b, h, w, c], mlo likewise) -> logits [b, num_classes], or the fused feature where `num_classes` is None; aux=True
    gives a dict of logits, features [b, d] and, with Swin, windows: {view: maps of SwinPruned's `windows`}.
    Raises UserError for options and views that do not fit.
    """

    input_names: tuple[str, ...] = VIEWS
    roles: dict[str, tuple[str, ...]] = {"encoder": VIEWS}

    def __init__(
        self, num_classes: int | None = 2, *, encoder: str = "swin_pruned_tiny",
        prune_ratio: float | str | Sequence | None = None, score: str | None = None, rescore: str | None = None,
        frozen_stages: int | None = None, remat: bool | None = None, depths: Sequence[int] | None = None,
        dims: Sequence[int] | None = None, num_heads: Sequence[int] | None = None, window_size: int | None = None,
        drop_path: float | None = None, ctb_dim: int = 768, ctb_depth: int = 1, ctb_heads: int = 24, ctb_position: int = 3,
        ctb_after_merge: bool = True, ctb_pool: int = 1, ctb_pruned: bool = False, ctb_plain: bool = False,
        ctb_zero_init: bool = False, ctb_grid: tuple[int, int] | None = None, head: str = "mlp", fusion_dim: int = 768,
        dropout: float = 0.1, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        given = dict(
            prune_ratio=prune_ratio, score=score, rescore=rescore, frozen_stages=frozen_stages, remat=remat, depths=depths,
            dims=dims, num_heads=num_heads, window_size=window_size, drop_path=drop_path,
        )
        options = {name: value for name, value in given.items() if value is not None}
        shape = dict(dtype=dtype, rngs=rngs)
        self.num_classes, self.rate = num_classes, dropout
        make_encoders(self, encoder, options | dict(in_channels=in_channels) | shape)
        self.position, self.after_merge, self.remat = ctb_position, ctb_after_merge, bool(remat)
        self.ctb_pruned = check_options(self.cc, ctb_position, ctb_after_merge, ctb_pruned, head)
        if ctb_depth:
            swin = isinstance(self.cc, SwinPruned)
            channels = self.cc.tap_channels[ctb_position if swin and ctb_after_merge else ctb_position - 1]
            options = dict(plain=ctb_plain, zero_init=ctb_zero_init, grid=ctb_grid and tuple(ctb_grid))
            self.exchange = Exchange(channels, ctb_dim, ctb_depth, ctb_heads, ctb_pool, options, **shape)
        self._make_head(num_classes, head, fusion_dim, shape)

    def _make_head(self, num_classes: int | None, head: str, dim: int, shape: dict[str, Any]) -> None:
        width = self.cc.tap_channels[-1]
        if head == "mlp":
            if width != dim:
                self.project = nnx.Dict({view: Linear(width, dim, **shape) for view in VIEWS})
            self.fusion = FusionMLP(dim, self.rate, **shape)
        if num_classes is not None:
            self.head = Linear(dim if head == "mlp" else 2 * width, num_classes, **shape)

    def __call__(
        self, cc: Map, mlo: Map, train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k"] | dict[str, Any]:
        check_views(cc, mlo)
        maps, windows = self.run(cc, mlo, train, rngs)
        features = self.fuse(maps, train, rngs)
        extras = {"features": features} | ({"windows": windows} if isinstance(self.cc, SwinPruned) else {})
        if self.num_classes is None:
            return extras if aux else features
        last = features if hasattr(self, "fusion") else dropout(features, self.rate, train, rngs)
        logits = self.head(last).astype(jnp.float32)
        return {"logits": logits, **extras} if aux else logits

    def run(self, cc: Map, mlo: Map, train: bool = False, rngs: nnx.Rngs | None = None) -> tuple[Pair, dict[str, list[Map]]]:
        """(last maps of both views, their `windows`)."""
        maps, windows = self.before_exchange(cc, mlo, train, rngs)
        if hasattr(self, "exchange"):
            choose = self._choice if self.ctb_pruned else lambda z: None
            maps = self.exchange(*maps, choose, self.remat and train)
        for stage in range(self.position, STAGES):
            merged = stage == self.position and self.after_merge
            maps = self._blocks(stage, maps if merged else self._merged(stage, maps), windows, train, rngs)
        return maps, windows

    def before_exchange(
        self, cc: Map, mlo: Map, train: bool = False, rngs: nnx.Rngs | None = None
    ) -> tuple[Pair, dict[str, list[Map]]]:
        """(the maps that the views exchange, `windows` of the stages so far)."""
        maps = tuple(stem(encoder, x, train) for encoder, x in zip(self.encoders, (cc, mlo), strict=True))
        windows: dict[str, list] = {view: [] for view in VIEWS}
        for stage in range(self.position):
            maps = self._blocks(stage, self._merged(stage, maps), windows, train, rngs)
        return self._merged(self.position, maps) if self.after_merge else maps, windows

    def _merged(self, stage: int, maps: Pair) -> Pair:
        return tuple(merge(encoder, stage, x) for encoder, x in zip(self.encoders, maps, strict=True))

    def _blocks(self, stage: int, maps: Pair, windows: dict[str, list], train: bool, rngs: nnx.Rngs | None) -> Pair:
        """The maps behind a stage; adds to `windows`."""
        outs = [blocks(encoder, stage, x, train, rngs) for encoder, x in zip(self.encoders, maps, strict=True)]
        for view, (_, counts) in zip(VIEWS, outs, strict=True):
            windows[view].append(counts)
        return tuple(x for x, _ in outs)

    @property
    def encoders(self) -> tuple[nnx.Module, nnx.Module]:
        """Those of CC and MLO."""
        return self.cc, self.mlo

    def _choice(self, z: Map) -> tuple[Windows, Array]:
        """The windows of the other view that give keys and values."""
        windows = Windows(*z.shape[1:3], self.cc.window_size)
        if windows.padded:
            raise UserError(f"ctb_pruned=True needs maps of whole windows of {windows.size}; this one is {z.shape[1:3]}")
        keep = kept(windows.count, self.cc.ratios[self.position][0])
        return windows, windows.top(token_magnitude(z, self.cc.score), self.cc.score, keep)

    def fuse(self, maps: Pair, train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """What the last linear layer sees, float32."""
        pooled = [pool(e, x) for e, x in zip(self.encoders, maps, strict=True)]
        if hasattr(self, "project"):
            pooled = [self.project[view](x) for view, x in zip(VIEWS, pooled, strict=True)]
        joined = jnp.concatenate(pooled, -1)
        return (self.fusion(joined, train, rngs) if hasattr(self, "fusion") else joined).astype(jnp.float32)

    def cross_attention(
        self, cc: Map, mlo: Map, view: str, tokens: Sequence[int] | Int[Array, "*b n"]
    ) -> Float[Array, "b n h w"]:
        """Attention of `tokens` (row by row in the map of `view`) over the other view's map, mean over heads; rows sum to 1.

        Of the first block of the direction, for explanations. Raises UserError without cross-attention.
        """
        return self.attention_between(self.entered(cc, mlo), view, jnp.asarray(tokens))

    def attention_between(self, maps: Pair, view: str, tokens: Int[Array, "*b n"]) -> Float[Array, "b n h w"]:
        """`cross_attention` of the maps that `entered` gives."""
        own, other = maps if view == VIEWS[0] else maps[::-1]
        block, chosen = getattr(self.exchange, view)[0], self._choice(other) if self.ctb_pruned else None
        weights = block.weights(own, block.keys(other), tokens, None if chosen is None else mark(*chosen))
        return weights.reshape(*weights.shape[:2], *other.shape[1:3])

    def entered(self, cc: Map, mlo: Map) -> Pair:
        """The maps between which the cross-attention runs. Raises UserError without one."""
        if not hasattr(self, "exchange"):
            raise UserError("this network was made with ctb_depth=0: it has no cross-attention to show")
        return tuple(self.exchange.entered(*self.before_exchange(cc, mlo)[0]))


def check_options(encoder: nnx.Module, position: int, after_merge: bool, pruned: bool, head: str) -> bool:
    """`pruned` itself; raises UserError for options that do not exist or that this encoder cannot have."""
    if not isinstance(encoder, SwinPruned | ResNet):
        raise UserError("the streams of this network are swin_pruned_tiny or a ResNet; set encoder")
    if position not in range(1, STAGES):
        raise UserError(f"ctb_position={position}: the cross-attention stands behind stage 1, 2 or 3")
    if pruned and not (isinstance(encoder, SwinPruned) and after_merge):
        raise UserError("ctb_pruned=True: only the map behind a Swin's patch merging has windows to choose from")
    if head not in ("mlp", "linear"):
        raise UserError(f"head={head!r} is neither 'mlp' (fusion MLP) nor 'linear' (features side by side)")
    return pruned


register("x_pruning", prune_ratio=0.3, frozen_stages=2, drop_path=0.1)(XPruning)
# layer3's maps at stride 16 are pooled to the 84 x 28 tokens that x_pruning's streams exchange
register("x_resnet18", encoder="resnet18", ctb_pool=2)(XPruning)
