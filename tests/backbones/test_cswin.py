import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.cswin import CSWinBlock, StripeAttention
from jaxmed.errors import UserError

TINY = dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32), num_heads=(2, 2, 2, 4))


def abstract(name="cswin_tiny_224", **options):
    return nnx.eval_shape(lambda: jaxmed.create_model(name, **options))


def images(size, count=1, channels=3):
    return jnp.asarray(np.random.RandomState(0).randn(count, size, size, channels), jnp.float32)


def naive_stripe(qkv, heads, kernel, bias):
    """One stripe [h, w, 3c] on its own: softmax attention per head, and the 3x3 convolution of the zero-padded values."""
    h, w, channels = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (part.reshape(h * w, heads, -1) for part in np.split(qkv, 3, -1))
    out = np.zeros_like(v)
    for head in range(heads):
        scores = np.exp(q[:, head] @ k[:, head].T / np.sqrt(q.shape[-1]))
        out[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, head]
    padded = np.pad(v.reshape(h, w, channels), ((1, 1), (1, 1), (0, 0)))
    lepe = sum(padded[i : i + h, j : j + w] * kernel[i, j, 0] for i in range(3) for j in range(3)) + bias
    return out.reshape(h, w, channels) + lepe


@pytest.mark.parametrize("window", [(6, 2), (2, 6), (6, 6)])
def test_each_stripe_is_attended_and_convolved_on_its_own(window):
    attention = StripeAttention(4, 2, window, dtype=jnp.float32, rngs=nnx.Rngs(0))
    qkv = images(6, 2, 12)
    kernel, bias = (np.asarray(leaf.get_value()) for leaf in (attention.get_v.kernel, attention.get_v.bias))
    wanted = np.zeros((2, 6, 6, 4), np.float32)
    for b in range(2):
        for top in range(0, 6, window[0]):
            for left in range(0, 6, window[1]):
                part = (b, slice(top, top + window[0]), slice(left, left + window[1]))
                wanted[part] = naive_stripe(np.asarray(qkv)[part], 2, kernel, bias)
    np.testing.assert_allclose(attention(qkv), wanted, atol=1e-5)


def test_a_pixel_reaches_its_column_stripe_in_one_half_and_its_row_stripe_in_the_other():
    block = CSWinBlock(8, 2, 6, 2, 0.0, dtype=jnp.float32, rngs=nnx.Rngs(0))
    block.proj = lambda x: x  # it would mix the halves
    x = images(6, 1, 8)
    changed = np.asarray(block.attention(x.at[0, 3, 0].add(1.0)) != block.attention(x))[0]
    columns, rows = np.zeros((6, 6), bool), np.zeros((6, 6), bool)
    columns[:, 0:2], rows[2:4] = True, True
    np.testing.assert_array_equal(changed[..., :4].any(-1), columns)
    np.testing.assert_array_equal(changed[..., 4:].any(-1), rows)


def test_feature_maps_have_strides_4_to_32():
    model = abstract(img_size=96, window_size=(1, 2, 3), **TINY)
    maps = jax.eval_shape(lambda m: m.features(jnp.zeros((1, 96, 96, 3))), model)
    assert [m.shape for m in maps] == [(1, 24, 24, 8), (1, 12, 12, 16), (1, 6, 6, 24), (1, 3, 3, 32)]
    assert model.tap_channels == (8, 16, 24, 32)


def test_only_the_last_stage_of_the_published_networks_has_one_branch():
    model = abstract(**TINY)
    assert [len(stage[0].attns) for stage in (model.stage1, model.stage2, model.stage3, model.stage4)] == [2, 2, 2, 1]


def test_an_image_of_another_size_is_refused():
    with pytest.raises(UserError, match="224 x 224 images, got 224 x 256"):
        jax.eval_shape(lambda m: m(jnp.zeros((1, 224, 256, 3))), abstract(**TINY))


@pytest.mark.parametrize("img_size", [230, 256])
def test_a_size_that_stripes_do_not_tile_is_refused(img_size):
    with pytest.raises(UserError, match=f"img_size={img_size} .* multiple of 32.*window_size"):
        abstract(img_size=img_size, **TINY)


def test_drop_path_leaves_out_both_branches_in_training_alone():
    block = CSWinBlock(8, 2, 4, 2, 0.999999, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = images(4, 2, 8)
    np.testing.assert_array_equal(block(x, True, nnx.Rngs(dropout=0)), x)
    assert not np.allclose(block(x, False, None), x, atol=1e-3)


def test_drop_path_rates_grow_over_the_blocks_and_need_rngs():
    model = abstract(drop_path=0.4, **TINY)
    blocks = [block for stage in (model.stage1, model.stage2, model.stage3, model.stage4) for block in stage]
    np.testing.assert_allclose([block.rate for block in blocks], [0.0, 0.1, 0.2, 0.3, 0.4])
    with pytest.raises(UserError, match="drop path"):
        jax.eval_shape(lambda m: m(jnp.zeros((2, 224, 224, 3)), train=True), model)


def test_bfloat16_maps_and_float32_logits():
    model, image = abstract(dtype=jnp.bfloat16, **TINY), jnp.zeros((1, 224, 224, 3))
    maps, logits = jax.eval_shape(lambda m: (m.features(image), m(image)), model)
    assert {m.dtype for m in maps} == {jnp.dtype("bfloat16")} and logits.dtype == jnp.float32
