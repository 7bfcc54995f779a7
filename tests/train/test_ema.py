import jax
import jax.numpy as jnp
import numpy as np

from jaxmed.train.ema import start, update

STEP = jax.jit(
    lambda state, decay: {"params": state["params"], "ema": update(state["ema"], state["params"], decay)},
    static_argnames="decay",
)


def tree(value):
    return {"a": {"kernel": jnp.full((2, 3), value)}, "b": jnp.full((), 2 * value)}


def test_the_mean_of_given_parameters_equals_the_formula_in_float64():
    values, decay = np.random.default_rng(0).standard_normal(200), 0.98
    state = {"params": tree(0.5), "ema": start(tree(0.5))}
    expected = 0.5
    for value in values:
        state = STEP(state | {"params": tree(value)}, decay=decay)
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(state["ema"]["a"]["kernel"], np.full((2, 3), expected), atol=1e-6)
    np.testing.assert_allclose(state["ema"]["b"], 2 * expected, atol=2e-6)


def test_a_high_decay_loses_no_small_steps():
    state = {"params": tree(1.0), "ema": start(tree(0.0))}
    for _ in range(1000):
        state = STEP(state, decay=0.9999)
    np.testing.assert_allclose(state["ema"]["b"], 2 * (1 - 0.9999**1000), rtol=1e-4)


def test_parameters_that_stand_still_stay_bit_for_bit():
    state = {"params": tree(0.1), "ema": start(tree(0.1))}
    np.testing.assert_array_equal(STEP(state, decay=0.9999)["ema"]["a"]["kernel"], state["params"]["a"]["kernel"])


def test_the_start_owns_its_buffers_so_that_a_step_may_donate_the_state():
    params = tree(1.0)
    donate = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    after = donate({"params": params, "ema": start(params)})
    np.testing.assert_array_equal(after["ema"]["b"], 3.0)
