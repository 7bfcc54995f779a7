"""EfficientNet: taps, uneven padding, squeeze-and-excitation, drop path, and the names of its three sources."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.nn import Conv, SqueezeExcite
from jaxmed.tree import flatten, tree_of
from jaxmed.weights import to_state_dict
from jaxmed.weights.families import family_of
from tests.weights.networks import assert_same, fill, leaves

COUNTS = {  # two classes
    "efficientnet_b1": 6_515_746, "tf_efficientnet_b4": 17_552_202, "tf_efficientnet_lite0": 3_373_570,
    "tf_efficientnet_lite3": 6_918_658,
}  # fmt: skip
TINY = dict(depths=(1, 2, 1, 1, 1, 2, 1), dims=(8, 8, 8, 16, 8, 16, 8, 16, 24))
IMAGE = jnp.zeros((1, 64, 64, 3))


def abstract(name, **options):
    """The network with shapes in place of arrays."""
    return nnx.eval_shape(lambda: jaxmed.create_model(name, **options))


def tiny(name="tf_efficientnet_b0", **options):
    """A small network with random weights."""
    return jaxmed.create_model(name, **TINY, **options)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_exact(name):
    assert jaxmed.count(abstract(name)) == COUNTS[name]


def test_features_are_the_last_maps_of_their_strides():
    maps = jax.eval_shape(lambda m: m.features(IMAGE), abstract("efficientnet_b2"))
    assert [m.shape[1:] for m in maps] == [(16, 16, 24), (8, 8, 48), (4, 4, 120), (2, 2, 352)]


def test_decoder_taps_are_the_widened_maps_and_the_head():
    model = abstract("tf_efficientnet_b4", num_classes=None)
    maps = jax.eval_shape(lambda m: m.taps(IMAGE), model)
    assert [m.shape[1:3] for m in maps] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    assert [m.shape[3] for m in maps] == [144, 192, 336, 960, 1792] == list(model.expanded_channels)


def test_the_last_tap_is_what_the_classifier_pools():
    model, image = tiny(), jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    head, out = jax.jit(lambda image: (model.taps(image)[-1], model(image, aux=True)))(image)
    np.testing.assert_allclose(head.mean((1, 2)), out["features"], rtol=1e-5)


@pytest.mark.parametrize(("name", "first"), [("efficientnet_b0", 1), ("tf_efficientnet_b0", 0)])
@pytest.mark.parametrize("size", [6, 7])
def test_a_stride_of_two_starts_where_its_framework_puts_it(name, first, size):
    """torch pads one row above; TensorFlow one below on even maps, one on both sides of odd ones."""
    above = first if size % 2 == 0 else 1
    kind = abstract(name, **TINY).kind
    conv = Conv(1, 1, 3, **kind.spatial(3, 2), bias=False, rngs=nnx.Rngs(0))
    conv.kernel.set_value(jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0))  # looks at the top left pixel of each window
    image = np.arange(1.0, size * size + 1, dtype=np.float32).reshape(1, size, size, 1)
    seen = conv(kind.pad(jnp.asarray(image), conv))[0, ..., 0]
    rows = np.pad(image[0, ..., 0], ((above, 1), (above, 1)))[::2, ::2]
    np.testing.assert_array_equal(seen, rows[: -(-size // 2), : -(-size // 2)])


def test_squeeze_and_excitation_is_a_gate_per_channel():
    layer = SqueezeExcite(6, 2, act=jax.nn.silu, rngs=nnx.Rngs(1))
    layer.conv_expand.bias.set_value(jnp.arange(6.0))
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    hidden = x.mean((1, 2)) @ np.asarray(layer.conv_reduce.kernel.get_value())[0, 0]
    hidden = hidden / (1 + np.exp(-hidden))
    gate = 1 / (1 + np.exp(-(hidden @ np.asarray(layer.conv_expand.kernel.get_value())[0, 0] + np.arange(6.0))))
    np.testing.assert_allclose(layer(jnp.asarray(x)), x * gate[:, None, None], rtol=1e-5)


def test_the_lite_networks_have_no_squeeze_and_stop_at_six():
    model = tiny("tf_efficientnet_lite0")
    assert not any(".se." in path for path in leaves(model))
    maps = jax.jit(lambda image: model.taps(image))(1e3 * jax.random.normal(jax.random.key(0), (1, 32, 32, 3)))
    assert float(maps[0].max()) == 6
    assert all(float(m.min()) == 0 and float(m.max()) <= 6 for m in maps)


def test_block_k_of_n_drops_its_branch_with_k_over_n_of_the_rate():
    blocks = [block for stage in abstract("efficientnet_b0", drop_path=0.8).blocks for block in stage]
    np.testing.assert_allclose([block.rate for block in blocks], 0.8 * np.arange(16) / 16)
    assert [k for k, block in enumerate(blocks) if block.residual] == [2, 4, 6, 7, 9, 10, 12, 13, 14]


def test_a_dropped_case_is_its_shortcut():
    block = tiny(drop_path=0.9).blocks[5][1]
    x = jax.random.normal(jax.random.key(0), (16, 2, 2, 8))
    wide = block.expand(x, train=True)
    with pytest.raises(UserError, match="drop path"):
        block.project(x, wide, True, None)
    y = block.project(x, wide, True, nnx.Rngs(dropout=1))
    dropped = [bool((case == shortcut).all()) for case, shortcut in zip(y, x, strict=True)]
    assert 4 < sum(dropped) < 16  # the rate here is 0.7


@pytest.mark.parametrize("shape", [(32, 32, 3), (1, 32, 32, 1)])
def test_what_is_no_batch_of_colour_images_is_refused_with_the_fix(shape):
    with pytest.raises(UserError, match="channels come last"):
        tiny()(jnp.zeros(shape))


@pytest.mark.parametrize("source", ["timm", "keras", "official"])
@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_efficientnet_lite0"])
def test_a_round_trip_through_each_source_changes_no_bit(source, name):
    model, target = fill(abstract(name, **TINY)), abstract(name, **TINY)
    published = to_state_dict(model, source)
    jaxmed.load_weights(target, published, source=source)
    assert_same(leaves(target), leaves(model))


def test_names_in_each_source():
    model = abstract("tf_efficientnet_b4")
    paths, family = flatten(tree_of(model)), family_of(model)
    names = {
        "conv_stem.kernel": ("stem_conv/kernel", "_conv_stem.weight"),
        "bn1.scale": ("stem_bn/gamma", "_bn0.weight"),
        "blocks.0.1.conv_dw.kernel": ("block1b_dwconv/depthwise_kernel", "_blocks.1._depthwise_conv.weight"),
        "blocks.0.1.bn1.mean": ("block1b_bn/moving_mean", "_blocks.1._bn1.running_mean"),
        "blocks.0.0.bn2.bias": ("block1a_project_bn/beta", "_blocks.0._bn2.bias"),
        "blocks.1.0.bn1.var": ("block2a_expand_bn/moving_variance", "_blocks.2._bn0.running_var"),
        "blocks.1.0.bn2.bias": ("block2a_bn/beta", "_blocks.2._bn1.bias"),
        "blocks.6.1.se.conv_reduce.bias": ("block7b_se_reduce/bias", "_blocks.31._se_reduce.bias"),
        "blocks.6.1.conv_pwl.kernel": ("block7b_project_conv/kernel", "_blocks.31._project_conv.weight"),
        "bn2.scale": ("top_bn/gamma", "_bn1.weight"),
        "classifier.bias": ("predictions/bias", "_fc.bias"),
    }
    tables = [family.naming(source).keys(paths) for source in ("keras", "official")]
    keras, official = ({path: key for key, path in table.items()} for table in tables)
    assert {path: (keras[path], official[path]) for path in names} == names


def test_keras_statistics_of_the_pixels_are_ignored_and_depthwise_kernels_are_turned():
    model, target = fill(abstract("tf_efficientnet_b0", **TINY)), abstract("tf_efficientnet_b0", **TINY)
    table = to_state_dict(model, "keras")
    kernel = table["block3a_dwconv/depthwise_kernel"]
    assert kernel.shape == (5, 5, 48, 1)
    assert kernel[1, 2, 3, 0] == leaves(model)["blocks.2.0.conv_dw.kernel"][1, 2, 0, 3]
    extra = {"normalization/mean": np.zeros(3), "normalization/variance": np.ones(3), "normalization/count": np.zeros(())}
    assert set(jaxmed.load_weights(target, table | extra, source="keras").ignored) == set(extra)


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    model = abstract("tf_efficientnet_b0", dtype=jnp.bfloat16, **TINY)
    assert {m.dtype for m in jax.eval_shape(lambda m: m.taps(IMAGE), model)} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(lambda m: m(IMAGE), model).dtype == jnp.float32
