"""The share of windows that each block leaves out, and how it grows during the first epochs."""

from collections.abc import Sequence

from jaxmed.errors import UserError

Ratios = tuple[tuple[float, ...], ...]

# searched by SparseViT (Chen et al. 2023) for less and less time; six blocks in the third stage
PRESETS = {
    "sparsevit_low": (0.3, 0.0, (0.1, 0.1, 0.2, 0.2, 0.2, 0.2), 0.0),
    "sparsevit_middle": (0.6, 0.0, (0.2, 0.2, 0.4, 0.4, 0.5, 0.5), 0.0),
    "sparsevit_high": (0.7, 0.0, (0.2, 0.2, 0.4, 0.4, 0.5, 0.5), 0.0),
}


def prune_ratios(ratio: float | str | Sequence, depths: Sequence[int]) -> Ratios:
    """One ratio per block of each stage.

    `ratio`: one number for all, a number or a list (one number per block) for each stage, or the name of a preset. Raises
    UserError for other lengths, unknown names and numbers outside [0, 1).
    """
    if isinstance(ratio, str):
        if ratio not in PRESETS:
            raise UserError(f"prune_ratio={ratio!r} is no number and none of {', '.join(map(repr, PRESETS))}")
        ratio = PRESETS[ratio]
    stages = [ratio] * len(depths) if isinstance(ratio, int | float) else list(ratio)
    if len(stages) != len(depths):
        raise UserError(f"prune_ratio={ratio} has {len(stages)} stages; the network has {len(depths)}")
    blocks = [[s] * n if isinstance(s, int | float) else list(s) for s, n in zip(stages, depths, strict=True)]
    for s, (given, depth) in enumerate(zip(blocks, depths, strict=True)):
        if len(given) != depth or not all(0 <= r < 1 for r in given):
            raise UserError(f"prune_ratio: stage {s + 1} has {given}; it needs one number or {depth} numbers, in [0, 1)")
    return tuple(tuple(float(r) for r in stage) for stage in blocks)


def warm_up_factors(
    epoch: int, epochs: int = 5, *, by: str = "epoch", levels: int = 5, stages: int = 4
) -> tuple[float, ...]:
    """The factor of each stage's ratio in training epoch `epoch` (from 0): 0 at first, 1 from epoch `epochs` on.

    X-Pruning warms up "layer-by-layer or epoch-by-epoch". by="epoch": all stages together, r min(1, epoch / epochs), rounded
    down to a multiple of 1 / levels. by="layer": whole stages, one after the other. The number of kept windows is part of the
    compiled program, so a run compiles once for each different result: `levels` + 1, or `stages` + 1, times at most.
    Raises UserError for another `by`.
    """
    done = 1.0 if epoch >= epochs else epoch / epochs
    if by == "epoch":
        return (int(done * levels + 1e-6) / levels,) * stages
    if by == "layer":
        return tuple(float(s < int(done * stages + 1e-6)) for s in range(stages))
    raise UserError(f"warm-up by={by!r} is neither 'epoch' (all stages together) nor 'layer' (one after the other)")
