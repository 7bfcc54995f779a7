"""Which windows of a mammogram a pruned Swin computed, stage by stage (X-Pruning, Fig. 2)."""

from collections.abc import Mapping, Sequence

import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxmed.backbones.swin_pruned import SwinPruned
from jaxmed.explain.overlay import WINDOWS, HeatMap
from jaxmed.ops.window_pruning import Windows, kept


def window_maps(
    model: nnx.Module, windows: Mapping[str, Sequence[Float[np.ndarray, "h w"]]]
) -> list[HeatMap]:
    """A map per picture and stage: the share of the stage's blocks that computed each token.

    windows: {picture: of each stage in how many blocks a token was computed}, as the network's `windows` under aux=True.
    """
    maps = []
    for picture, stages in windows.items():
        path, encoder = _encoder(model, picture)
        for stage, (counts, ratios) in enumerate(zip(stages, encoder.ratios, strict=True)):
            name, layer = f"{picture} stage {stage + 1}", f"{path}.layers.{stage}".lstrip(".")
            says = _numbers(counts, ratios, encoder.window_size)
            maps.append(HeatMap(name, picture, counts / len(ratios), float(counts.max()), layer, WINDOWS, says=says))
    return maps


def _encoder(model: nnx.Module, picture: str) -> tuple[str, SwinPruned]:
    """The (path and) encoder that read this picture: one of its own name, or the only one there is."""
    found = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if isinstance(module, SwinPruned)}
    path = picture if picture in found else next(iter(found))
    return path, found[path]


def _numbers(counts: Float[np.ndarray, "h w"], ratios: Sequence[float], size: int) -> str:
    """Ratio, windows kept of all, and how the blocks' choices add up."""
    total = Windows(*counts.shape, size).count
    keeps = sorted({kept(total, ratio) for ratio in ratios})
    rates = "-".join(dict.fromkeys(f"{ratio:g}" for ratio in (min(ratios), max(ratios))))
    number = "-".join(dict.fromkeys(map(str, (keeps[0], keeps[-1]))))
    always, never = np.mean(counts == len(ratios)), np.mean(counts == 0)
    share = f"{len(ratios)} blocks, tokens in every one {always:.0%}, in none {never:.0%}" if len(ratios) > 1 else ""
    return f"r {rates}: {number} of {total} windows" + (f"; {share}" if share else "")
