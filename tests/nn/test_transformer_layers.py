import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, softmax

from jaxmed.errors import UserError
from jaxmed.nn import Attention, LayerNorm, Mlp, WindowAttention, computed_once, drop_path, drop_path_rates, gelu, pad_same


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_gelu_is_the_exact_one():
    x = normal(100)
    np.testing.assert_allclose(gelu(jnp.asarray(x)), x * (1 + erf(x / np.sqrt(2))) / 2, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layer_norm_keeps_its_statistics_in_float32(dtype):
    norm, x = LayerNorm(7, eps=1e-6, dtype=dtype), normal(5, 3, 7) + 50
    norm.scale.set_value(jnp.arange(1.0, 8.0))
    norm.bias.set_value(jnp.arange(7.0))
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * np.arange(1, 8) + np.arange(7)
    out = norm(jnp.asarray(x))
    assert out.dtype == jnp.dtype(dtype)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=1e-2 if dtype == "bfloat16" else 1e-4, atol=1e-3)


def test_drop_path_leaves_whole_cases_out_and_keeps_the_mean():
    out = np.asarray(drop_path(jnp.ones((4000, 2, 3)), 0.25, True, nnx.Rngs(dropout=0)))
    assert set(np.unique(out)) == {0.0, np.float32(4 / 3)}
    assert (out == out[:, :1, :1]).all() and abs(out.mean() - 1) < 0.03
    x = jnp.ones((4, 2))
    assert drop_path(x, 0.25, False, None) is x and drop_path(x, 0.0, True, None) is x
    with pytest.raises(UserError, match="rngs=nnx.Rngs"):
        drop_path(x, 0.25, True, None)


def test_drop_path_grows_linearly_over_all_blocks():
    assert drop_path_rates(0.3, (1, 2, 1)) == [[0.0], [pytest.approx(0.1), pytest.approx(0.2)], [pytest.approx(0.3)]]


def test_attention_is_softmax_of_scaled_products_per_head():
    layer, x = Attention(8, 2, rngs=nnx.Rngs(0)), normal(2, 5, 8)
    kernel, out = np.asarray(layer.qkv.kernel.get_value()), np.zeros((2, 5, 8))
    q, k, v = np.split(x @ kernel, 3, -1)
    for head in (slice(0, 4), slice(4, 8)):
        scores = softmax(np.einsum("btd,bsd->bts", q[..., head], k[..., head]) / 2, -1)
        out[..., head] = scores @ v[..., head]
    np.testing.assert_allclose(layer(jnp.asarray(x)), out @ np.asarray(layer.proj.kernel.get_value()), atol=1e-6)


def test_window_attention_adds_the_bias_and_the_mask_of_each_window():
    layer, x = WindowAttention(4, 2, 2, rngs=nnx.Rngs(0)), normal(6, 4, 4)
    mask = np.where(np.random.default_rng(0).random((3, 4, 4)) < 0.4, -100.0, 0.0).astype(np.float32)
    qkv, out = layer.qkv(jnp.asarray(x)), np.zeros((6, 4, 4))
    q, k, v = np.split(np.asarray(qkv), 3, -1)
    bias = np.asarray(layer.bias())[0]
    for n in range(6):
        for head in range(2):
            part = slice(2 * head, 2 * head + 2)
            scores = q[n][:, part] @ k[n][:, part].T / np.sqrt(2) + bias[head] + mask[n % 3]
            out[n][:, part] = softmax(scores, -1) @ v[n][:, part]
    np.testing.assert_allclose(layer.mix(qkv, jnp.asarray(mask)), out, atol=1e-6)


def test_the_mlp_computes_in_its_dtype():
    layer = Mlp(4, 8, dtype="bfloat16", rngs=nnx.Rngs(0))
    assert jax.eval_shape(lambda m: m(jnp.zeros((2, 4))), layer).dtype == jnp.bfloat16


@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (9, 5, 2), (6, 3, 1), (5, 1, 2)])
def test_same_padding_gives_tensorflows_size_and_puts_the_odd_zero_last(size, kernel, stride):
    padded = np.asarray(pad_same(jnp.ones((1, size, size, 1)), kernel, stride))[0, :, size // 2, 0]
    total = len(padded) - size
    assert (len(padded) - kernel) // stride + 1 == -(-size // stride)
    assert padded[: total // 2].sum() == 0 and padded[total // 2 : total // 2 + size].all() and total == max(
        (-(-size // stride) - 1) * stride + kernel - size, 0
    )


def test_a_residual_stream_and_its_gradient_are_computed_once_on_cpu():
    x = jnp.asarray(normal(4, 3))
    value, gradient = jax.value_and_grad(lambda x: (computed_once(x) ** 2).sum())(x)
    np.testing.assert_allclose(gradient, 2 * x, rtol=1e-6)
    np.testing.assert_allclose(value, (x**2).sum(), rtol=1e-6)
    compiled = jax.jit(jax.grad(lambda x: jnp.sum(computed_once(jnp.sin(x)) ** 2))).lower(x).compile().as_text()
    assert compiled.count(" call(") == 2, "forward and backward each need one call that the compiler must not inline"
