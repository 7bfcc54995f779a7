"""Adam's numbers and what weight decay acts on."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxmed
from jaxmed.config import base_config
from jaxmed.train.optimizer import decayed, make_optimizer
from jaxmed.tree import flatten, tree_of

SMALL = dict(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_heads=(1, 2, 4, 8), ctb_dim=64, ctb_heads=8, fusion_dim=64)


def options(**given):
    config = base_config().optimizer
    config.update(given)
    return config


def test_decay_spares_norms_biases_and_tables_of_positions():
    model = nnx.eval_shape(lambda: jaxmed.create_model("x_pruning", **SMALL, ctb_grid=(4, 2)))
    flat, chosen = flatten(tree_of(model)), flatten(decayed(tree_of(model)))
    spared = {path.split(".")[-1] for path, yes in chosen.items() if not yes}
    assert spared == {"bias", "scale", "relative_position_bias_table", "rows", "columns"}
    assert all(len(flat[path].shape) >= 2 for path, yes in chosen.items() if yes)


def test_decayed_leaves_move_towards_zero_by_rate_times_decay_and_others_do_not():
    params = {"a": {"kernel": jnp.full((2, 2), 2.0), "bias": jnp.full(2, 2.0)}}
    zeros = jax.tree.map(jnp.zeros_like, params)
    moved = {}
    for everything in (True, False):
        optimizer = make_optimizer(options(weight_decay=0.05, decay_all=everything))
        moved[everything] = optimizer.update(zeros, optimizer.init(params), params)[0]["a"]
    np.testing.assert_allclose(moved[True]["bias"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(moved[False]["bias"], 0.0)
    for everything in (True, False):
        np.testing.assert_allclose(moved[everything]["kernel"], 0.1, rtol=1e-6)


def test_eps_is_added_to_the_root_of_the_second_moment():
    params, grads = {"kernel": jnp.zeros(3)}, {"kernel": jnp.array([1e-9, 1e-7, 1.0])}
    for eps in (1e-8, 1e-7):
        optimizer = make_optimizer(options(eps=eps))
        update = optimizer.update(grads, optimizer.init(params), params)[0]["kernel"]
        gradient = np.asarray(grads["kernel"], np.float64)
        np.testing.assert_allclose(update, gradient / (gradient + eps), rtol=1e-4)
