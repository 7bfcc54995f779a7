import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.focalnet import FocalModulation, FocalNet
from jaxmed.errors import UserError
from jaxmed.nn import gelu
from jaxmed.tree import flatten, tree_of
from jaxmed.weights import to_state_dict
from jaxmed.weights.families.focalnet import FOCALNET
from jaxmed.weights.match import match

TINY = dict(depths=(1, 1, 1, 1), dims=(4, 8, 16, 32))


def abstract(**options):
    return nnx.eval_shape(lambda: jaxmed.create_model("focalnet_tiny_srf", **{**TINY, **options}))


def small(**options):
    """Two stages of one block."""
    return FocalNet(depths=(1, 1), dims=(4, 8), **options, rngs=nnx.Rngs(0))


def maps_of(model, height, width):
    return jax.eval_shape(lambda m: m.features(jnp.zeros((1, height, width, 3))), model)


def call(module, x, run=lambda module, x: module(x)):
    """run(module, x), compiled as one program: faster than an operation at a time."""
    graph, state = nnx.split(module)
    return jax.jit(lambda state, x: run(nnx.merge(graph, state), x))(state, x)


def depthwise(x, kernel):
    """Zero-padded, pixel by pixel; x [h, w, c], kernel [k, k, 1, c]."""
    k = kernel.shape[0]
    wide = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    return np.stack([[(wide[i : i + k, j : j + k] * kernel[:, :, 0]).sum((0, 1)) for j in range(x.shape[1])]
                     for i in range(x.shape[0])])


def test_map_sides_are_rounded_down():
    assert [m.shape[1:] for m in maps_of(abstract(), 97, 131)] == [(24, 32, 4), (12, 16, 8), (6, 8, 16), (3, 4, 32)]


def test_an_image_without_a_last_map_is_refused():
    with pytest.raises(UserError, match="32 x 32 or more"):
        maps_of(abstract(), 31, 64)


def test_a_query_is_modulated_by_gated_contexts_of_growing_width_and_of_the_whole_map():
    modulation = FocalModulation(3, 2, dtype="float32", rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    leaves = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), nnx.state(modulation))
    nnx.update(modulation, leaves)
    x = rng.normal(size=(1, 6, 5, 3)).astype(np.float32)

    def affine(x, layer):
        return x @ np.asarray(layer.kernel) + np.asarray(layer.bias)

    query, context, gates = np.split(affine(x[0], modulation.f), (3, 6), -1)
    first = np.asarray(gelu(depthwise(context, np.asarray(modulation.focal_layers[0].kernel))))
    second = np.asarray(gelu(depthwise(first, np.asarray(modulation.focal_layers[1].kernel))))
    mean = np.asarray(gelu(second.mean((0, 1))))
    total = first * gates[..., :1] + second * gates[..., 1:2] + mean * gates[..., 2:]
    assert modulation.focal_layers[1].kernel.shape[:2] == (5, 5)
    expected = affine(query * affine(total, modulation.h), modulation.proj)
    np.testing.assert_allclose(call(modulation, x)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_pooled_feature_is_the_mean_of_the_normalised_last_map():
    model = small(num_classes=None)
    image = np.random.default_rng(0).normal(size=(1, 32, 64, 3)).astype(np.float32)
    last, pooled = call(model, image, lambda model, image: (model.features(image)[-1], model(image)))
    last = np.asarray(last)
    expected = (last - last.mean(-1, keepdims=True)) / np.sqrt(last.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(pooled, expected.mean((1, 2)), rtol=1e-3, atol=1e-5)


def test_drop_path_needs_randomness():
    with pytest.raises(UserError, match="rngs"):
        jax.eval_shape(lambda m: m(jnp.zeros((1, 32, 32, 3)), train=True), abstract(drop_path=0.2))


def test_timm_stores_linear_layers_as_convolutions_of_one_pixel_only():
    model, key = small(), "layers.1.blocks.0.modulation.f.weight"
    table = to_state_dict(model, target="timm")
    assert table[key].shape == (2 * 8 + 3, 8, 1, 1)
    table[key] = np.zeros((2 * 8 + 3, 8, 3, 3), np.float32)
    outcome = match(table, flatten(tree_of(model)), FOCALNET, FOCALNET.naming("timm"))
    assert outcome.wrong == {key: ((19, 8, 3, 3), (19, 8, 1, 1))}


def test_official_weights_halve_the_map_at_the_end_of_the_stage_before():
    table = to_state_dict(small(), target="official")
    assert {"patch_embed.proj.weight", "layers.0.blocks.0.modulation.focal_layers.1.0.weight", "head.weight"} <= set(table)
    assert table["layers.0.downsample.proj.weight"].shape == (8, 4, 2, 2)
    assert "layers.1.downsample.proj.weight" not in table
    assert table["layers.0.blocks.0.modulation.h.weight"].ndim == 4
    assert table["layers.0.blocks.0.modulation.f.weight"].ndim == 2
