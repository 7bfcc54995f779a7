"""Every form of the selective scan against the official recurrence (tests/golden, float64) and against the formula."""

import functools
import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.ops import scan_by_tree, scan_chunked
from jaxmed.ops.selective_scan import METHODS, _grouped, selective_scan

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = {"float32": 1e-5, "float64": 1e-7}  # of the largest value; the fixtures are stored in float32


def tree_scan(u, delta, A, B, C, D, delta_bias, reverse=False, tokens=16):
    """What GPUs run, on the CPU."""
    plan = scan_chunked.Plan(tokens, False, scan_by_tree.forward, scan_by_tree.backward, True, reverse)
    y = scan_chunked.planned_scan(plan, *_grouped(u, delta, A, B, C, delta_bias)).reshape(u.shape)
    return y + D[None, None] * u


FORMS = {
    **{name: functools.partial(selective_scan, method=name) for name in METHODS if name != "auto"},
    "tree": tree_scan,
    "tree in one chunk": functools.partial(tree_scan, tokens=10_000),
}


def golden(name, dtype):
    """(inputs, gradient of y, {"y" or input: reference}) of a fixture, tokens before channels."""
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    gw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gw)
    man, reference = json.loads((GOLDEN / f"{name}.json").read_text()), np.load(GOLDEN / f"{name}.npz")
    x = {i["name"]: np.float64(gw.make_input(i["name"], i["shape"], man["seed"], i["dist"])) for i in man["inputs"]}
    x["A"] = -np.exp(np.log(np.arange(1, x["A"].shape[1] + 1)) + 0.1 * x["A"])
    x["delta_bias"] = 2 * x["delta_bias"] - 3
    x = {key: jnp.asarray(tokens_first(key, value), dtype) for key, value in x.items()}
    wanted = {key.removeprefix("out_").removeprefix("grad_"): reference[key] for key in reference.files}
    return x, x.pop("cot"), {key: tokens_first(key, value) for key, value in wanted.items()}


def tokens_first(name, x):
    return np.moveaxis(x, -1, 1) if name in ("u", "delta", "B", "C", "y", "cot") else x


