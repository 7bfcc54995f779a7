import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.pvt_v2 import Attention, Mlp
from jaxmed.errors import UserError
from jaxmed.nn import gelu
from jaxmed.weights import to_state_dict

TINY = dict(depths=(1, 1, 1, 1), dims=(4, 8, 10, 16), mlp_ratios=(2, 2, 2, 2))


def abstract(**options):
    return nnx.eval_shape(lambda: jaxmed.create_model("pvt_v2_b0", **{**TINY, **options}))


def maps_of(model, height, width):
    return jax.eval_shape(lambda m: m.features(jnp.zeros((1, height, width, 3))), model)


def randomised(module):
    """Every leaf, norms and biases too, drawn at random."""
    rng = np.random.default_rng(1)
    leaves = jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32), nnx.state(module))
    nnx.update(module, leaves)
    return module


def call(module, x):
    """module(x), compiled as one program: faster than an operation at a time."""
    graph, state = nnx.split(module)
    return np.asarray(jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, x))


def affine(x, layer):
    return x @ np.asarray(layer.kernel) + np.asarray(layer.bias)


def normalised(x, layer, eps):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return x * np.asarray(layer.scale) + np.asarray(layer.bias)


def attended(attention, x, source):
    """Multi-head attention of positions x [n, c] over positions source [m, c], head by head."""
    q, (k, v) = affine(x, attention.q), np.split(affine(source, attention.kv), 2, -1)
    width = q.shape[-1] // attention.num_heads
    heads = []
    for start in range(0, q.shape[-1], width):
        part = slice(start, start + width)
        weights = np.exp(q[:, part] @ k[:, part].T / width**0.5)
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    return affine(np.concatenate(heads, -1), attention.proj)


def test_map_sides_are_rounded_up():
    assert [m.shape[1:] for m in maps_of(abstract(), 97, 131)] == [(25, 33, 4), (13, 17, 8), (7, 9, 10), (4, 5, 16)]


def test_an_image_that_holds_no_window_is_refused():
    assert maps_of(abstract(), 29, 29)[-1].shape == (1, 1, 1, 16)
    with pytest.raises(UserError, match="29 x 29 or more"):
        maps_of(abstract(), 64, 28)


def test_the_linear_variant_takes_any_image():
    assert maps_of(abstract(is_linear=True), 5, 40)[0].shape == (1, 2, 10, 4)


def test_keys_and_values_come_from_whole_windows_of_the_map():
    attention = randomised(Attention(6, 3, 2, False, dtype="float32", rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(1, 5, 4, 6)).astype(np.float32)
    windows = x[0, :4].reshape(2, 2, 2, 2, 6).transpose(0, 2, 1, 3, 4).reshape(4, 24)  # the fifth row fills no window
    small = windows @ np.asarray(attention.sr.kernel).reshape(24, 6) + np.asarray(attention.sr.bias)
    expected = attended(attention, x.reshape(20, 6), normalised(small, attention.norm, 1e-5))
    np.testing.assert_allclose(call(attention, x).reshape(20, 6), expected, rtol=1e-4, atol=1e-4)


def test_the_linear_variant_attends_over_seven_by_seven_means():
    attention = randomised(Attention(4, 2, 8, True, dtype="float32", rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(1, 14, 7, 4)).astype(np.float32)
    means = x[0].reshape(7, 2, 7, 4).mean(1).reshape(49, 4)
    small = means @ np.asarray(attention.sr.kernel)[0, 0] + np.asarray(attention.sr.bias)
    source = np.asarray(gelu(jnp.asarray(normalised(small, attention.norm, 1e-5))))
    expected = attended(attention, x.reshape(98, 4), source)
    np.testing.assert_allclose(call(attention, x).reshape(98, 4), expected, rtol=1e-4, atol=1e-4)


def test_the_mlp_tells_borders_from_the_middle_of_a_constant_map():
    mlp = randomised(Mlp(3, 6, False, dtype="float32", rngs=nnx.Rngs(0)))
    y = call(mlp, jnp.ones((1, 5, 5, 3)))[0]
    np.testing.assert_allclose(y[1, 1], y[2, 3], rtol=1e-6)
    assert np.abs(y[0, 2] - y[2, 2]).max() > 1e-3


def test_norms_keep_the_two_constants_of_the_released_networks():
    model = abstract()
    block = model.stages[1].blocks[0]
    assert {model.patch_embed.norm.eps, model.stages[1].downsample.norm.eps, block.attn.norm.eps} == {1e-5}
    assert {block.norm1.eps, block.norm2.eps, model.stages[1].norm.eps} == {1e-6}


def test_drop_path_needs_randomness():
    with pytest.raises(UserError, match="rngs"):
        jax.eval_shape(lambda m: m(jnp.zeros((1, 32, 32, 3)), train=True), abstract(drop_path=0.2))


def test_official_weights_are_named_by_stage_from_one():
    keys = set(to_state_dict(jaxmed.create_model("pvt_v2_b0", **TINY), target="official"))
    assert {
        "patch_embed1.proj.weight", "patch_embed2.norm.bias", "block1.0.attn.sr.weight", "block3.0.attn.norm.weight",
        "block4.0.mlp.dwconv.dwconv.bias", "norm4.weight", "head.weight",
    } <= keys
    assert not any(key.startswith("stages") for key in keys)
