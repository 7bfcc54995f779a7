import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.swin_pruned import SwinPruned, set_warm_up
from jaxmed.errors import UserError
from jaxmed.nn.pruned_block import mark, run_on_windows
from jaxmed.ops.window_pruning import Windows, kept, token_magnitude
from jaxmed.tree import flatten, is_under, set_tree, tree_of, unflatten
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, empty, filled, leaves

TINY = dict(depths=(2, 2, 1), dims=(8, 16, 32), num_heads=(1, 2, 4), window_size=4)
ONE = dict(depths=(4,), dims=(8,), num_heads=(1,), window_size=4, frozen_stages=0)
SWIN = "swin_tiny_patch4_window7_224"


def image(b=2, h=128, w=96, channels=3):
    return jnp.asarray(np.random.default_rng(0).standard_normal((b, h, w, channels)), jnp.float32)


@functools.cache
def weights():
    """Those that training starts from, ten times as large, so that blocks do something."""
    return jax.tree.map(lambda leaf: leaf * 10 if leaf.ndim == 2 else leaf, tree_of(jaxmed.create_model(SWIN, **TINY)))


def swin(name="swin_pruned_tiny", **options):
    """A tiny network, the same weights in every call."""
    if "depths" in options:
        return jaxmed.create_model(name, **options)
    model = nnx.eval_shape(lambda: jaxmed.create_model(name, **(TINY | options)))
    set_tree(model, weights())
    return model


def run(model, x, **options):
    graph, state = nnx.split(model)
    return jax.jit(lambda state, x: nnx.merge(graph, state)(x, aux=True, **options))(state, x)


def abstract(**options):
    return nnx.eval_shape(lambda: jaxmed.create_model("swin_pruned_tiny", **options))


def test_trained_parameters_are_the_papers():
    assert jaxmed.count(abstract(num_classes=None), trainable=True) == 26_027_064
    assert jaxmed.count(abstract(num_classes=None), trainable=False) == 1_492_290
    assert jaxmed.count(abstract(num_classes=None, frozen_stages=0), trainable=True) == 27_519_354


@pytest.mark.parametrize("name", ["small", "base"])
def test_larger_ones_are_swins_with_the_same_names(name):
    dims = dict(dims=(128, 256, 512, 1024), num_heads=(4, 8, 16, 32)) if name == "base" else {}
    dense = empty(f"swin_{name}_patch4_window7_224")
    pruned = empty("swin_pruned_tiny", depths=(2, 2, 18, 2), **dims)
    shapes = [{path: leaf.shape for path, leaf in flatten(tree_of(m)).items()} for m in (dense, pruned)]
    assert shapes[0] == shapes[1]