def numbers(b=2, length=37, d=12, n=4, groups=None, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    shapes = dict(u=(b, length, d), delta=(b, length, d), B=(b, length, groups or 1, n), C=(b, length, groups or 1, n), D=(d,))
    x = {key: rng.standard_normal(shape) for key, shape in shapes.items()}
    x |= {"A": -np.exp(rng.standard_normal((d, n))), "delta_bias": rng.uniform(-3, 0, d)}
    x |= {} if groups else {key: x[key][:, :, 0] for key in "BC"}
    return {key: jnp.asarray(value, dtype) for key, value in x.items()}


def recurrence(u, delta, A, B, C, D, delta_bias, softplus=True, reverse=False):
    """The definition, in numpy and float64."""
    u, delta, A, B, C, D, bias = (np.asarray(x, np.float64) for x in (u, delta, A, B, C, D, delta_bias))
    (b, length, d), groups = u.shape, B.shape[2] if B.ndim == 4 else 1
    B, C = (np.repeat(x.reshape(b, length, groups, -1), d // groups, 2) for x in (B, C))
    dt = np.log1p(np.exp(delta + bias)) if softplus else delta + bias
    y, h = np.zeros(u.shape), np.zeros((b, *A.shape))
    for t in reversed(range(length)) if reverse else range(length):
        h = np.exp(dt[:, t, :, None] * A) * h + (dt[:, t] * u[:, t])[..., None] * B[:, t]
        y[:, t] = (C[:, t] * h).sum(-1) + D * u[:, t]
    return y


def value_and_gradients(form, inputs, cotangent):
    y, pull = jax.vjp(jax.jit(lambda inputs: form(**inputs)), inputs)
    return {"y": y, **pull(cotangent)[0]}


def assert_close(got, wanted, tolerance):
    assert got.keys() == wanted.keys()
    for key, value in wanted.items():
        np.testing.assert_allclose(got[key], value, rtol=0, atol=tolerance * np.abs(value).max(), err_msg=key)


@pytest.mark.parametrize(
    ("fixture", "dtype", "form"),
    [
        *(("selective_scan", "float32", form) for form in FORMS),
        *(("selective_scan", "float64", form) for form in ("chunked", "tree")),
        *(("selective_scan_long", "float32", form) for form in ("sequential", "chunked", "tree")),
    ],
)
def test_result_and_all_seven_gradients_are_the_official_ones(fixture, dtype, form):
    with jax.enable_x64(dtype == "float64"):
        inputs, cotangent, wanted = golden(fixture, dtype)
        got = value_and_gradients(FORMS[form], inputs, cotangent)
        assert got["y"].dtype == dtype
        assert_close(got, wanted, TOLERANCE[dtype])


@pytest.mark.parametrize("form", ["sequential", "chunked", "tree"])
@pytest.mark.parametrize(
    ("length", "groups", "d", "reverse"),
    [(1, None, 12, False), (37, None, 12, True), (131, 2, 12, False), (131, 3, 12, True), (67, None, 1030, True)],
)
def test_odd_lengths_groups_and_many_channels_follow_the_recurrence(length, groups, d, reverse, form):
    inputs = numbers(length=length, groups=groups, d=d)
    got = jax.jit(functools.partial(FORMS[form], reverse=reverse))(**inputs)
    np.testing.assert_allclose(got, recurrence(**inputs, reverse=reverse), atol=1e-5 * float(jnp.abs(got).max()))


@pytest.mark.parametrize("form", ["chunked", "tree"])
@pytest.mark.parametrize(
    ("length", "groups", "d", "reverse"), [(37, None, 12, False), (131, 2, 12, True), (67, None, 1030, True)]
)
def test_gradients_are_those_of_the_token_after_token_form(length, groups, d, reverse, form):
    with jax.enable_x64():
        inputs = numbers(length=length, groups=groups, d=d, n=4, dtype=jnp.float64)
        cotangent = numbers(length=length, d=d, seed=1, dtype=jnp.float64)["u"]
        got, wanted = (
            value_and_gradients(functools.partial(FORMS[name], reverse=reverse), inputs, cotangent)
            for name in (form, "sequential")
        )
        assert_close(got, wanted, 1e-12)


@pytest.mark.parametrize("method", ["sequential", "auto"])
def test_without_softplus_skip_and_bias_the_plain_recurrence_remains(method):
    inputs = numbers() | {"D": jnp.zeros(12), "delta_bias": jnp.zeros(12)}
    inputs["delta"] = jnp.abs(inputs["delta"])
    short = {key: inputs[key] for key in ("u", "delta", "A", "B", "C")}
    got = selective_scan(**short, softplus=False, method=method)
    np.testing.assert_allclose(got, recurrence(**inputs, softplus=False), atol=1e-5)


@pytest.mark.parametrize("method", ["sequential", "auto"])
def test_bfloat16_inputs_are_scanned_in_float32(method):
    exact = numbers(length=90)
    inputs = exact | {key: exact[key].astype(jnp.bfloat16) for key in "uBC"}
    y, grads = jax.value_and_grad(lambda x: selective_scan(**x, method=method).sum())(inputs)
    assert y.dtype == jnp.float32 and {key: g.dtype for key, g in grads.items()} == {key: x.dtype for key, x in inputs.items()}
    rounded = recurrence(**{key: x.astype(jnp.float32) for key, x in inputs.items()})
    y = jax.jit(functools.partial(selective_scan, method=method))(**inputs)
    np.testing.assert_allclose(y, rounded, atol=1e-5 * np.abs(rounded).max())


def test_backward_holds_a_fraction_of_the_memory_of_the_full_associative_scan():
    inputs = numbers(b=1, length=3136, d=96, n=16)

    def bytes_of(method):
        def both(inputs, cotangent):
            y, pull = jax.vjp(lambda inputs: selective_scan(**inputs, method=method), inputs)
            return y, pull(cotangent)

        compiled = jax.jit(both).lower(inputs, inputs["u"]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert 32 * bytes_of("chunked") <= bytes_of("associative")
    assert bytes_of("auto") == bytes_of("chunked")


def test_the_batch_may_stay_open_in_an_exported_program():
    symbol = jax.export.symbolic_shape("b")[0]
    inputs = numbers(b=3)
    open_batch = {
        key: jax.ShapeDtypeStruct((symbol, *x.shape[1:]) if key in ("u", "delta", "B", "C") else x.shape, x.dtype)
        for key, x in inputs.items()
    }
    exported = jax.export.export(jax.jit(lambda x: selective_scan(**x)))(open_batch)
    np.testing.assert_allclose(exported.call(inputs), recurrence(**inputs), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"A": jnp.zeros((11, 4))}, r"A is \[11, 4\], not \[12, 4\]"),
        ({"B": jnp.zeros((2, 37, 5, 4)), "C": jnp.zeros((2, 37, 5, 4))}, "12 channels cannot be divided into the 5 groups"),
        ({"C": jnp.zeros((2, 36, 4))}, r"C is \[2, 36, 1, 4\]"),
        ({"method": "parallel"}, "no method='parallel'; there are 'auto'"),
    ],
)
def test_shapes_and_methods_that_do_not_exist_are_named(change, message):
    with pytest.raises(UserError, match=message):
        selective_scan(**numbers() | change)
