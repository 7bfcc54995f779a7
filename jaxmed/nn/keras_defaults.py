"""What Keras gives a layer unless told otherwise."""

import math

import jax

from jaxmed.nn.init import draw, zeros

KERAS_NORM = dict(eps=1e-3, momentum=0.99)


def glorot_uniform(key: jax.Array, shape: tuple[int, ...], groups: int = 1) -> jax.Array:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010).

    The fans of a kernel [h, w, a, b] are h*w*a and h*w*b, in either order: depthwise kernels [h, w, 1, c] and transposed ones
    [h, w, out, in] get the limits that Keras gives them.
    """
    bound = (6.0 / (math.prod(shape[:-2]) * (shape[-2] + shape[-1]))) ** 0.5
    return draw(jax.random.uniform, key, shape, minval=-bound, maxval=bound)


KERAS_INIT = dict(kernel_init=glorot_uniform, bias_init=zeros)
