"""SS2D against the official block (tests/golden) and against its definition with flips and stacked directions."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.errors import UserError
from jaxmed.nn import SS2D, SSConvSSM
from jaxmed.ops.scan2d import by_columns, by_rows, merge
from jaxmed.tree import flatten, set_tree, tree_of, unflatten
from jaxmed.weights.layouts import default_layout

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def gw():
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noise(*shape):
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), jnp.float32)


def official(gw, name):
    """(block with the fixture's weights, input, outputs and full shapes)."""
    man, reference = json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.npz")
    weights = gw.make_state_dict(man["entries"], man["seed"])
    block, values = SS2D(man["config"]["d_model"], rngs=nnx.Rngs(0)), {}
    for path in flatten(tree_of(block)):
        key = path.replace(".kernel", ".weight").replace(".scale", ".weight")
        values[path] = jnp.asarray(default_layout(path).to_jax(weights.pop(key)))
    assert not weights
    set_tree(block, unflatten(values))
    (spec,) = man["inputs"]
    return block, gw.make_input(spec["name"], spec["shape"], man["seed"], spec["dist"]), reference


@pytest.mark.parametrize("name", ["ss2d_9x7", "ss2d_16x16"])
def test_output_and_inner_maps_are_the_official_ones(gw, name):
    block, x, reference = official(gw, name)
    mids = {}

    def run(x):
        projected = block.in_proj(x)
        inner = jax.nn.silu(block.conv2d(jnp.split(projected, 2, -1)[0]))
        return {"y": block(x), "in_proj": projected, "conv_silu": inner, "out_norm": block.out_norm(block.scans(inner))}

    mids = jax.jit(run)(x)
    for key in reference.files:
        wanted, got = reference[key], np.asarray(mids[key.partition("_")[2]])
        got = got if got.shape == wanted.shape else gw.subsample(got, wanted.size)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max(), err_msg=key)


def naive_scans(block, x):
    """Definition: four flattened copies of the map, forward scans, each put back in place, summed (one token at a time)."""
    b, h, w, c = x.shape
    place = np.arange(h * w).reshape(h, w)
    orders = [place.ravel(), place.T.ravel(), place.ravel()[::-1], place.T.ravel()[::-1]]
    leaf = lambda name: np.asarray(getattr(block, name).get_value(), np.float64)  # noqa: E731
    A, D, total = -np.exp(leaf("A_logs").reshape(4, c, -1)), leaf("Ds").reshape(4, c), np.zeros((b, h * w, c))
    for k, order in enumerate(orders):
        u = np.asarray(x, np.float64).reshape(b, h * w, c)[:, order]
        r, B, C = np.split(u @ leaf("x_proj_weight")[k].T, (block.rank, block.rank + block.d_state), -1)
        dt = np.log1p(np.exp(r @ leaf("dt_projs_weight")[k].T + leaf("dt_projs_bias")[k]))
        state = np.zeros((b, c, block.d_state))
        for t, pixel in enumerate(order):
            state = np.exp(dt[:, t, :, None] * A[k]) * state + (dt[:, t] * u[:, t])[..., None] * B[:, t, None]
            total[:, pixel] += (state * C[:, t, None]).sum(-1) + D[k] * u[:, t]
    return total.reshape(x.shape)


def test_the_four_directions_are_rows_columns_and_both_from_the_end():
    block = SS2D(8, d_state=4, rngs=nnx.Rngs(0))
    block.Ds[...] = noise(64)
    x = noise(2, 5, 3, 16)
    wanted = naive_scans(block, x)
    np.testing.assert_allclose(jax.jit(block.scans)(x), wanted, atol=1e-5 * np.abs(wanted).max())


def test_layouts_follow_rows_or_columns_and_merge_undoes_them():
    x = noise(2, 3, 4, 5)
    rows, columns = by_rows(x), by_columns(x)
    np.testing.assert_array_equal(rows[:, 1 * 4 + 2], x[:, 1, 2])
    np.testing.assert_array_equal(columns[:, 2 * 3 + 1], x[:, 1, 2])
    np.testing.assert_array_equal(merge(rows, columns, 3, 4), 2 * x)


def test_parameters_start_as_published():
    block = SS2D(48, rngs=nnx.Rngs(0))
    dt = jax.nn.softplus(block.dt_projs_bias.get_value())
    assert 0.00099 < dt.min() < 0.0013 and 0.08 < dt.max() < 0.101
    np.testing.assert_allclose(jnp.exp(block.A_logs.get_value())[5], np.arange(1, 17), rtol=1e-6)
    np.testing.assert_allclose(block.conv2d.kernel.get_value().std(), (2 / (9 * 96)) ** 0.5, rtol=0.1)
    assert jnp.abs(block.dt_projs_weight.get_value()).max() <= 3**-0.5
    assert jnp.abs(block.x_proj_weight.get_value()).max() <= 96**-0.5


def test_the_block_interleaves_its_halves_around_a_shortcut_and_trains_its_norms():
    block, x = SSConvSSM(8, d_state=2, rngs=nnx.Rngs(0)), noise(2, 4, 4, 8)
    change = block(x) - x
    np.testing.assert_allclose(change[..., 0::2], block.conv_branch(x[..., :4], False), atol=1e-6)
    np.testing.assert_allclose(change[..., 1::2], block.ss2d(block.norm(x[..., 4:])), atol=1e-6)
    before = block.conv_branch.norm1.mean.get_value()
    block(x, train=True)
    assert not np.array_equal(before, block.conv_branch.norm1.mean.get_value())


def test_drop_path_leaves_out_the_scanned_half_alone_and_asks_for_rngs():
    block, x = SSConvSSM(8, d_state=2, drop_path=1.0 - 1e-6, rngs=nnx.Rngs(0)), noise(2, 4, 4, 8)
    change = block(x, train=True, rngs=nnx.Rngs(1)) - x
    np.testing.assert_array_equal(change[..., 1::2], 0)
    assert jnp.abs(change[..., 0::2]).max() > 0
    with pytest.raises(UserError, match="drop path"):
        block(x, train=True)


def test_bfloat16_maps_stay_close_to_float32():
    x = noise(1, 6, 6, 8)
    full, half = (SSConvSSM(8, dtype=dtype, rngs=nnx.Rngs(0))(x.astype(dtype)) for dtype in (jnp.float32, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), full, atol=0.05 * float(jnp.abs(full).max()))
