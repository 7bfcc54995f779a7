"""missformer, mtan, mtanet, mtl_oca: counts and outputs from shapes alone, and what tells each of them from the others."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.models.mtanet import ReverseAddition
from jaxmed.tree import flatten, tree_of

TINY = {
    "missformer": dict(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 2)),
    "mtan": dict(dims=(4, 8, 8, 8, 8)),
    "mtanet": dict(encoder="pvt_v2_b0", depths=(1, 1, 1, 1)),
    "mtl_oca": dict(encoder="resnet18", depths=(1, 1, 1, 1), decoder_dims=(16, 16, 8), key_dim=4),
}
SIDES = {"mtanet": ("side_logits_2", "side_logits_3", "side_logits_4"), "mtl_oca": ("side_logits_0",)}
WIDTHS = {"missformer": 32, "mtan": 8, "mtanet": 40, "mtl_oca": 256}  # of the feature in front of the class
DENSE = {"segmentation": 13, "depth": 1, "normal": 3}


def abstract(name, **options):
    return nnx.eval_shape(lambda: jaxmed.create_model(name, **options))


def shapes(model, *inputs, **call):
    out = jax.eval_shape(lambda m: m(*inputs, **call), model)
    return {key: value.shape for key, value in out.items()} if isinstance(out, dict) else out.shape


def tiny(name, **options):
    return jaxmed.create_model(name, **TINY[name], **options)


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("missformer", dict(num_classes=None), 42_462_017),  # the specification's
        ("missformer", dict(), 42_462_017 + 512 * 2 + 2),
        ("mtan", dict(num_classes=None, dense_tasks=DENSE), 44_229_076),  # the specification's
        ("mtanet", dict(num_classes=3, clinical_features=8), 29_727_347),  # the specification's
        ("mtanet", dict(), 29_727_347 - (9 * 20 + 21 * 20 + 11 * 20 + 16 * 3) + 41 * 2),
        ("mtl_oca", dict(), 46_257_221),
    ],
)
def test_parameter_counts_are_exact(name, options, parameters):
    assert jaxmed.count(abstract(name, **options)) == parameters


def test_a_class_costs_mtan_an_attention_stream_and_a_linear_layer():
    dims = (64, 128, 256, 512, 512)
    stream = sum((c if k == 0 else 2 * c) * c + c * c + 6 * c for k, c in enumerate(dims))
    with_class, without = abstract("mtan"), abstract("mtan", num_classes=None)
    assert jaxmed.count(with_class) - jaxmed.count(without) == stream + 512 * 2 + 2


@pytest.mark.parametrize("name", TINY)
def test_outputs_have_the_promised_names_and_shapes_and_are_float32(name):
    image, sides = jnp.zeros((2, 64, 96, 3)), {side: (2, 64, 96, 2) for side in SIDES.get(name, ())}
    model = abstract(name, **TINY[name], num_classes=5, mask_channels=2, dtype=jnp.bfloat16)
    out = jax.eval_shape(lambda m: m(image, aux=True), model)
    plain = {"logits": (2, 5), "mask_logits": (2, 64, 96, 2)} | sides
    assert {key: value.shape for key, value in out.items()} == plain | {"features": (2, WIDTHS[name])}
    assert {value.dtype for value in out.values()} == {jnp.dtype(jnp.float32)}
    assert shapes(model, image) == plain
    assert model.input_names == ("image",) and model.frozen == ()


@pytest.mark.parametrize("name", ["mtan", "mtl_oca"])
def test_without_classes_the_mask_logits_are_the_output(name):
    model = abstract(name, **TINY[name], num_classes=None)
    assert shapes(model, jnp.zeros((1, 32, 64, 3))) == (1, 32, 64, 1)
    with pytest.raises(UserError, match="multiples of 32; got .*resize or pad"):
        model(jnp.zeros((1, 48, 64, 3)))


def test_side_outputs_stay_beside_the_mask_with_aux():
    model = abstract("mtl_oca", **TINY["mtl_oca"], num_classes=None)
    assert shapes(model, jnp.zeros((1, 32, 32, 3)), aux=True).keys() == {"mask_logits", "side_logits_0"}


def test_where_the_coarser_mask_is_certain_a_level_of_mtanet_adds_nothing():
    level = ReverseAddition(4, 3, 1, dtype=jnp.float32, rngs=nnx.Rngs(0))
    run = jax.jit(lambda coarse: level(normal(1, 2, 2, 4), normal(1, 4, 4, 3), coarse, False)[1])
    certain, unsure = jnp.full((1, 4, 4, 1), 100.0), jnp.zeros((1, 4, 4, 1))
    np.testing.assert_array_equal(run(certain), certain)
    assert np.abs(run(unsure)).max() > 0.01


def test_encoders_can_be_filled_with_published_weights():
    for name, role in (("mtanet", "backbone"), ("mtl_oca", "encoder")):
        model = abstract(name)
        assert model.roles == {"encoder": (role,)}
    encoder = abstract("resnet18", num_classes=None, depths=(1, 1, 1, 1))
    weights = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flatten(tree_of(encoder)).items()}
    report = jaxmed.load_weights(abstract("mtl_oca", **TINY["mtl_oca"]), weights, source="jaxmed", into="encoder")
    assert len(report.mapped) == len(weights) and report.initialised == ()


def test_dense_tasks_name_the_outputs_of_mtan():
    image = jnp.zeros((2, 32, 64, 3))
    dense = {task: (2, 32, 64, channels) for task, channels in DENSE.items()}
    assert shapes(abstract("mtan", **TINY["mtan"], num_classes=None, dense_tasks=DENSE), image) == dense
    assert shapes(abstract("mtan", **TINY["mtan"], dense_tasks=DENSE), image) == dense | {"logits": (2, 2)}
    for tasks in ({}, {"depth": 0}, {"logits": 1}):
        with pytest.raises(UserError, match="dense_tasks"):
            abstract("mtan", dense_tasks=tasks)


@pytest.mark.slow
def test_clinical_findings_change_the_class_and_not_the_mask():
    model = tiny("mtanet", clinical_features=8)
    assert model.input_names == ("image", "clinical")
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, *inputs: nnx.merge(graph, state)(*inputs))
    image = normal(1, 32, 32, 3)
    a, b = (run(state, image, normal(1, 8, seed=seed)) for seed in (1, 2))
    np.testing.assert_array_equal(a["mask_logits"], b["mask_logits"])
    assert np.abs(a["logits"] - b["logits"]).min() > 1e-3
    assert len({float(jnp.mean(value)) for key, value in a.items() if key != "logits"}) == 4  # every level adds something


def test_without_classes_mtanet_asks_for_no_findings():
    model = abstract("mtanet", **TINY["mtanet"], clinical_features=8, num_classes=None)
    assert model.input_names == ("image",)
    assert shapes(model, jnp.zeros((1, 32, 32, 3))) == (1, 32, 32, 1)


def test_mistakes_are_errors():
    image = jnp.zeros((2, 32, 32, 3))
    with_findings, without = (abstract("mtanet", **TINY["mtanet"], clinical_features=n) for n in (8, 0))
    for model, inputs, message in (
        (with_findings, (image,), r"call model\(image, clinical \[2, 8\]\)"),
        (with_findings, (image, jnp.zeros((2, 7))), r"shape \[2, 7\]"),
        (without, (image, jnp.zeros((2, 8))), "leave them out"),
    ):
        with pytest.raises(UserError, match=message):
            model(*inputs)
    for name, options, message in (
        ("mtanet", dict(encoder="resnet18"), "takes a PVTv2"), ("mtl_oca", dict(encoder="pvt_v2_b0"), "takes a ResNet"),
        ("missformer", dict(dims=(8, 12, 24, 32)), "multiples of the first"),
        ("missformer", dict(dims=(8, 16, 24)), "four even numbers"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            abstract(name, **options)


def without_effect(name):
    """Parameters that no output depends on."""
    graph, params, rest = nnx.split(tiny(name), nnx.Param, ...)

    @jax.jit
    def gradients(params, rest):
        def loss_of(params):
            model = nnx.merge(graph, params, rest, copy=True)
            out = model(normal(2, 64, 64, 3), train=True, rngs=nnx.Rngs(dropout=0))
            return sum(jnp.mean(jnp.sin(value)) for value in out.values())

        return jax.grad(loss_of)(params)

    grads = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(gradients(params, rest))}
    assert all(np.isfinite(g).all() for g in grads.values())
    return {path for path, g in grads.items() if not np.any(g)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dead"), [("mtan", {"logsigma"}), ("mtanet", set()), ("mtl_oca", set())])
def test_every_parameter_learns(name, dead):
    assert without_effect(name) == dead


@pytest.mark.slow
def test_missformer_has_the_parts_that_its_checkpoints_hold_and_nothing_uses():
    dead = without_effect("missformer")
    paths = flatten(tree_of(abstract("missformer", **TINY["missformer"])))
    assert dead == {path for path in paths if re.search(r"(mlp|mixffn\.\d)\.norm[23]\.|decoder\.3\.(?!layer_up)", path)}
    assert len(dead) == 166 - 4 * 4  # of the published network's, which has two blocks per stage in place of one
