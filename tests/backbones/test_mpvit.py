import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.mpvit import RelativePositions, factorized_attention
from jaxmed.errors import UserError
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, fill, leaves

TINY = dict(depths=(2, 1, 1, 1), dims=(8, 16, 24, 32), paths=(1, 2, 1, 1))
PATH = "mhca_stages.0.mhca_blks.0."


def abstract(**options):
    return nnx.eval_shape(lambda: jaxmed.create_model("mpvit_tiny", **{**TINY, **options}))


def noise(*shape):
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


def test_feature_maps_have_strides_4_to_32_at_any_size():
    model = abstract()
    maps = jax.eval_shape(lambda m: m.features(jnp.zeros((1, 64, 97, 3))), model)
    assert [m.shape for m in maps] == [(1, 16, 25, 16), (1, 8, 13, 24), (1, 4, 7, 32), (1, 2, 4, 32)]
    assert model.tap_channels == (16, 24, 32, 32)


def test_factorized_attention_takes_the_softmax_over_tokens():
    q, k, v = noise(3, 1, 3, 4, 6)
    wanted = np.zeros((12, 6))
    for head in range(2):
        qh, kh, vh = (x.reshape(12, 6)[:, 3 * head : 3 * head + 3].astype(float) for x in (q, k, v))
        weights = np.exp(kh) / np.exp(kh).sum(0)
        wanted[:, 3 * head : 3 * head + 3] = qh @ (weights.T @ vh) / np.sqrt(3)
    np.testing.assert_allclose(np.reshape(factorized_attention(q, k, v, 2), (12, 6)), wanted, atol=1e-5)


def test_two_heads_look_3_pixels_wide_three_look_5_and_three_look_7():
    positions = RelativePositions(16, dtype=jnp.float32, rngs=nnx.Rngs(0))
    q, v = noise(2, 1, 9, 9, 16)
    w = v.copy()
    w[0, 4, 4] += 1.0
    changed = np.asarray(positions(q, w) != positions(q, v))[0]
    for channels, window in ((slice(0, 4), 3), (slice(4, 10), 5), (slice(10, 16), 7)):
        reach = np.zeros((9, 9), bool)
        start = 4 - window // 2
        reach[start : start + window, start : start + window] = True
        np.testing.assert_array_equal(changed[..., channels].any(-1), reach)


def test_of_the_published_copies_the_one_that_torch_loads_last_counts():
    table = {key: array + i for i, (key, array) in enumerate(to_state_dict(fill(abstract()), target="official").items())}
    for order in (list(table), list(reversed(table))):
        model = abstract()
        report = jaxmed.load_weights(model, {key: table[key] for key in order}, source="official")
        assert len(report.mapped) + len(report.ignored) == len(table)
        path = model.mhca_stages[0].mhca_blks[0]
        last = table[PATH + "MHCA_layers.1.factoratt_crpe.crpe.conv_list.2.weight"]
        np.testing.assert_array_equal(path.crpe.conv_list[2].kernel.get_value()[..., 0, :], last[:, 0].transpose(1, 2, 0))
        np.testing.assert_array_equal(path.cpe.proj.bias.get_value(), table[PATH + "MHCA_layers.1.cpe.proj.bias"])


def test_all_copies_are_written_out_and_read_back():
    model, other = fill(abstract()), abstract()
    table = to_state_dict(model, target="official")
    owners = {key.removesuffix("cpe.proj.bias") for key in table if key.startswith(PATH) and key.endswith("cpe.proj.bias")}
    assert owners == {PATH, PATH + "MHCA_layers.0.", PATH + "MHCA_layers.1."}
    jaxmed.load_weights(other, table, source="official")
    assert_same(leaves(model), leaves(other))


def test_drop_path_acts_in_training_alone_and_without_rngs_it_says_so():
    model = abstract(drop_path=0.3)
    rates = [layer.rate for stage in model.mhca_stages for layer in stage.mhca_blks[0].MHCA_layers]
    np.testing.assert_allclose(rates, [0.0, 0.075, 0.15, 0.225, 0.3])
    with pytest.raises(UserError, match="drop path"):
        jax.eval_shape(lambda m: m(jnp.zeros((2, 64, 64, 3)), train=True), model)


def test_bfloat16_maps_and_float32_logits():
    model, image = abstract(dtype=jnp.bfloat16), jnp.zeros((1, 64, 64, 3))
    maps, logits = jax.eval_shape(lambda m: (m.features(image), m(image)), model)
    assert {m.dtype for m in maps} == {jnp.dtype("bfloat16")} and logits.dtype == jnp.float32
