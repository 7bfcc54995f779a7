import jax
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.train.groups import rate_factors

PARAMS = {
    "swin": {"stages": {"0": {"kernel": np.ones(2)}, "1": {"kernel": np.ones(3)}}, "norm": {"bias": np.ones(1)}},
    "swin2": {"kernel": np.ones(2)},
    "query_tokens": np.ones(4),
}


def test_the_longest_prefix_wins_and_the_rest_has_factor_one():
    factors = rate_factors(PARAMS, {"swin": 0.5, "swin.stages.1": 0.25, "query_tokens": 2})
    assert factors == {
        "swin": {"stages": {"0": {"kernel": 0.5}, "1": {"kernel": 0.25}}, "norm": {"bias": 0.5}},
        "swin2": {"kernel": 1.0},
        "query_tokens": 2.0,
    }
    assert rate_factors(PARAMS, dict(reversed({"swin": 0.5, "swin.stages.1": 0.25, "query_tokens": 2}.items()))) == factors


def test_updates_are_multiplied_leaf_by_leaf():
    update = jax.tree.map(lambda leaf, factor: leaf * factor, PARAMS, rate_factors(PARAMS, {"swin": 0.5}))
    np.testing.assert_array_equal(update["swin"]["stages"]["1"]["kernel"], [0.5] * 3)
    np.testing.assert_array_equal(update["swin2"]["kernel"], [1.0] * 2)


@pytest.mark.parametrize("prefix", ["convnext", "swi", "swin.stages.2", ""])
def test_a_prefix_that_covers_nothing_is_an_error_naming_what_there_is(prefix):
    with pytest.raises(UserError, match="covers no trained parameter; the network has query_tokens, swin, swin2"):
        rate_factors(PARAMS, {prefix: 0.5})


def test_negative_factors_are_errors():
    with pytest.raises(UserError, match="negative"):
        rate_factors(PARAMS, {"swin": -1})
