import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.config import base_config
from jaxmed.errors import UserError
from jaxmed.tasks.classification import Classification
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.state import new_state
from jaxmed.train.step import Steps
from jaxmed.tree import flatten, is_under, tree_of
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, filled, leaves

TINY = dict(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_heads=(1, 2, 4, 8), window_size=4)
CROSS = TINY | dict(ctb_dim=64, ctb_heads=8, fusion_dim=64)
STREAM, FROZEN = 26_027_064, 1_492_290
NARROW = dict(ctb_dim=384, ctb_heads=12, ctb_depth=5, ctb_plain=True, ctb_after_merge=False, head="linear")
COUNTS = [  # trained, frozen
    ("dv_swin_pruned", {"num_classes": None}, 52_054_128, 2 * FROZEN),
    ("dv_swin_pruned", {}, 52_054_128 + 3_074, 2 * FROZEN),
    ("dv_swin", {}, 52_054_128 + 3_074, 2 * FROZEN),
    ("dv_resnet18", {}, 2 * 11_176_512 + 2_050, 0),
    ("x_pruning", {}, 69_786_482, 2 * FROZEN),
    ("x_pruning", {"num_classes": None}, 69_786_482 - 1_538, 2 * FROZEN),
    ("x_pruning", {"frozen_stages": 0}, 72_771_062, 0),
    ("x_pruning", {"ctb_depth": 0, "head": "linear"}, 52_054_128 + 3_074, 2 * FROZEN),
    ("x_pruning", NARROW, 69_790_322, 2 * FROZEN),
    # cross-attention, 1x1 convolutions 256 -> 768 -> 256 and 512 -> 768 per view, fusion
    ("x_resnet18", {}, 2 * (11_176_512 + 7_090_944 + 197_376 + 196_864 + 393_984) + 3_550_466, 0),
]


def abstract(name, **options):
    return nnx.eval_shape(lambda: jaxmed.create_model(name, **options))


@pytest.mark.parametrize(("name", "options", "trained", "frozen"), COUNTS)
def test_parameter_counts_are_exact(name, options, trained, frozen):
    model = abstract(name, **options)
    assert (jaxmed.count(model, trainable=True), jaxmed.count(model, trainable=False)) == (trained, frozen)


def views(b=2, h=128, w=64):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((b, h, w, 3)), jnp.float32) for _ in range(2)]


@pytest.mark.parametrize("name", ["dv_resnet18", "dv_swin", "dv_swin_pruned", "x_resnet18", "x_pruning"])
def test_outputs_have_the_promised_names_and_shapes(name):
    for dtype in (jnp.float32, jnp.bfloat16):
        model = abstract(name, num_classes=3, dtype=dtype)
        out = jax.eval_shape(lambda m: m(*views(), train=True, aux=True, rngs=nnx.Rngs(dropout=0)), model)
        dim = 1024 if name == "dv_resnet18" else 768 if name.startswith("x_") else 1536
        assert out["logits"].shape == (2, 3) and out["features"].shape == (2, dim)
        assert out["logits"].dtype == out["features"].dtype == jnp.float32
        assert ("windows" in out) == ("resnet" not in name)
    assert model.input_names == ("cc", "mlo")
    bare = abstract(name, num_classes=None)
    assert jax.eval_shape(lambda m: m(*views()), bare).shape == (2, dim)


def test_full_size_mammograms_fit_every_stage():
    full = [jnp.zeros((1, 2688, 896, 3))] * 2
    out = jax.eval_shape(lambda m: m(*full, aux=True), abstract("x_pruning"))
    for view in ("cc", "mlo"):
        assert [w.shape for w in out["windows"][view]] == [(1, 672, 224), (1, 336, 112), (1, 168, 56), (1, 84, 28)]


@pytest.fixture(scope="module")
def model():
    return jaxmed.create_model("x_pruning", **CROSS, drop_path=0.0)


@pytest.fixture(scope="module")
def call(model):
    """(model, cc, mlo) -> outputs, compiled once."""
    graph, _ = nnx.split(model)
    run = jax.jit(lambda state, cc, mlo: nnx.merge(graph, state)(cc, mlo, aux=True))
    return lambda model, cc, mlo: run(nnx.split(model)[1], cc, mlo)


def swapped(model):
    """The network in which CC and MLO have exchanged their weights, the fusion's inputs included."""
    other = jaxmed.create_model("x_pruning", **CROSS, drop_path=0.0)
    nnx.update(other, nnx.state(model))
    other.cc, other.mlo = other.mlo, other.cc
    other.exchange.cc, other.exchange.mlo = other.exchange.mlo, other.exchange.cc
    first = other.fusion.fc1.kernel
    first.set_value(jnp.roll(first.get_value(), 64, 0))
    return other


