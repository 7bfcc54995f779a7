"""Batch norms of frozen layers, which infer even while the rest of a network trains."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.norm import BatchNorm
from jaxmed.tree import is_under


class FrozenBatchNorm(BatchNorm):
    """Normalises by its running statistics whatever `train` says, and leaves them alone; leaves as BatchNorm's."""

    def __call__(self, x: Float[Array, "*b c"], train: bool = False) -> Float[Array, "*b c"]:
        return super().__call__(x, train=False)


def freeze_norms(model: nnx.Module, prefixes: Sequence[str]) -> None:
    """Replaces, in place, every BatchNorm at or below the path prefixes, before weights are loaded."""
    for path, module in list(nnx.iter_modules(model)):
        for name, child in list(vars(module).items()):
            if type(child) is BatchNorm and is_under(".".join(map(str, (*path, name))), tuple(prefixes)):
                setattr(module, name, FrozenBatchNorm(child.mean.shape[0], eps=child.eps, dtype=child.dtype))
