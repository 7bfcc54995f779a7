"""Swin Transformer that computes the most active windows only (SparseViT; the encoder of X-Pruning)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.backbones.backbone import Maps
from jaxmed.backbones.swin import PATCH, Swin
from jaxmed.errors import UserError
from jaxmed.nn import global_avg_pool
from jaxmed.nn.prune_ratio import prune_ratios
from jaxmed.nn.pruned_block import mark, run_on_windows
from jaxmed.nn.recompute import recomputed
from jaxmed.ops.window_pruning import SCORES, Windows, kept, token_magnitude
from jaxmed.ops.windows import pad_to_multiple
from jaxmed.registry import register

RESCORES = ("stage", "block")
Map = Float[Array, "b h w c"]


@register("swin_pruned_tiny")
class SwinPruned(Swin):
    """Swin with the same parameters, whose blocks run on the K = floor(n (1 - r)) windows of highest score, K >= 1.

    prune_ratio: r of all blocks, of each stage, or of each block (a list inside the list); 0 is Swin itself. Presets:
    "sparsevit_low", "sparsevit_middle", "sparsevit_high". score: "xpruning" = mean over a window of its tokens' L2 norms,
    "sparsevit" = L2 norm over a window of its tokens' mean absolute values; both of what enters the block, before its norm.
    rescore: "stage" = ranked once, at the stage's first block that prunes, so that sets are nested; "block" = each time anew.
    Shifted and unshifted windows are ranked apart.

    frozen_stages: so many stages, with the patch embedding and the merging behind each, do not train: no gradient, no stored
    activations, no drop path. remat: blocks that train compute their inner values again in the backward pass.
    S and B are depths=(2, 2, 18, 2), B with dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32).

    Warm-up: `warm_up` holds a factor of each stage's ratio that acts while training (`set_warm_up`); evaluation always prunes
    by the full ratio.
    aux=True adds `windows`: for each stage [b, h, w], in how many of its blocks a token was computed.
    Raises UserError for ratios, scores and stages that do not exist.
    """

    def __init__(
        self, num_classes: int | None = 2, *, prune_ratio: float | str | Sequence = 0.3, score: str = "xpruning",
        rescore: str = "stage", frozen_stages: int = 2, remat: bool = False, depths: tuple[int, ...] = (2, 2, 6, 2),
        dims: tuple[int, ...] = (96, 192, 384, 768), num_heads: tuple[int, ...] = (3, 6, 12, 24), window_size: int = 7,
        drop_path: float = 0.1, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        shape = dict(depths=depths, dims=dims, num_heads=num_heads, window_size=window_size, drop_path=drop_path)
        super().__init__(num_classes, **shape, in_channels=in_channels, dtype=dtype, rngs=rngs)
        check_choice("score", score, SCORES)
        check_choice("rescore", rescore, RESCORES)
        check_choice("frozen_stages", frozen_stages, range(len(depths) + 1))
        self.ratios = prune_ratios(prune_ratio, depths)
        self.score, self.rescore, self.window_size, self.remat = score, rescore, window_size, remat
        self.warm_up = (1.0,) * len(depths)
        self.frozen_stages, self.frozen = frozen_stages, frozen_paths(frozen_stages, len(depths))

    def __call__(
        self, image: Map, train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k"] | dict[str, Any]:
        maps, windows = self.run(image, train, rngs)
        features = self.pool(maps[-1])
        logits = {} if self.num_classes is None else {"logits": self.classify(features, train, rngs).astype(jnp.float32)}
        return logits | {"features": features, "windows": windows} if aux else logits.get("logits", features)

    def features(self, image: Map, train: bool = False, rngs: nnx.Rngs | None = None) -> Maps:
        """Outputs of the four stages, before the final norm."""
        return self.run(image, train, rngs)[0]

    def run(self, image: Map, train: bool, rngs: nnx.Rngs | None) -> tuple[Maps, list[Float[Array, "b h w"]]]:
        """(outputs of the stages, in how many blocks of each stage a token was computed)."""
        x, maps, windows = self.stem(image), [], []
        for stage in range(len(self.layers)):
            x, counts = self.blocks(stage, self.merge(stage, x), train, rngs)
            maps.append(x)
            windows.append(counts)
        return maps, windows

    def stem(self, image: Map) -> Map:
        """The patches."""
        return self._held(0, self.patch_embed(pad_to_multiple(image, PATCH)))

    def merge(self, stage: int, x: Map) -> Map:
        """The way into a stage; frozen with the stage before it."""
        layer = self.layers[stage]
        return self._held(stage, layer.downsample(x) if hasattr(layer, "downsample") else x)

    def blocks(
        self, stage: int, x: Map, train: bool, rngs: nnx.Rngs | None
    ) -> tuple[Map, Float[Array, "b h w"]]:
        """(the map behind a stage's blocks, how many of them computed each token)."""
        factor = self.warm_up[stage] if train else 1.0
        train = train and stage >= self.frozen_stages
        counts, magnitude = jnp.zeros(x.shape[:3]), None
        for block, ratio in zip(self.layers[stage].blocks, self.ratios[stage], strict=True):
            windows = Windows(*x.shape[1:3], self.window_size, block.shift)
            keep = kept(windows.count, ratio * factor)
            if keep == windows.count:
                x, counts = self._run(dense_block, block, train, rngs, x), counts + 1
                continue
            if magnitude is None or self.rescore == "block":
                magnitude = token_magnitude(x, self.score)
            index = windows.top(magnitude, self.score, keep)
            x, counts = self._run(pruned_block(windows), block, train, rngs, x, index), counts + mark(windows, index)
        return self._held(stage + 1, x), counts

    def pool(self, x: Map) -> Float[Array, "b d"]:
        """Mean of the normed last map."""
        return global_avg_pool(self.norm(x))

    def pooled(self, image: Map, train: bool, rngs: nnx.Rngs | None) -> Float[Array, "b d"]:
        """Mean of the normed last map."""
        return self.pool(self.features(image, train, rngs)[-1])

    def _run(self, run, block: nnx.Module, train: bool, rngs: nnx.Rngs | None, *inputs: Array) -> Map:
        if not (self.remat and train):
            return run(block, *inputs, rngs if train else None, train=train)
        return recomputed(lambda *a: run(*a, train=True), block, *inputs, rngs=rngs)

    def _held(self, stage: int, x: Map) -> Map:
        """No gradient reaches what lies before stage number `frozen_stages`."""
        return jax.lax.stop_gradient(x) if stage <= self.frozen_stages and self.frozen_stages else x


def dense_block(block: nnx.Module, x: Map, rngs: nnx.Rngs | None, *, train: bool) -> Map:
    """All windows: Swin's own block."""
    return block(x, train, rngs)


def pruned_block(windows: Windows):
    """Some of these windows, as a function of the same form."""

    def run(block: nnx.Module, x: Map, index: Array, rngs: nnx.Rngs | None, *, train: bool) -> Map:
        return run_on_windows(block, x, index, windows, train, rngs)

    return run


def kept_windows(model: nnx.Module, size: tuple[int, int]) -> list[tuple[int, ...]]:
    """How many windows each stage's blocks compute while training, in every pruned encoder inside `model`.

    size: (height, width) of the images.
    """
    found = []
    for _, module in nnx.iter_modules(model):
        if isinstance(module, SwinPruned):
            height, width = (-(-n // PATCH) for n in size)
            for factor, ratios in zip(module.warm_up, module.ratios, strict=False):  # a small network may have fewer stages
                count = Windows(height, width, module.window_size).count
                found.append(tuple(kept(count, ratio * factor) for ratio in ratios))
                height, width = -(-height // 2), -(-width // 2)
    return found


def set_warm_up(model: nnx.Module, factors: Sequence[float]) -> None:
    """Sets the training ratios of every pruned encoder inside `model`, as factors per stage (`warm_up_factors`).

    They are part of the network's static structure: a step that is compiled afterwards, from the model split anew, has them.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, SwinPruned):
            module.warm_up = tuple(map(float, factors))


def frozen_paths(stages: int, total: int) -> tuple[str, ...]:
    """Paths of the patch embedding, the first stages' blocks and the mergings behind them (timm's names)."""
    if not stages:
        return ()
    after = (f"layers.{stages}.downsample",) if stages < total else ("norm",)
    return ("patch_embed", *(f"layers.{s}" for s in range(stages)), *after)


def check_choice(option: str, value: Any, choices: Sequence) -> None:
    """Raises UserError unless the value of an option is one of its choices."""
    if value not in choices:
        raise UserError(f"{option}={value!r} is none of {', '.join(map(repr, choices))}")
