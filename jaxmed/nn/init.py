"""Initialisers with PyTorch's defaults, for kernels in HWIO or (in, out) layout."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Initializer = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def kaiming_normal(mode: str = "fan_out") -> Initializer:
    """Normal with variance 2 / fan (He et al. 2015); `mode` is "fan_out" or "fan_in".

    A grouped or depthwise kernel [h, w, i, o] of g groups has fan_out h*w*o/g; torch forgets the g, timm does not.
    """

    def init(key: jax.Array, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
        window = math.prod(shape[:-2])
        fan = window * (shape[-1] // groups if mode == "fan_out" else shape[-2])
        return draw(jax.random.normal, key, shape, scale=(2.0 / fan) ** 0.5)

    return init


def torch_uniform(fan_in: int | None = None) -> Initializer:
    """Uniform in +-1/sqrt(fan_in): what torch gives a Linear or Conv2d (weight and bias) unless told otherwise."""

    def init(key: jax.Array, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
        bound = (fan_in or math.prod(shape[:-1])) ** -0.5
        return draw(jax.random.uniform, key, shape, minval=-bound, maxval=bound)

    return init


def normal(std: float) -> Initializer:
    """Normal with the given standard deviation."""
    return lambda key, shape, groups=1: draw(jax.random.normal, key, shape, scale=std)


def trunc_normal(std: float) -> Initializer:
    """Normal with the given standard deviation, cut at -2 and 2 (absolute) as timm's transformers do."""
    return lambda key, shape, groups=1: draw(jax.random.normal, key, shape, scale=std).clip(-2.0, 2.0)


def zeros(key: jax.Array | None, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
    """All zero."""
    return jnp.array(np.zeros(shape, np.float32))


def ones(key: jax.Array | None, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
    """All one."""
    return jnp.array(np.ones(shape, np.float32))


# what transformer blocks start from, here and in timm
TRANSFORMER_INIT = dict(kernel_init=trunc_normal(0.02), bias_init=zeros)


def draw(sample: Callable, key: jax.Array, shape: tuple[int, ...], scale: float = 1.0, **options: float) -> jax.Array:
    """scale * sample(key, shape, **options), compiled for powers of four only.

    JAX compiles a sampler for every new shape: 12 of the 14 seconds that three MobileNetV2 took to make, now 3. Its numbers are
    counter-based, so the first ones of a longer draw are those of the shorter.
    """
    if isinstance(key, jax.core.Tracer):
        return scale * sample(key, shape, **options)
    count = math.prod(shape)
    length = next((4**k for k in range(12) if 4**k >= count), count)  # the largest ones, of which there are few, as they are
    numbers = np.asarray(sample(key, (length,), **options))
    return jnp.array(np.float32(scale) * numbers[:count].reshape(shape))
