import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from jaxmed.errors import UserError
from jaxmed.train.schedule import first_beta, learning_rate

TRACES = json.loads((Path(__file__).parents[1] / "golden/one_cycle_torch.json").read_text())["traces"]


def config(schedule="one_cycle", peak=1e-3, pct_start=0.05, cycle_b1=True, warmup=0.0, min_learning_rate=0.0):
    rate = {"learning_rate": peak, "min_learning_rate": min_learning_rate}
    return ConfigDict(
        rate | {"schedule": schedule, "pct_start": pct_start, "warmup": warmup, "b1": 0.9, "b2": 0.999, "cycle_b1": cycle_b1}
    )


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: str(trace["total"]))
def test_rates_and_betas_equal_stored_torch_traces(trace):
    cycle, total = config(peak=trace["peak"], pct_start=trace["pct_start"]), trace["total"]
    for name, function in (("lr", learning_rate), ("b1", first_beta)):
        ours = [function(cycle, step, total) for step in range(total)]
        np.testing.assert_allclose(ours, trace[name], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: str(trace["total"]))
def test_an_adam_whose_beta_is_an_argument_of_the_step_follows_torch(trace):
    """So a train step can take the cycled beta like its learning rate, without compiling again."""
    cycle, total = config(peak=trace["peak"], pct_start=trace["pct_start"]), trace["total"]
    traces = []

    @jax.jit
    def update(params, opt, k, rate, b1):
        traces.append(k)
        grads = jax.grad(lambda p: jnp.sum(p * jnp.array([1.0, 2.0, -3.0]) + p**2 * jnp.cos(k)))(params)
        direction, opt = optax.scale_by_adam(b1, cycle.b2, eps=1e-8).update(grads, opt)
        return params - rate * direction, opt

    params = jnp.array([1.0, -2.0, 0.5])
    opt = optax.scale_by_adam(cycle.b1, cycle.b2).init(params)
    for step in range(total):
        rate, beta = learning_rate(cycle, step, total), first_beta(cycle, step, total)
        params, opt = update(params, opt, jnp.float32(step), jnp.float32(rate), jnp.float32(beta))
    np.testing.assert_allclose(params, trace["params"][-1], rtol=2e-5)  # float32 rounding over 60 updates
    assert len(traces) == 1


def test_the_rate_starts_and_ends_at_zero_and_peaks_after_the_warm_up():
    rates = [learning_rate(config(), step, 400) for step in range(400)]
    assert rates[0] == 0 and rates[-1] == pytest.approx(0, abs=1e-18)
    assert np.argmax(rates) == 19 and max(rates) == 1e-3


def test_cosine_and_constant():
    assert [learning_rate(config("cosine"), step, 8) for step in (0, 4)] == pytest.approx([1e-3, 5e-4])
    assert 0 < learning_rate(config("cosine"), 7, 8) < 5e-5
    assert learning_rate(config("constant"), 7, 8) == 1e-3


def test_a_cosine_may_rise_in_equal_steps_first_and_end_above_zero():
    warm = config("cosine", peak=1.0, warmup=0.05, min_learning_rate=0.2)
    rates = [learning_rate(warm, step, 100) for step in range(100)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    part = (np.arange(5, 100) - 5) / 95
    np.testing.assert_allclose(rates[5:], 0.2 + 0.8 * np.cos(np.pi * part / 2) ** 2, rtol=1e-12)
    assert learning_rate(warm, 100, 100) == 0.2
    with pytest.raises(UserError, match="warmup=1 must be at least 0 and less than 1"):
        learning_rate(config("cosine", warmup=1.0), 0, 8)


@pytest.mark.parametrize("total", [1, 2, 10, 20, 40])
def test_short_runs_have_finite_rates(total):
    rates = [learning_rate(config(), step, total) for step in range(total)]
    assert all(0 <= rate <= 1e-3 for rate in rates) and (total < 10 or max(rates) > 9e-4)


def test_without_cycling_the_beta_is_the_configs():
    assert first_beta(config(cycle_b1=False), 3, 10) == 0.9


def test_bad_configs_are_errors():
    with pytest.raises(UserError, match="schedule='linear' is unknown"):
        learning_rate(config("linear"), 0, 10)
    with pytest.raises(UserError, match="pct_start=1"):
        learning_rate(config(pct_start=1.0), 0, 10)
    with pytest.raises(UserError, match="cycle_b1 needs"):
        first_beta(config("cosine"), 0, 10)
