import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed

MAPS = [  # options -> (stride, channels) of each map at 64 x 64
    ({}, [(4, 64), (8, 128), (16, 256), (32, 512)]),
    ({"pre_merge": False}, [(4, 64), (8, 128), (16, 256)]),
    ({"cut": "layer1"}, [(4, 64), (8, 128), (16, 256)]),
    ({"cut": "layer3", "depths": (2,)}, [(4, 64), (8, 128), (16, 256), (32, 512)]),
    ({"cut": "layer1", "pre_merge": False, "depths": (1, 1, 1, 1)}, [(4, 64), (8, 128), (16, 256), (32, 512)]),
]


@pytest.mark.parametrize(("options", "expected"), MAPS)
def test_maps_halve_and_double_from_stride_4_wherever_the_cnn_ends(options, expected):
    model = nnx.eval_shape(lambda: jaxmed.create_model("cnn_vssm", None, **options))
    maps = jax.eval_shape(lambda m, x: m.features(x), model, jnp.zeros((2, 64, 64, 3)))
    assert [x.shape for x in maps] == [(2, 64 // stride, 64 // stride, channels) for stride, channels in expected]
    assert model.tap_channels == tuple(channels for _, channels in expected)
    assert jax.eval_shape(lambda m, x: m(x), model, jnp.zeros((2, 64, 70, 3))).shape == (2, expected[-1][1])


def test_the_cnn_is_a_resnet18_that_ends_early():
    whole, cut = jaxmed.create_model("resnet18", 2), jaxmed.create_model("resnet18", None, depths=(2, 2))
    jaxmed.load_weights(cut, jaxmed.weights.to_state_dict(whole))
    image = jnp.asarray(np.random.default_rng(0).standard_normal((1, 32, 32, 3)), jnp.float32)
    first, last = (jax.jit(lambda m, x: m.features(x)[:2])(model, image) for model in (whole, cut))
    for a, b in zip(first, last, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert len(cut.features(image)) == 2


@pytest.mark.parametrize(("pre_merge", "scanned"), [(True, 512), (False, 256)])
def test_the_vssm_sees_merged_tokens_or_the_cnns_own_map(pre_merge, scanned):
    model = nnx.eval_shape(lambda: jaxmed.create_model("cnn_vssm", None, pre_merge=pre_merge))
    assert len(model.layers) == 2 and len(model.merge) == pre_merge
    assert model.layers[0].blocks[0].norm.scale.shape == (scanned // 4,) and not hasattr(model.layers[1], "downsample")


def test_drop_path_grows_from_the_first_block_to_the_last():
    model = nnx.eval_shape(lambda: jaxmed.create_model("cnn_vssm", None, depths=(1, 2), drop_path=0.2))
    assert [block.rate for stage in model.layers for block in stage.blocks] == pytest.approx([0.0, 0.1, 0.2])
