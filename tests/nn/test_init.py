import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.nn import Conv, DepthwiseConv, kaiming_normal, normal, torch_uniform


@pytest.mark.parametrize("initializer", [kaiming_normal(), kaiming_normal("fan_in"), normal(0.01), torch_uniform()])
def test_a_traced_key_draws_the_same_numbers_as_a_concrete_one(initializer):
    key, shape = jax.random.key(3), (3, 3, 5, 7)
    concrete, traced = initializer(key, shape), jax.jit(lambda key: initializer(key, shape))(key)
    assert concrete.shape == shape and concrete.dtype == jnp.float32
    np.testing.assert_allclose(concrete, traced, rtol=1e-6)


def test_torchs_uniform_stays_within_one_over_the_root_of_fan_in():
    kernel = np.asarray(torch_uniform()(jax.random.key(0), (100, 50)))
    assert 0.099 < kernel.max() <= 0.1 and -0.1 <= kernel.min() < -0.099


def test_kaiming_fan_out_counts_the_outputs_of_one_group():
    kernels = [
        Conv(64, 128, 3, rngs=nnx.Rngs(0)).kernel, Conv(64, 128, 3, groups=4, rngs=nnx.Rngs(0)).kernel,
        DepthwiseConv(512, 3, rngs=nnx.Rngs(0)).kernel,
    ]
    for kernel, fan_out in zip(kernels, (128 * 9, 32 * 9, 9), strict=True):
        assert float(kernel.get_value().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
