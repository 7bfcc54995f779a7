"""How one array is laid out in PyTorch and here, both ways."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layout:
    """A pair of inverse functions on one array."""

    to_jax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _kernel_to_jax(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (0, 1), (-1, -2))


def _kernel_to_torch(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, (-1, -2), (0, 1))


AS_IS = Layout(_same, _same)
# [out, in, *window] <-> [*window, in, out]: convolutions of any rank, grouped ([out, in / groups, ...]) and depthwise
# ([channels, 1, ...]) ones, and, with no window, linear layers
KERNEL = Layout(_kernel_to_jax, _kernel_to_torch)

# [in, out, *window] <-> [*window, in, out]: torch's transposed convolutions
TRANSPOSED = Layout(
    lambda array: np.moveaxis(array, (0, 1), (-2, -1)),
    lambda array: np.moveaxis(array, (-2, -1), (0, 1)),
)


def convolved(channels: int, window: int) -> Layout:
    """A linear layer on a flattened map that the source stores as a convolution.

    [out, channels, window, window] <-> [channels * window * window, out]; the map is flattened channels first.
    """
    return Layout(
        lambda array: array.reshape(array.shape[0], channels * window * window).T,
        lambda array: array.T.reshape(array.shape[1], channels, window, window),
    )


def default_layout(path: str) -> Layout:
    """The layout of a leaf that no rule of its family names: kernels are transposed, everything else is kept."""
    return KERNEL if path.rpartition(".")[2] == "kernel" else AS_IS
