"""Initialisers with PyTorch's defaults, for kernels in HWIO or (in, out) layout."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Initializer = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def kaiming_normal(mode: str = "fan_out") -> Initializer:
    """Normal with variance 2 / fan (He et al. 2015); `mode` is "fan_out" or "fan_in".

    A grouped or depthwise kernel [h, w, i, o] of g groups has fan_out h*w*o/g; torch forgets the g, timm does not.
    """

    def init(key: jax.Array, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
        window = _product(shape[:-2])
        fan = window * (shape[-1] // groups if mode == "fan_out" else shape[-2])
        return jax.random.normal(key, shape) * (2.0 / fan) ** 0.5

    return init


def torch_uniform(fan_in: int | None = None) -> Initializer:
    """Uniform in +-1/sqrt(fan_in): what torch gives a Linear or Conv2d (weight and bias) unless told otherwise."""

    def init(key: jax.Array, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
        bound = (fan_in or _product(shape[:-1])) ** -0.5
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return init


def normal(std: float) -> Initializer:
    """Normal with the given standard deviation."""
    return lambda key, shape, groups=1: std * jax.random.normal(key, shape)


def zeros(key: jax.Array, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
    """All zero."""
    return jnp.zeros(shape)


def _product(numbers: tuple[int, ...]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
