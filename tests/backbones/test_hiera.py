import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.hiera import MaskUnitAttention, pool, reroll, unroll
from jaxmed.errors import UserError
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, fill, leaves

COUNTS = {"hiera_tiny_224": 27142754, "hiera_base_224": 50757506, "hiera_base_plus_224": 69001410}
TINY = dict(depths=(1, 2, 2, 1), dims=(8, 16, 32, 64), img_size=64)


def tiny(**options):
    return jaxmed.create_model("hiera_tiny_224", **{**TINY, **options}, rngs=nnx.Rngs(0))


def images(size=64, batch=1):
    return jnp.asarray(np.random.default_rng(0).standard_normal((batch, size, size, 3)), jnp.float32)


@pytest.mark.parametrize("name", COUNTS)
def test_two_class_networks_have_the_published_number_of_parameters(name):
    assert jaxmed.count(nnx.eval_shape(lambda: jaxmed.create_model(name))) == COUNTS[name]


def test_four_maps_in_image_order():
    model = nnx.eval_shape(lambda: jaxmed.create_model("hiera_tiny_224"))
    maps = jax.eval_shape(lambda m: m.features(jnp.zeros((1, 224, 224, 3))), model)
    assert model.tap_channels == (96, 192, 384, 768)
    assert [m.shape for m in maps] == [(1, 56, 56, 96), (1, 28, 28, 192), (1, 14, 14, 384), (1, 7, 7, 768)]


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_pooling_unrolled_tokens_is_pooling_the_map(levels):
    x = np.random.default_rng(0).standard_normal((2, 8, 16, 3)).astype(np.float32)
    units = (8 >> levels, 16 >> levels)
    tokens = unroll(jnp.asarray(x), levels)
    assert tokens.shape == (2, units[0] * units[1], 4**levels, 3)
    np.testing.assert_array_equal(reroll(tokens, units, levels), x)
    for left in reversed(range(levels)):
        tokens, x = pool(tokens), x.reshape(2, x.shape[1] // 2, 2, x.shape[2] // 2, 2, 3).max((2, 4))
        np.testing.assert_array_equal(reroll(tokens, units, left), x)


def _softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("local", [True, False])
def test_attention_is_the_formula_with_a_max_pooled_query(local):
    attention = MaskUnitAttention(6, 8, 2, pooled=True, local=local, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 6))
    weight = leaves(attention)
    qkv = (x @ weight["qkv.kernel"] + weight["qkv.bias"]).reshape(2, 3, 16, 3, 2, 4)  # last axes: q k v, head, channel
    q, k, v = qkv[:, :, :, 0].reshape(2, 3, 4, 4, 2, 4).max(2), qkv[:, :, :, 1], qkv[:, :, :, 2]
    want = np.zeros((2, 3, 4, 8))
    for b, unit, token, head in np.ndindex(2, 3, 4, 2):
        keys, values = ((y[b, unit] if local else y[b].reshape(48, 2, 4))[:, head] for y in (k, v))
        weights = _softmax(keys @ q[b, unit, token, head] / 2)
        want[b, unit, token, 4 * head : 4 * head + 4] = weights @ values
    want = want @ weight["proj.kernel"] + weight["proj.bias"]
    np.testing.assert_allclose(attention(jnp.asarray(x, jnp.float32)), want, atol=1e-6)


def test_the_first_block_of_stage_3_still_sees_its_mask_unit_only():
    x = images()
    touched = x.at[0, 16, 16].add(9.0)  # four patches away from the border of the first of four units
    features = jax.jit(tiny(depths=(1, 1, 1, 1)).features)
    for number, (a, b) in enumerate(zip(features(x), features(touched), strict=True), 1):
        changed = np.abs(np.asarray(a - b)).max(-1)[0] > 0
        half = changed.shape[0] // 2
        assert changed[:half, :half].any()
        assert (changed.sum() > changed[:half, :half].sum()) == (number == 4)


@pytest.mark.parametrize("shape", [(1, 96, 96, 3), (1, 64, 96, 3)])
def test_another_image_size_is_refused_with_both_sizes(shape):
    with pytest.raises(UserError, match=f"64 x 64, got {shape[1]} x {shape[2]}"):
        tiny()(jnp.zeros(shape))


def test_an_image_size_that_cuts_mask_units_is_refused():
    with pytest.raises(UserError, match="multiples of 32"):
        tiny(img_size=80)


def test_oblong_images_work_when_asked_for():
    maps = jax.eval_shape(lambda: tiny(img_size=(96, 32)).features(jnp.zeros((1, 96, 32, 3))))
    assert [m.shape[1:3] for m in maps] == [(24, 8), (12, 4), (6, 2), (3, 1)]


def test_drop_path_needs_randomness_and_only_in_training():
    model, x = tiny(drop_path=0.5), images()
    with pytest.raises(UserError, match="drop path"):
        model(x, train=True)
    run = jax.jit(lambda key: model(x, train=True, rngs=nnx.Rngs(dropout=key)))
    assert len({np.asarray(run(jax.random.key(seed))).tobytes() for seed in range(8)}) > 1


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    model = tiny(dtype=jnp.bfloat16)
    assert {m.dtype for m in jax.eval_shape(model.features, images())} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(model, images()).dtype == jnp.float32


def test_files_of_the_masked_pretraining_load_without_their_decoder():
    model, target = fill(tiny(num_classes=None)), tiny(num_classes=None)
    file = {key.replace("norm.", "encoder_norm.") if key.startswith("norm.") else key: value
            for key, value in to_state_dict(model, "official").items()}  # fmt: skip
    assert {"encoder_norm.weight", "pos_embed", "blocks.3.proj.weight"} <= file.keys()
    decoder = {"mask_token": np.zeros((1, 1, 4)), "decoder_norm.weight": np.ones(4)}
    report = jaxmed.load_weights(target, file | decoder, source="official")
    assert set(report.ignored) == decoder.keys()
    assert_same(leaves(target), leaves(model))