def test_exchanging_views_and_weights_changes_nothing(model, call):
    cc, mlo = views()
    out, same, other = call(model, cc, mlo), call(swapped(model), mlo, cc), call(model, mlo, cc)
    np.testing.assert_allclose(same["logits"], out["logits"], rtol=1e-4, atol=1e-5)
    for a, b in zip(out["windows"]["cc"], same["windows"]["mlo"], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(other["features"], out["features"], atol=1e-3)


def test_each_view_hears_the_other(model):
    cc, mlo = views()
    run = jax.jit(lambda m, cc, mlo: m.run(cc, mlo)[0])
    changed = run(model, cc, -mlo)
    assert np.abs(run(model, cc, mlo)[0] - changed[0]).max() > 1e-3
    deaf = jaxmed.create_model("x_pruning", **CROSS, drop_path=0.0, ctb_depth=0)
    np.testing.assert_array_equal(run(deaf, cc, mlo)[0], run(deaf, cc, -mlo)[0])


def test_attention_of_chosen_tokens_is_shown_on_the_other_view(model):
    cc, mlo = views()
    weights = jax.jit(lambda m, cc, mlo: m.cross_attention(cc, mlo, "mlo", [0, 5, 7]))(model, cc, mlo)
    assert weights.shape == (2, 3, 4, 2)
    np.testing.assert_allclose(weights.sum((2, 3)), 1.0, rtol=1e-5)
    with pytest.raises(UserError, match="ctb_depth=0"):
        abstract("x_pruning", ctb_depth=0).cross_attention(cc, mlo, "cc", [0])


def test_keys_may_come_from_the_kept_windows_alone():
    flops = {}
    for pruned in (False, True):
        model = abstract("x_pruning", **CROSS, ctb_pruned=pruned, prune_ratio=(0, 0, 0, 0.75))
        run = jax.jit(lambda m: m.run(*(jnp.zeros((1, 512, 512, 3)) for _ in range(2)))[0])
        flops[pruned] = run.lower(model).cost_analysis()["flops"]
    tokens = 16 * 16  # scores and values of both views for a quarter of the keys, and their k and v
    saved = 2 * 0.75 * tokens * (2 * 2 * 64 * tokens + 2 * 64 * 128)
    assert flops[False] - flops[True] > 0.9 * saved
    with pytest.raises(UserError, match="ctb_pruned=True needs maps of whole windows"):
        jax.eval_shape(lambda m: m(*views(1, 96, 96)), abstract("x_pruning", **CROSS, ctb_pruned=True))


def test_imagenet_weights_fill_both_streams():
    source, model = filled("swin_tiny_patch4_window7_224", 7, **TINY), filled("x_pruning", 2, seed=1, **CROSS)
    jaxmed.load_weights(model, to_state_dict(source), into="encoder")
    body = {path: leaf for path, leaf in leaves(source).items() if not path.startswith("head.")}
    for stream in (model.cc, model.mlo):
        assert_same(leaves(stream), body)


def byte_batch(seed):
    rng = np.random.default_rng(seed)
    pixels = {view: jnp.asarray(rng.integers(0, 255, (2, 64, 64, 1), np.uint8)) for view in ("cc", "mlo")}
    return pixels | {"label": jnp.array([0, 1]), "weight": jnp.ones(2), "case_id": jnp.arange(2)}


def test_frozen_leaves_are_the_same_bits_after_ten_steps_and_own_no_optimiser_state():
    model = jaxmed.create_model("x_pruning", **CROSS, remat=True)
    task, optimizer = Classification(("benign", "malignant")), make_optimizer(base_config().optimizer)
    state, before = new_state(model, optimizer, task.meters), flatten(tree_of(model))
    before = {path: np.asarray(value) for path, value in before.items()}
    steps = Steps(model, task, optimizer, (0.5,) * 3, (0.25,) * 3, 0)
    for k in range(10):
        state, loss = steps.train(state, byte_batch(k), jnp.float32(0.01))
    assert np.isfinite(loss)
    after = flatten(state["params"]) | flatten(state["frozen"])
    assert after.keys() == before.keys() and model.frozen[:3] == ("cc.patch_embed", "cc.layers.0", "cc.layers.1")
    for path, value in after.items():
        assert np.array_equal(value, before[path]) == is_under(path, model.frozen), path
    moments = sum(leaf.size for leaf in jax.tree.leaves(state["opt"]))
    assert moments <= 2 * jaxmed.count(model, trainable=True) + 2


NO_SWIN = dict(encoder="vgg11", prune_ratio=None, frozen_stages=None, drop_path=None)
BAD = [
    ({"ctb_position": 4}, "ctb_position=4"), ({"head": "gate"}, "'mlp'.*'linear'"), (NO_SWIN, "set encoder"),
    ({"ctb_heads": 5}, "5 heads do not divide"), ({"ctb_pruned": True, "ctb_after_merge": False}, "ctb_pruned=True"),
    ({"prune_ratio": 2.0}, "prune_ratio"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_say_what_is_possible(options, message):
    with pytest.raises(UserError, match=message):
        jaxmed.create_model("x_pruning", **({} if "encoder" in options else CROSS) | options)


@pytest.mark.parametrize("name", ["dv_resnet18", "x_pruning"])
def test_views_must_be_of_one_size(name):
    with pytest.raises(UserError, match=r"got \[2, 128, 64, 3\] and \[1, 128, 64, 3\]"):
        jax.eval_shape(lambda m: m(views()[0], views(1)[0]), abstract(name))
