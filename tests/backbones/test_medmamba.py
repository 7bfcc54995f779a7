import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError

TINY = dict(depths=(1, 2, 1, 1), dims=(4, 8, 16, 32), d_state=2)
ONE_BLOCK = dict(depths=(1,), dims=(4,), d_state=2)


def abstract(**options):
    return nnx.eval_shape(lambda: jaxmed.create_model("medmamba_tiny", **{**TINY, **options}))


def test_feature_maps_have_strides_4_to_32_and_odd_maps_are_cropped():
    model = abstract()
    maps = jax.eval_shape(lambda m: m.features(jnp.zeros((1, 64, 101, 3))), model)
    assert [m.shape for m in maps] == [(1, 16, 25, 4), (1, 8, 12, 8), (1, 4, 6, 16), (1, 2, 3, 32)]
    assert model.tap_channels == (4, 8, 16, 32)


def test_merging_takes_two_by_two_pixels_and_drops_an_odd_last_row():
    stage = jaxmed.create_model("medmamba_tiny", **TINY).layers[0]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 4, 4)), jnp.float32)
    groups = jnp.concatenate([x[:, 0:4:2, 0::2], x[:, 1:4:2, 0::2], x[:, 0:4:2, 1::2], x[:, 1:4:2, 1::2]], -1)
    np.testing.assert_allclose(stage.merged(x), stage.downsample.reduction(stage.downsample.norm(groups)), atol=1e-6)


def test_every_parameter_of_a_block_learns():
    model = jaxmed.create_model("medmamba_tiny", **ONE_BLOCK)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    image = jnp.asarray(np.random.default_rng(0).standard_normal((2, 24, 24, 3)), jnp.float32)

    @jax.jit
    def gradients(params):
        return jax.grad(lambda p: jnp.square(nnx.merge(graph, p, rest, copy=True)(image, train=True)).sum())(params)

    for path, gradient in nnx.to_flat_state(gradients(params)):
        assert jnp.isfinite(gradient.get_value()).all() and jnp.abs(gradient.get_value()).max() > 0, path


def test_drop_path_grows_with_depth_and_d_state_is_an_option():
    model = abstract(drop_path=0.4, d_state=1)
    np.testing.assert_allclose([block.rate for stage in model.layers for block in stage.blocks], [0, 0.1, 0.2, 0.3, 0.4])
    assert model.layers[0].blocks[0].ss2d.A_logs.get_value().shape == (16, 1)


def test_images_and_widths_that_cannot_work_are_refused_with_the_fix():
    with pytest.raises(UserError, match="32 x 31 pixels are too few: MedMamba needs 32 x 32"):
        jax.eval_shape(lambda m: m(jnp.zeros((1, 32, 31, 3))), abstract())
    with pytest.raises(UserError, match="twice the channels"):
        abstract(dims=(4, 8, 12, 24))


def test_bfloat16_maps_and_float32_logits():
    model, image = abstract(dtype=jnp.bfloat16), jnp.zeros((1, 64, 64, 3))
    maps, logits = jax.eval_shape(lambda m: (m.features(image), m(image)), model)
    assert {m.dtype for m in maps} == {jnp.dtype("bfloat16")} and logits.dtype == jnp.float32