def test_without_pruning_it_is_swin_to_the_last_bit():
    x = image(1, 66, 57)
    np.testing.assert_array_equal(run(swin(prune_ratio=0.0), x)["logits"], run(swin(SWIN), x)["logits"])


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("size", [(16, 12), (13, 10)])
@pytest.mark.parametrize("train", [False, True])
def test_a_pruned_block_is_the_dense_one_on_kept_windows_and_the_identity_on_the_others(shift, size, train):
    block = swin(drop_path=0.5).layers[0].blocks[shift // 2]
    block.rate = 0.5
    x, windows = image(3, *size, 8), Windows(*size, 4, shift)
    index = windows.top(token_magnitude(x, "xpruning"), "xpruning", 5)
    rngs = [nnx.Rngs(dropout=0), nnx.Rngs(dropout=0)] if train else [None, None]
    pruned, dense = run_on_windows(block, x, index, windows, train, rngs[0]), block(x, train, rngs[1])
    there = np.asarray(mark(windows, index))[..., None] == 1
    assert 0 < there.mean() < 1
    np.testing.assert_allclose(np.where(there, pruned, 0), np.where(there, dense, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.where(there, 0, pruned), np.where(there, 0, x))
    assert np.abs(np.where(there, pruned - x, 0)).max() > 0.1


def test_gradients_of_a_pruned_block_are_those_of_the_dense_one_on_its_windows():
    block, x, windows = swin().layers[1].blocks[1], image(2, 12, 12, 16), Windows(12, 12, 4, 2)
    index = windows.top(token_magnitude(x, "xpruning"), "xpruning", 4)
    there, graph, params = mark(windows, index)[..., None], *nnx.split(block)

    def gradients(run):
        gradient = jax.grad(lambda params, x: jnp.sum(jnp.sin(run(nnx.merge(graph, params), x))), (0, 1))
        return jax.jit(gradient)(params, x)

    pruned = gradients(lambda block, x: run_on_windows(block, x, index, windows))
    dense = gradients(lambda block, x: jnp.where(there == 1, block(x), x))
    for a, b in zip(jax.tree.leaves(pruned), jax.tree.leaves(dense), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_tokens_are_counted_once_for_each_block_that_kept_them():
    windows = run(swin(prune_ratio=(0.5, (0.0, 0.75), 0.3)), image())["windows"]
    assert [w.shape for w in windows] == [(2, 32, 24), (2, 16, 12), (2, 8, 6)]
    assert set(np.unique(windows[0])) == {0, 1, 2} and windows[1].min() == 1
    np.testing.assert_allclose(windows[0].mean((1, 2)), 2 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(windows[1].mean((1, 2)), 1 + 3 / 12, rtol=1e-6)


@pytest.mark.parametrize("rescore", ["stage", "block"])
def test_sets_of_a_stage_are_nested_unless_every_block_ranks_anew(rescore):
    model = jaxmed.create_model("swin_pruned_tiny", **ONE, prune_ratio=((0.4, 0, 0.8, 0),), rescore=rescore)
    last = model.layers[0].blocks[1].mlp.fc2.kernel
    last.set_value(last.get_value() * 300)  # a block that changes what matters
    pruned = np.asarray(run(model, image())["windows"][0]) - 2  # by two blocks of unshifted windows
    first, second = kept(48, 0.4) * 16, kept(48, 0.8) * 16
    assert (pruned.sum((1, 2)) == first + second).all()
    nested = ((pruned == 2).sum((1, 2)) == second).all()
    assert nested == (rescore == "stage")


def test_every_image_of_a_batch_has_windows_of_its_own():
    x, model = image(), swin(**ONE, prune_ratio=0.5)
    both = run(model, x)
    assert np.any(both["windows"][0][0] != both["windows"][0][1])
    for i in range(2):
        np.testing.assert_allclose(run(model, x[i : i + 1])["logits"], both["logits"][i : i + 1], rtol=1e-4, atol=1e-5)


def test_shapes_are_kept_down_to_a_single_window_and_at_full_size():
    for size in ((224, 224), (2688, 896)):
        maps = jax.eval_shape(lambda m, size=size: m.features(jnp.zeros((1, *size, 3))), abstract(prune_ratio=0.9))
        assert [m.shape[1:3] for m in maps] == [(size[0] // s, size[1] // s) for s in (4, 8, 16, 32)]


def test_published_swin_weights_fill_it():
    source, model = filled(SWIN, 7), filled("swin_pruned_tiny", 7, seed=1)
    for published in ("timm", "official"):
        report = jaxmed.load_weights(model, to_state_dict(source, published), source=published)
        assert not report.initialised
        assert_same(leaves(model), leaves(source))
    assert_same(to_state_dict(model), to_state_dict(source))


def test_ratios_warm_up_in_training_only():
    model = swin(prune_ratio=0.5, frozen_stages=1, drop_path=0.0)
    set_warm_up(model, (0.0, 0.5, 1.0))
    training, evaluation = (run(model, image(), train=train)["windows"] for train in (True, False))
    assert (training[0] == 2).all()  # nothing pruned yet; frozen stages warm up as well
    np.testing.assert_allclose([w.mean() for w in training], [2, 2 * 9 / 12, 0.5])
    np.testing.assert_allclose([w.mean() for w in evaluation], [1, 1, 0.5])


def test_warm_up_reaches_both_streams_of_a_system():
    model = nnx.eval_shape(lambda: jaxmed.create_model("dv_swin_pruned"))
    set_warm_up(model, [0, 0, 0, 0.5])
    assert model.cc.warm_up == model.mlo.warm_up == (0.0, 0.0, 0.0, 0.5)


def test_mixed_precision_and_drop_path():
    model = swin(dtype=jnp.bfloat16, drop_path=0.2)
    out = jax.eval_shape(lambda m, x: m(x, train=True, aux=True, rngs=nnx.Rngs(dropout=0)), model, image())
    assert out["logits"].dtype == out["features"].dtype == jnp.float32
    with pytest.raises(UserError, match="this network has drop path"):
        jax.eval_shape(lambda m: m(image(), train=True), model)


def trained_loss(model):
    """(function of the trained leaves and an image, trained leaves)."""
    graph, state = nnx.split(model)
    flat = flatten(tree_of(model))
    free = {path: leaf for path, leaf in flat.items() if not is_under(path, model.frozen)}

    def loss(free, x):
        copy = nnx.merge(graph, state, copy=True)
        set_tree(copy, unflatten(free))
        return jnp.sum(copy(x, train=True, rngs=nnx.Rngs(dropout=0)) ** 2)

    return loss, free


def program(function, *inputs):
    """(floating point operations, temporary bytes) of the compiled function."""
    compiled = jax.jit(function).lower(*inputs).compile()
    return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes


def forward(ratio, x):
    graph, state = nnx.split(swin(**ONE, prune_ratio=ratio))
    return program(lambda state, x: nnx.merge(graph, state)(x), state, x)


def test_pruning_saves_operations_and_memory_in_proportion():
    x = image(1, 256, 256)
    dense, half, few = (forward(r, x) for r in (0.0, 0.5, 0.75))
    assert half[0] < 0.58 * dense[0] and few[0] < 0.35 * dense[0]
    assert half[1] < 0.8 * dense[1] and few[1] < 0.5 * dense[1]


def test_frozen_stages_are_not_differentiated_and_keep_no_activations():
    x, cost = image(2, 128, 128), {}
    for frozen in (0, 2):
        loss, free = trained_loss(swin(frozen_stages=frozen, prune_ratio=0.3))
        cost[frozen] = program(jax.grad(loss), free, x)
    assert cost[2][0] < 0.6 * cost[0][0] and cost[2][1] < 0.25 * cost[0][1]


def test_no_gradient_reaches_what_is_frozen_and_all_of_the_rest_has_one():
    model = swin(prune_ratio=0.3)
    loss, _ = trained_loss(model)
    grads = flatten(jax.jit(jax.grad(lambda tree, x: loss(flatten(tree), x)))(tree_of(model), image()))
    assert model.frozen == ("patch_embed", "layers.0", "layers.1", "layers.2.downsample")
    for path, grad in grads.items():
        assert np.any(grad) != is_under(path, model.frozen), path


def test_remat_gives_the_same_gradients_in_less_memory():
    x, found = image(1, 256, 256), {}
    for remat in (False, True):
        loss, free = trained_loss(swin(**ONE, drop_path=0.2, remat=remat))
        compiled = jax.jit(jax.grad(loss)).lower(free, x).compile()
        found[remat] = compiled(free, x), compiled.memory_analysis().temp_size_in_bytes
    assert found[True][1] < 0.6 * found[False][1]
    for path, grad in found[False][0].items():
        np.testing.assert_allclose(found[True][0][path], grad, rtol=1e-3, atol=1e-3, err_msg=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"score": "l1"}, "score='l1' is none of 'xpruning', 'sparsevit'"), ({"rescore": "never"}, "rescore='never'"),
     ({"frozen_stages": 5}, "frozen_stages=5 is none of 0, 1, 2, 3, 4"), ({"prune_ratio": 1.0}, "stage 1")],
)  # fmt: skip
def test_bad_options_say_what_is_possible(options, message):
    with pytest.raises(UserError, match=message):
        abstract(**options)


def test_everything_or_nothing_can_be_frozen():
    assert SwinPruned.frozen == () and abstract(frozen_stages=0).frozen == ()
    assert jaxmed.count(abstract(frozen_stages=4), trainable=True) == 768 * 2 + 2
