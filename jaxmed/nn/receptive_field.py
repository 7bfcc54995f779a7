"""Receptive field block: four branches look at ever wider surroundings (Liu, Huang, Wang, ECCV 2018)."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.nn.conv_norm import ConvNorm

WIDTHS = (3, 5, 7)  # of a branch's strip convolutions; also the dilation of its last one


class ReceptiveField(nnx.Module):
    """The form that MTANet takes from polyp segmentation (Fan et al., PraNet, 2020), every convolution ConvNorm(relu_first).

    Branches: 1x1; and for w = 3, 5, 7: 1x1, 1xw, wx1, 3x3 dilated by w. Together through a 3x3, plus a 1x1 of the input, ReLU.
    """

    def __init__(self, in_channels: int, channels: int, *, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        def conv(inside: int, kernel: int | tuple[int, int], dilation: int = 1) -> ConvNorm:
            return ConvNorm(inside, channels, kernel, dilation=dilation, relu_first=True, dtype=dtype, rngs=rngs)

        self.branches = nnx.List([nnx.List([conv(in_channels, 1)])])
        for w in WIDTHS:
            layers = [conv(in_channels, 1), conv(channels, (1, w)), conv(channels, (w, 1)), conv(channels, 3, dilation=w)]
            self.branches.append(nnx.List(layers))
        self.conv_cat = conv(len(self.branches) * channels, 3)
        self.conv_res = conv(in_channels, 1)

    def __call__(self, x: Float[Array, "b h w i"], train: bool = False) -> Float[Array, "b h w o"]:
        maps = []
        for branch in self.branches:
            y = x
            for layer in branch:
                y = layer(y, train)
            maps.append(y)
        return jax.nn.relu(self.conv_cat(jnp.concatenate(maps, -1), train) + self.conv_res(x, train))
