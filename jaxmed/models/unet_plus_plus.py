"""UNet++ (Zhou et al. 2018): nodes X^(i,j) at depth i, each fed by all earlier nodes of its depth and by the one below."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.models.mask_model import MaskModel, mask_conv
from jaxmed.nn import max_pool
from jaxmed.nn.double_conv import DoubleConv
from jaxmed.nn.patch_up_conv import PatchUpConv
from jaxmed.ops.resize import double
from jaxmed.registry import register

DEPTHS = {"nested": 4, "nnunet": 5}  # halvings
NODES = {"nested": "conv", "nnunet": "node"}  # first part of a node's name: the key rules tell the variants apart by it
MOST_CHANNELS = 480  # nnU-Net's limit for 2-D networks
LEAK = 0.01


@register("unet_plus_plus")
class UNetPlusPlus(MaskModel):
    """Channels double from `base_width` with each halving; see MaskModel.

    variant="nested": four halvings by 2x2 maxima, bilinear doubling (corners on corners). With deep_supervision, dicts hold
    `side_logits_k`, the mask logits of X^(0,k), k = 1 to 3.
    variant="nnunet" (the authors', within nnU-Net): five halvings by strided convolutions, leaky ReLUs, transposed
    convolutions, at most 480 channels. Its published weights hold the side heads, k = 1 to 4, so they are always there.

    Raises UserError for another variant and for sides that are no multiples of 16 (nested) or 32 (nnunet).
    """

    def __init__(
        self, num_classes: int | None = 2, *, variant: str = "nested", mask_channels: int = 1, base_width: int = 32,
        deep_supervision: bool = False, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        if variant not in DEPTHS:
            raise UserError(f"variant={variant!r} is none of {', '.join(map(repr, DEPTHS))}")
        self.variant, self.depth, self.stride = variant, DEPTHS[variant], 2 ** DEPTHS[variant]
        shape, nested = dict(dtype=dtype, rngs=rngs), variant == "nested"
        widths = [base_width << i if nested else min(base_width << i, MOST_CHANNELS) for i in range(self.depth + 1)]
        options = shape | (dict(bias=True) if nested else dict(bias=True, slope=LEAK))
        joined = [(i, j) for i in range(self.depth) for j in range(1, self.depth - i + 1)]
        up = [widths[i + nested] for i in range(self.depth)]  # channels of what comes from below
        blocks = {(i, j): DoubleConv(j * widths[i] + up[i], widths[i], **options) for i, j in joined}
        for i, (below, width) in enumerate(zip([in_channels, *widths], widths, strict=False)):
            blocks[i, 0] = DoubleConv(below, width, stride=1 if nested or i == 0 else 2, **options)
        self.nodes = nnx.Dict({f"{NODES[variant]}{i}_{j}": block for (i, j), block in blocks.items()})
        if not nested:
            self.ups = nnx.Dict({f"{i}_{j}": PatchUpConv(widths[i + 1], widths[i], bias=False, **shape) for i, j in joined})
        self.head_names = self._name_heads(deep_supervision)
        heads = {name: mask_conv(base_width, mask_channels, bias=nested, **shape) for name in self.head_names}
        self.mask_heads = nnx.Dict(heads)
        self.add_head(widths[-1], num_classes, **shape)

    def _name_heads(self, deep_supervision: bool) -> tuple[str, ...]:
        """Names of the heads of the last nodes X^(0,k), as published; the last one gives the mask."""
        if self.variant == "nested" and not deep_supervision:
            return ("final",)
        return tuple(f"{'final' if self.variant == 'nested' else 'seg'}{k + 1}" for k in range(self.depth))

    def masks(self, image: Float[Array, "b h w c"], train: bool, rngs: nnx.Rngs | None) -> tuple[Array, dict[str, Array]]:
        """(deepest map, mask logits and side logits)."""
        rows: list[list[Array]] = []
        for i in range(self.depth + 1):
            rows.append([self.node(i, 0, self.halve(rows[-1][0]) if i else image, train)])
            for k in reversed(range(i)):  # the nodes that can be computed now
                j = i - k
                rows[k].append(self.node(k, j, jnp.concatenate([*rows[k], self.double(rows[k + 1][-1], k, j)], -1), train))
        tops = rows[0][-len(self.head_names) :]
        logits = [self.mask_heads[name](x) for name, x in zip(self.head_names, tops, strict=True)]
        sides = {f"side_logits_{k}": x for k, x in enumerate(logits[:-1], 1)}
        return rows[-1][0], {"mask_logits": logits[-1]} | sides

    def node(self, i: int, j: int, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        """X^(i,j) from its joined inputs."""
        return self.nodes[f"{NODES[self.variant]}{i}_{j}"](x, train)

    def halve(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        """2x2 maxima, where the next convolution has no stride."""
        return max_pool(x, 2, 2) if self.variant == "nested" else x

    def double(self, x: Float[Array, "b h w c"], i: int, j: int) -> Float[Array, "b h2 w2 d"]:
        """The map from below, for X^(i,j)."""
        return double(x, align_corners=True) if self.variant == "nested" else self.ups[f"{i}_{j}"](x)
