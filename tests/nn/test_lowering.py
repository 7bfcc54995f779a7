"""Layers that are lowered by platform: the CPU form and XLA's own must be one function, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.nn.conv import conv2d, lax_conv
from jaxmed.nn.depthwise import depthwise_conv, lax_depthwise
from jaxmed.nn.pool import lax_max_pool, max_pool


def normal(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def value_and_gradients(function, *args):
    value, pull = jax.vjp(function, *args)
    return value, *pull(normal(*value.shape))


def assert_close(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))  # float32 sums in another order


@pytest.mark.parametrize(("size", "kernel", "stride"), [(9, 3, 1), (9, 3, 2), (8, 3, 2), (12, 7, 1)])
def test_depthwise_convolution_is_the_same_both_ways(size, kernel, stride):
    x, k = normal(2, size, size, 5), normal(kernel, kernel, 1, 5)
    shape = ((stride, stride), (kernel // 2, kernel // 2))
    expected = value_and_gradients(lambda x, k: lax_depthwise(x, k, *shape), x, k)
    assert_close(value_and_gradients(jax.jit(lambda x, k: depthwise_conv(x, k, stride, kernel // 2)), x, k), expected)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [(9, 3, 1, 1, 1), (10, 3, 2, 1, 1), (33, 7, 2, 3, 1), (8, 1, 1, 0, 1), (8, 1, 2, 0, 1), (11, 3, 1, 2, 2), (40, 3, 1, 1, 1)],
)
def test_dense_convolution_is_the_same_both_ways(size, kernel, stride, padding, dilation):
    x, k = normal(3, size, size + 2, 4), normal(kernel, kernel, 4, 6)
    shape = [(n, n) for n in (stride, padding, dilation)]
    expected = value_and_gradients(lambda x, k: lax_conv(x, k, *shape), x, k)
    assert_close(value_and_gradients(jax.jit(lambda x, k: conv2d(x, k, stride, padding, dilation)), x, k), expected)


@pytest.mark.parametrize(("size", "groups", "stride", "dilation"), [(9, 6, 1, 1), (10, 2, 2, 1), (33, 12, 1, 1), (9, 3, 1, 2)])
def test_grouped_convolution_is_the_same_both_ways(size, groups, stride, dilation):
    x, k = normal(2, size, size + 1, 12), normal(3, 3, 12 // groups, 24)
    shape = [(n, n) for n in (stride, 1, dilation)]
    expected = value_and_gradients(lambda x, k: lax_conv(x, k, *shape, groups), x, k)
    assert_close(value_and_gradients(jax.jit(lambda x, k: conv2d(x, k, stride, 1, dilation, groups)), x, k), expected)


@pytest.mark.parametrize("constant", [False, True])
def test_max_pool_is_the_same_both_ways_and_ties_go_to_the_first(constant):
    x = jnp.zeros((2, 9, 8, 3)) if constant else jnp.round(normal(2, 9, 8, 3))  # rounding makes ties
    shape = ((3, 3), (2, 2), (1, 1))
    expected = value_and_gradients(lambda x: lax_max_pool(x, *shape), x)
    assert_close(value_and_gradients(jax.jit(lambda x: max_pool(x, 3, 2, 1)), x), expected)


def test_in_a_constant_region_the_gradient_reaches_the_first_pixel_of_each_window():
    x = jnp.ones((1, 4, 4, 1))
    grad = jax.grad(lambda x: max_pool(x, 2, 2).sum())(x)[0, :, :, 0]
    np.testing.assert_array_equal(grad, np.kron(np.ones((2, 2)), [[1, 0], [0, 0]]))
