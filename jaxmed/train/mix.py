"""Mixup and cutmix on the global batch, inside the jitted step: timm's `Mixup` in batch mode (HSQformer spec., section 9).

Every row is mixed with the row opposite to it (the batch turned about), all with one share. Mixup: Zhang et al. 2018; cutmix:
Yun et al. 2019, with the share corrected to the box that lies inside the image. It acts on normalised inputs; as mixing is
linear and normalisation affine, the result is that of mixing the bytes.

Odd boxes keep their size, as in timm 1.0.31; timm's earlier releases made them one pixel smaller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxmed.errors import UserError
from jaxmed.tasks.soft_targets import smooth


@dataclass(frozen=True)
class MixOptions:
    """HSQformer's numbers.

    Attributes:
        mixup, cutmix: alpha of Beta(alpha, alpha), from which the share is drawn; 0 switches one off.
        prob: of mixing a batch at all. switch_prob: of cutmix, where both are on.
        smoothing: of the labels. double_smoothing: smooth twice, as HSQformer's code does by accident.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    prob: float = 1.0
    switch_prob: float = 0.5
    smoothing: float = 0.1
    double_smoothing: bool = False


class Draw(NamedTuple):
    """`share` is what a row keeps of itself; `box` (top, bottom, left, right) is what cutmix takes from the other row."""

    cutmix: Array
    share: Array
    box: Array


def mix_options(options: Mapping) -> MixOptions:
    """UserError: an unknown key or a value outside its range."""
    given, known = dict(options), [field.name for field in fields(MixOptions)]
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"mix.{unknown[0]} is unknown; choose from {', '.join(known)}")
    for key, value in given.items():
        if value < 0 or (key not in ("mixup", "cutmix") and value > 1):
            limit = "0 or more" if key in ("mixup", "cutmix") else "between 0 and 1"
            raise UserError(f"mix.{key}={value} must be {limit}")
    return MixOptions(**given)


def mix(
    inputs: Sequence[Float[Array, "b *v h w c"]], labels: Int[Array, " b"], key: Array, num_classes: int, options: MixOptions
) -> tuple[list[Float[Array, "b *v h w c"]], Float[Array, "b classes"]]:
    """(mixed inputs, soft targets of the smoothed and mixed labels) of a batch; `key` decides everything.

    All inputs of a case share the draw, and so must share height and width. Rows of weight 0 are not left out: a training batch
    has none. A label of -1 gives no class its share.
    """
    sizes = {x.shape[-3:-1] for x in inputs}
    if len(sizes) != 1:
        raise UserError(f"mixing needs inputs of one height and width, got {sorted(sizes)}")
    what = draw(key, sizes.pop(), options)
    targets = smooth(jax.nn.one_hot(labels, num_classes), options.smoothing)
    if options.double_smoothing:
        targets = smooth(targets, options.smoothing)
    return [mix_pixels(x, what) for x in inputs], mix_targets(targets, what)


def draw(key: Array, size: tuple[int, int], options: MixOptions) -> Draw:
    """One draw for a batch of images of `size` (height, width)."""
    mixing, switch, share, row, column = jax.random.split(key, 5)
    both = options.mixup > 0 and options.cutmix > 0
    cutmix = jax.random.bernoulli(switch, float(options.switch_prob)) if both else jnp.asarray(options.cutmix > 0)
    alpha = jnp.where(cutmix, float(options.cutmix), float(options.mixup)) if both else float(options.mixup + options.cutmix)
    kept = jax.random.beta(share, alpha, alpha) if options.mixup + options.cutmix > 0 else jnp.ones(())
    kept = jnp.where(jax.random.bernoulli(mixing, float(options.prob)), kept, 1.0)
    centre = (jax.random.randint(row, (), 0, size[0]), jax.random.randint(column, (), 0, size[1]))
    return make_draw(cutmix, kept, centre, size)


def make_draw(cutmix: Array, share: Array, centre: tuple[Array, Array], size: tuple[int, int]) -> Draw:
    """The box about `centre` (row, column) that covers 1 - `share` of the image, cut at its border, and the share it leaves."""
    side = jnp.sqrt(1.0 - share)
    box = jnp.stack([end for middle, length in zip(centre, size, strict=True) for end in _ends(middle, side, length)])
    left_alone = 1.0 - (box[1] - box[0]) * (box[3] - box[2]) / (size[0] * size[1])
    return Draw(jnp.asarray(cutmix), jnp.where(cutmix, left_alone, share), box)


def mix_pixels(x: Float[Array, "b *v h w c"], what: Draw) -> Float[Array, "b *v h w c"]:
    """Every image with the one of the opposite row."""
    rows, columns = jnp.arange(x.shape[-3])[:, None], jnp.arange(x.shape[-2])[None]
    top, bottom, left, right = what.box
    outside = ~((rows >= top) & (rows < bottom) & (columns >= left) & (columns < right))
    keep = jnp.where(what.cutmix, outside.astype(x.dtype), what.share.astype(x.dtype))
    keep = keep.reshape((1,) * (x.ndim - 3) + (*keep.shape, 1))
    return x * keep + x[::-1] * (1 - keep)


def mix_targets(targets: Float[Array, "b classes"], what: Draw) -> Float[Array, "b classes"]:
    """The targets in the same shares."""
    return targets * what.share + targets[::-1] * (1.0 - what.share)


def _ends(middle: Array, side: Array, length: int) -> tuple[Array, Array]:
    cut = (length * side).astype(jnp.int32)
    return jnp.clip(middle - cut // 2, 0, length), jnp.clip(middle + (cut + 1) // 2, 0, length)
