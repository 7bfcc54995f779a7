"""Layers of the U-Nets, TransUNet and Swin-Unet against formulas in float64."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.nn.additive_gate import AdditiveGate
from jaxmed.nn.conv_norm import ConvNorm
from jaxmed.nn.double_conv import pyramid
from jaxmed.nn.group_norm import GroupNorm
from jaxmed.nn.patch_up_conv import PatchUpConv
from jaxmed.nn.standard_conv import StandardConv
from jaxmed.ops.depth_to_space import depth_to_space
from tests.weights.networks import fill, leaves

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def weights(layer):
    return {name: np.asarray(value, np.float64) for name, value in leaves(layer).items()}


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_channels_become_pixels_row_by_row():
    x = np.arange(1 * 2 * 3 * 8).reshape(1, 2, 3, 8)
    got = np.asarray(depth_to_space(jnp.asarray(x), 2))
    assert got.shape == (1, 4, 6, 2)
    for row, column in np.ndindex(4, 6):
        first = 2 * (2 * (row % 2) + column % 2)
        np.testing.assert_array_equal(got[0, row, column], x[0, row // 2, column // 2, first : first + 2])


@pytest.mark.parametrize("bias", [True, False])
def test_each_position_spreads_over_its_own_two_by_two_pixels(bias):
    layer, x = PatchUpConv(3, 5, bias=bias, rngs=nnx.Rngs(0)), normal(2, 3, 4, 3)
    w, expected = weights(layer), np.zeros((2, 6, 8, 5))
    for row, column in np.ndindex(6, 8):
        expected[:, row, column] = x[:, row // 2, column // 2] @ w["kernel"][row % 2, column % 2]
    close(layer(x), expected + w.get("bias", 0.0))
    assert ("bias" in w) == bias


def test_groups_of_channels_are_normalised_case_by_case():
    layer, x = fill(GroupNorm(6, 3, eps=1e-6)), 3 + 2 * normal(2, 4, 5, 6)
    w, parts = weights(layer), np.asarray(x, np.float64).reshape(2, 20, 3, 2)
    mean, var = parts.mean((1, 3), keepdims=True), parts.var((1, 3), keepdims=True)
    close(layer(x), ((parts - mean) / np.sqrt(var + 1e-6)).reshape(x.shape) * w["scale"] + w["bias"])


def test_standardised_kernels_have_mean_zero_and_variance_one():
    layer = StandardConv(3, 4, 3, padding=1, bias=False, rngs=nnx.Rngs(0))
    kernel = weights(layer)["kernel"]
    expected = (kernel - kernel.mean((0, 1, 2))) / np.sqrt(kernel.var((0, 1, 2)) + 1e-5)
    close(layer.weight(), expected)
    x = normal(1, 1, 1, 3)  # one pixel sees the middle of the kernel
    close(layer(x)[0, 0, 0], np.asarray(x)[0, 0, 0] @ expected[1, 1])


def test_the_gate_multiplies_pixels_of_the_skip_connection():
    layer, x, g = fill(AdditiveGate(3, 4, 2, rngs=nnx.Rngs(0))), normal(2, 3, 3, 3), normal(2, 3, 3, 4)
    w = weights(layer)

    def projected(name, values):
        y = values @ w[f"{name}.conv.kernel"][0, 0] + w[f"{name}.conv.bias"]
        norm = {part: w[f"{name}.bn.{part}"] for part in ("mean", "var", "scale", "bias")}
        return (y - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]

    scores = projected("psi", np.maximum(projected("x", np.asarray(x)) + projected("g", np.asarray(g)), 0.0))
    close(layer(x, g), np.asarray(x) / (1 + np.exp(-scores)))


def test_a_leaky_relu_keeps_a_part_of_what_is_negative():
    plain, leaky = (ConvNorm(2, 3, 1, stride=2, slope=slope, rngs=nnx.Rngs(0)) for slope in (0.0, 0.1))
    x = normal(1, 4, 4, 2)
    y, z = plain(x), leaky(x)
    assert z.shape == (1, 2, 2, 3) and (np.asarray(z) < 0).any()
    close(y, np.maximum(z, 0.0))
    close(plain(-x) * -0.1, np.minimum(z, 0.0))


def test_each_level_of_a_pyramid_sees_the_maxima_of_the_one_above():
    class Twice(nnx.Module):
        def __call__(self, x, train=False):
            return 2 * x

    x = normal(1, 4, 4, 1)
    first, second, third = pyramid([Twice()] * 3, x)
    close(first, 2 * x)
    close(second[0, 0, 1, 0], 4 * x[0, :2, 2:, 0].max())
    close(third.reshape(()), 8 * x.max())
