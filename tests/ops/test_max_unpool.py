import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.ops.max_unpool import pool_with_places, unpool

RNG = np.random.default_rng(0)


def test_maxima_come_back_to_where_they_stood():
    x = RNG.standard_normal((2, 4, 6, 3)).astype(np.float32)
    pooled, places = pool_with_places(jnp.asarray(x))
    back = np.asarray(unpool(pooled, places))
    for b, i, j, c in np.ndindex(pooled.shape):
        window = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        assert pooled[b, i, j, c] == window.max()
        np.testing.assert_array_equal(
            back[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c], np.where(window == window.max(), window, 0)
        )


def test_among_equal_values_the_first_counts_and_takes_the_gradient():
    pooled, places = pool_with_places(jnp.ones((1, 2, 4, 1)))
    np.testing.assert_array_equal(places[0, :, :, 0], [[1, 0, 1, 0], [0, 0, 0, 0]])
    gradient = jax.grad(lambda x: unpool(*pool_with_places(x)).sum())(jnp.ones((1, 2, 4, 1)))
    np.testing.assert_array_equal(gradient, places)
