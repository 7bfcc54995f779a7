"""Layers of the decoder interaction network against formulas in float64 and XLA's own convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.errors import UserError
from jaxmed.nn.attention_gate import AttentionGate
from jaxmed.nn.conv import DIMENSIONS
from jaxmed.nn.dual_path import DualPathAttention
from jaxmed.nn.frozen_norm import FrozenBatchNorm, freeze_norms
from jaxmed.nn.hmsf import HMSF
from jaxmed.nn.keras_defaults import glorot_uniform
from jaxmed.nn.norm import BatchNorm
from jaxmed.nn.separable import SeparableConv, from_phases, to_phases
from jaxmed.nn.task_interaction import TaskInteraction
from jaxmed.nn.uncertainty import UncertaintyProxyAttention, uncertainty
from jaxmed.nn.up_conv import UpConv, double
from tests.weights.networks import leaves

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def filled(layer):
    """Normal numbers in every leaf, biases included."""
    for _, leaf in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        leaf.set_value(0.3 * normal(*leaf.shape))
    return layer


def weights(layer):
    return {name: np.asarray(value, np.float64) for name, value in leaves(layer).items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def dense(w, name, x):
    kernel = w[f"{name}.kernel"]
    return x @ kernel.reshape(kernel.shape[-2:]) + w[f"{name}.bias"]


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def lax_separable(layer, x):
    kernel, d = layer.conv_dw.kernel.get_value(), (layer.dilation,) * 2
    y = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", rhs_dilation=d, dimension_numbers=DIMENSIONS, feature_group_count=x.shape[-1]
    )
    return layer.conv_pw(y)


@pytest.mark.parametrize(("dilation", "size"), [(1, (5, 6)), (2, (7, 6)), (4, (9, 3))])
def test_a_dilated_separable_convolution_is_that_of_xla(dilation, size):
    layer, x = filled(SeparableConv(3, 5, dilation=dilation, rngs=nnx.Rngs(0))), normal(2, *size, 3)

    def value_and_gradients(run):
        return jax.value_and_grad(lambda layer, x: jnp.sum(jnp.sin(run(layer, x))), (0, 1))(layer, x)

    close(layer(x), lax_separable(layer, x))
    ours, theirs = value_and_gradients(lambda layer, x: layer(x)), value_and_gradients(lax_separable)
    jax.tree.map(close, ours, theirs)


def test_phases_are_every_second_row_and_column():
    x = normal(2, 4, 5, 3)
    phases = to_phases(x, 2)
    assert phases.shape == (8, 2, 3, 3)
    np.testing.assert_array_equal(phases[2:4, :, :2], x[:, ::2, 1::2])
    np.testing.assert_array_equal(from_phases(phases, 2, (4, 5)), x)


@pytest.mark.parametrize("size", [(3, 4), (1, 2)])
def test_doubling_is_the_transposed_convolution_of_keras(size):
    x, kernel = normal(2, *size, 3), normal(3, 3, 4, 3)

    def keras(x, kernel):
        return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS, transpose_kernel=True)

    close(double(x, kernel), keras(x, kernel))
    ours, theirs = (jax.grad(lambda *a, f=f: jnp.sum(jnp.sin(f(*a))), (0, 1))(x, kernel) for f in (double, keras))
    jax.tree.map(close, ours, theirs)


def test_doubling_adds_its_bias():
    layer, x = filled(UpConv(3, 4, rngs=nnx.Rngs(0))), normal(1, 2, 2, 3)
    close(layer(x) - double(x, layer.kernel.get_value()), np.broadcast_to(layer.bias.get_value(), (1, 4, 4, 4)))


def test_glorot_kernels_fill_their_limits():
    for shape, bound in (((3, 3, 1, 64), (6 / (9 * 65)) ** 0.5), ((300, 20), (6 / 320) ** 0.5)):
        kernel = np.abs(glorot_uniform(jax.random.key(0), shape))
        assert 0.95 * bound < kernel.max() <= bound and abs(kernel.mean() - bound / 2) < 0.05 * bound


def test_hmsf_is_equations_9_and_10():
    layer, x = filled(HMSF(16, rngs=nnx.Rngs(0))), normal(2, 5, 6, 16)
    w = weights(layer)
    alpha = softmax(dense(w, "fc2", np.maximum(dense(w, "fc1", np.asarray(x, np.float64).mean((1, 2))), 0)))
    parts = [np.asarray(lax_separable(branch, x), np.float64) for branch in layer.branches]
    fused = sum(alpha[:, i].reshape(-1, 1, 1, 1) * part for i, part in enumerate(parts))
    assert [branch.dilation for branch in layer.branches] == [1, 2, 4]
    close(layer(x), dense(w, "fusion", fused))
    close(layer.weights(x), alpha)


def test_dual_path_attention_is_its_formula():
    layer, x = filled(DualPathAttention(16, rngs=nnx.Rngs(0))), normal(2, 5, 6, 16)
    w, wide = weights(layer), np.asarray(x, np.float64)
    assert w["fc1.kernel"].shape == (16, 8)
    channel = sigmoid(dense(w, "fc2", np.maximum(dense(w, "fc1", wide.mean((1, 2))), 0)))
    summary = np.pad(np.stack([wide.max(-1), wide.mean(-1)], -1), ((0, 0), (3, 3), (3, 3), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(summary, (7, 7), (1, 2))
    spatial = sigmoid(np.einsum("bhwcij,ijco->bhwo", windows, w["spatial.kernel"]) + w["spatial.bias"])
    close(layer(x), wide * channel[:, None, None] * spatial)


def test_the_gate_weighs_the_pixels_of_the_skip_connection():
    gate, x, g = filled(AttentionGate(6, 4, 2, rngs=nnx.Rngs(0))), normal(2, 5, 6, 6), normal(2, 5, 6, 4)
    w = weights(gate)
    a = jnp.float32(np.maximum(dense(w, "x", np.asarray(x)) + dense(w, "g", np.asarray(g)), 0))
    assert (gate.sep1.dilation, gate.sep2.dilation) == (1, 2)
    context = np.asarray(lax_separable(gate.sep2, lax_separable(gate.sep1, a)), np.float64)
    close(gate(x, g), np.asarray(x) * sigmoid(dense(w, "psi", context)))


@pytest.fixture(scope="module")
def interaction():
    return filled(TaskInteraction(6, 10, rngs=nnx.Rngs(0))), normal(3, 4, 5, 6), normal(3, 10)


def test_the_interaction_is_equations_1_to_5(interaction):
    layer, x, f = interaction
    w, wide, f64 = weights(layer), np.asarray(x, np.float64), np.asarray(f, np.float64)
    pooled = np.maximum(dense(w, "s2c_conv", wide), 0).mean((1, 2))
    z = np.maximum(dense(w, "s2c_fc", pooled), 0)
    z = (z - w["s2c_bn.mean"]) / np.sqrt(w["s2c_bn.var"] + 1e-3) * w["s2c_bn.scale"] + w["s2c_bn.bias"]
    mu = 1 + 0.7 * sigmoid(dense(w, "seg_gate", wide.mean((1, 2)))) * sigmoid(dense(w, "c2s_fc", f64))
    enhanced, f_enhanced = layer(x, f)
    close(enhanced, wide * mu[:, None, None])
    close(f_enhanced, f64 + sigmoid(dense(w, "clf_gate", z)) * z)
    assert 1 < mu.min() and mu.max() < 1.7


def test_attention_pooling_without_preference_is_the_mean(interaction):
    _, x, _ = interaction
    layer = filled(TaskInteraction(6, 10, pool="attention", rngs=nnx.Rngs(0)))
    features, w = x[..., :3], weights(layer)
    scores = softmax(dense(w, "s2c_attention", np.asarray(features, np.float64)).reshape(3, -1))
    close(layer.pool(features), np.einsum("bp,bpc->bc", scores, np.asarray(features).reshape(3, 20, 3)))
    layer.s2c_attention.kernel.set_value(jnp.zeros((1, 1, 3, 1)))
    close(layer.pool(features), features.mean((1, 2)))


def upa_inputs(b=3):
    return normal(b, 4, 5, 6), normal(b, 4, 5, 6), normal(b, 10), normal(b, 10)


def test_upa_is_equations_6_to_8():
    layer, (x, enhanced, f, f_enhanced) = filled(UncertaintyProxyAttention(norm="batch", rngs=nnx.Rngs(0))), upa_inputs()
    w, x64, e64, f64, fe64 = weights(layer), *(np.asarray(a, np.float64) for a in (x, enhanced, f, f_enhanced))
    u = np.stack([e64.var((1, 2)).mean(-1), fe64.var(-1)], -1)
    gate = softmax(dense(w, "fc2", np.maximum(dense(w, "fc1", u / u.mean(0)), 0)))
    seg, clf, got = layer(x, enhanced, f, f_enhanced)
    close(got, gate)
    close(seg, x64 + gate[:, 0].reshape(-1, 1, 1, 1) * (e64 - x64))
    close(clf, f64 + gate[:, 1:] * (fe64 - f64))


def test_the_running_normaliser_is_the_debiased_mean_of_the_training_batches():
    layer = filled(UncertaintyProxyAttention(momentum=0.9, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(layer.scale(jnp.ones((1, 2)), train=False), 1.0)  # before any training
    batches = [upa_inputs() for _ in range(3)]
    means = [np.asarray(uncertainty(b[1], b[3])).mean(0) for b in batches]
    for batch in batches:
        layer(*batch, train=True)
    share = np.array([0.81, 0.9, 1.0])
    close(layer.scale(jnp.ones((1, 2)), train=False), (share[:, None] * means).sum(0) / share.sum())


def test_a_case_alone_counts_as_in_a_batch_unless_the_batch_normalises():
    batch = upa_inputs()
    alone = [a[:1] for a in batch]
    ema, official = (filled(UncertaintyProxyAttention(norm=norm, rngs=nnx.Rngs(0))) for norm in ("ema", "batch"))
    ema(*batch, train=True)
    close(ema(*alone)[2], ema(*batch)[2][:1])
    assert np.abs(official(*alone)[2] - official(*batch)[2][:1]).max() > 1e-3


def test_the_gradient_goes_through_the_normaliser():
    layer = filled(UncertaintyProxyAttention(norm="batch", rngs=nnx.Rngs(0)))

    def slope(b):
        x, enhanced, f, f_enhanced = upa_inputs(b)
        return np.abs(jax.grad(lambda e: layer(x, e, f, f_enhanced, train=True)[2][0, 0])(enhanced)).max()

    assert slope(1) < 1e-6 < 1e-4 < slope(2)  # a case alone is divided by itself


def test_unknown_words_are_errors():
    with pytest.raises(UserError, match="tim_pool='max'"):
        TaskInteraction(6, 10, pool="max", rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match="upa_norm='none'"):
        UncertaintyProxyAttention(norm="none", rngs=nnx.Rngs(0))


def test_frozen_norms_infer_while_training():
    class Net(nnx.Module):
        def __init__(self):
            self.start, self.start2 = BatchNorm(3, eps=1e-3), BatchNorm(3)
            self.blocks = nnx.List([BatchNorm(3), BatchNorm(3)])

    net, x = Net(), normal(4, 3) + 5.0
    freeze_norms(net, ("start", "blocks.1"))
    kinds = [type(layer) for layer in (net.start, net.start2, *net.blocks)]
    assert kinds == [FrozenBatchNorm, BatchNorm, BatchNorm, FrozenBatchNorm] and net.start.eps == 1e-3
    close(net.start(x, train=True), x / np.sqrt(1.001))
    np.testing.assert_array_equal(net.start.mean.get_value(), 0.0)
    net.start2(x, train=True)
    assert np.all(net.start2.mean.get_value() > 0.2)
