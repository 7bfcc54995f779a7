import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.nn.frozen_norm import FrozenBatchNorm
from jaxmed.tree import count, flatten, is_under, tree_of
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, empty, fill, leaves

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-4  # of the largest value, float32; the official run is within 2e-6 of itself under input noise
B4 = dict(encoder="tf_efficientnet_b4", num_classes=3)
TINY = dict(
    encoder="tf_efficientnet_b0", depths=(1, 2, 1, 1, 1, 1, 1), dims=(8, 8, 8, 8, 8, 8, 8, 8, 16), decoder_dims=(16, 16, 8, 8)
)
# specification, section 3: trainable parameters of the parts, no statistics
REFINE = (137_847, 241_362, 724_707, 5_814_402, 20_171_862)
LEVELS = {
    "up": (6_193_536, 663_744, 165_984, 41_520), "gate": (336_193, 71_329, 19_537, 6_313),
    "res": (1_818_243, 405_555, 109_683, 34_251), "clf_fc": (459_008, 246_016, 86_272, 49_408),
    "tim": (436_160, 196_064, 117_488, 88_568), "upa": (162, 162, 162, 162),
}  # fmt: skip
HEADS = {"seg_": 13_881, "cls_": 1_103_363}
NORMALISATION = 7  # numbers of Keras' normalisation layer, which here is part of the data pipeline


def abstract(**options):
    return nnx.eval_shape(lambda: jaxmed.create_model("decoder_interaction", **options))


@pytest.fixture(scope="module")
def b4():
    return abstract(**B4, parity="official")


def test_every_part_has_the_parameters_of_the_budget(b4):
    assert tuple(count(block) for block in b4.refine) == REFINE
    assert {part: tuple(count(getattr(level, part)) for level in b4.levels) for part in LEVELS} == LEVELS
    flat = flatten(tree_of(b4))
    params = {path: leaf.size for path, leaf in flat.items() if path.rpartition(".")[2] not in ("mean", "var")}
    assert {head: sum(n for path, n in params.items() if path.startswith(head)) for head in HEADS} == HEADS
    assert count(b4) - count(b4.encoder) == 39_752_944
    assert sum(leaf.size for leaf in flat.values()) == 57_445_903 - NORMALISATION


def test_the_first_layers_are_frozen(b4):
    flat = flatten(tree_of(b4))
    assert sum(leaf.size for path, leaf in flat.items() if is_under(path, b4.frozen)) == 27_807 - NORMALISATION
    norms = {".".join(map(str, path)): type(m) is FrozenBatchNorm for path, m in nnx.iter_modules(b4) if hasattr(m, "momentum")}
    assert norms == {path: is_under(path, b4.frozen) for path in norms}
    assert all(block.rate == 0 for block in b4.encoder.blocks[0]) and b4.encoder.blocks[1][1].rate > 0
    assert abstract(**B4, freeze=False).frozen == ()


@pytest.mark.parametrize("encoder", ["efficientnet_b0", "tf_efficientnet_lite0"])
def test_outputs_have_the_promised_names_and_shapes(encoder):
    model = abstract(encoder=encoder, mask_channels=2)
    image = jnp.zeros((2, 96, 64, 3))
    out = jax.eval_shape(lambda m: m(image, aux=True), model)
    plain = {"logits": (2, 2), "mask_logits": (2, 96, 64, 2)}
    assert {k: v.shape for k, v in out.items()} == plain | {"features": (2, 256), "upa": (2, 4, 2)}
    assert {k: v.shape for k, v in jax.eval_shape(lambda m: m(image), model).items()} == plain
    assert model.input_names == ("image",)


def test_without_classes_the_mask_logits_are_the_output():
    model = abstract(**TINY, num_classes=None)
    assert jax.eval_shape(lambda m: m(jnp.zeros((1, 32, 32, 3))), model).shape == (1, 32, 32, 1)
    assert set(jax.eval_shape(lambda m: m(jnp.zeros((1, 32, 32, 3)), aux=True), model)) == {"mask_logits", "upa"}


def test_half_precision_stays_half_until_the_logits():
    model = abstract(**TINY, dtype=jnp.bfloat16)
    image = jnp.zeros((2, 32, 32, 3))
    assert all(x.dtype == jnp.bfloat16 for x in jax.eval_shape(lambda m: m.encode(image), model))
    out = jax.eval_shape(lambda m: m(image, aux=True), model)
    assert {out[name].dtype for name in ("logits", "mask_logits", "upa")} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def whole():
    return set(flatten(tree_of(abstract(**TINY))))


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        ({"use_hmsf": False}, {"hmsf"}),
        ({"use_upa": False}, {"upa"}),
        ({"use_tim": False, "use_hmsf": False}, {"tim", "upa", "hmsf"}),
    ],
)
def test_ablations_leave_their_part_out(whole, options, gone):
    model = abstract(**TINY, **options)
    assert whole - set(flatten(tree_of(model))) == {path for path in whole if gone & set(path.split("."))}
    out = jax.eval_shape(lambda m: m(jnp.zeros((1, 32, 32, 3)), aux=True), model)
    assert ("upa" in out) == ("upa" not in gone) and out["logits"].shape == (1, 2)


def images(b=3):
    return jnp.asarray(np.random.default_rng(0).standard_normal((b, 64, 64, 3)), jnp.float32)


@pytest.fixture(scope="module")
def trained():
    """(a tiny network, the same after a training batch); without HMSF, which takes long to compile and has no part in this."""
    model = jaxmed.create_model("decoder_interaction", **TINY, use_hmsf=False)
    graph, state = nnx.split(model)

    @jax.jit
    def statistics(state):
        copy = nnx.merge(graph, state, copy=True)
        copy(images(), train=True, rngs=nnx.Rngs(dropout=0))
        return nnx.state(copy, nnx.BatchStat)

    after = nnx.clone(model)
    nnx.update(after, statistics(state))
    return model, after


@pytest.mark.slow
def test_every_parameter_learns():
    graph, params, rest = nnx.split(jaxmed.create_model("decoder_interaction", **TINY, tim_pool="attention"), nnx.Param, ...)

    @jax.jit
    def gradients(params, rest):
        def loss_of(params):
            out = nnx.merge(graph, params, rest, copy=True)(images(), train=True, rngs=nnx.Rngs(dropout=0))
            return sum(jnp.mean(jnp.square(value)) for value in out.values())

        return jax.grad(loss_of)(params)

    grads = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(gradients(params, rest))}
    assert all(np.isfinite(g).all() for g in grads.values())
    assert [path for path, g in grads.items() if not np.any(g)] == []


@pytest.mark.slow
def test_statistics_of_frozen_layers_stay_and_all_others_move(trained):
    before, after = trained
    old, new = leaves(before), leaves(after)
    stats = [path for path in old if path.rpartition(".")[2] in ("mean", "var", "total", "weight")]
    same = {path for path in stats if np.array_equal(old[path], new[path])}
    assert same == {path for path in stats if is_under(path, before.frozen)} and same


@pytest.fixture(scope="module")
def predict():
    return jax.jit(lambda model, image: model(image, aux=True))


@pytest.mark.slow
def test_a_case_alone_is_predicted_as_in_a_batch(trained, predict):
    together, alone = predict(trained[1], images()), predict(trained[1], images()[1:2])
    assert set(together) == {"logits", "mask_logits", "features", "upa"}
    for name, value in alone.items():
        np.testing.assert_allclose(value, together[name][1:2], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(together["upa"].sum(-1), 1.0, rtol=1e-6)


@pytest.mark.slow
def test_with_the_official_normaliser_a_case_depends_on_its_company(trained, predict):
    model = abstract(**TINY, use_hmsf=False, parity="official")
    shared = {path: value for path, value in leaves(trained[1]).items() if not path.endswith(("upa.total", "upa.weight"))}
    jaxmed.load_weights(model, shared, source="jaxmed")
    company = images()
    for parts, same in ((model, False), (trained[1], True)):
        a, b = (predict(parts, company[jnp.array(cases)])["upa"][0] for cases in ((1, 0, 2), (1, 1, 1)))
        assert (np.abs(a - b).max() < 1e-5) == same


@pytest.mark.slow
def test_outputs_are_those_of_the_released_code():
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    gw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gw)
    man, stored = (json.loads((GOLDEN / "decoder_interaction.json").read_text()), np.load(GOLDEN / "decoder_interaction.npz"))
    model = empty("decoder_interaction", **B4, parity="official")
    report = jaxmed.load_weights(model, gw.make_state_dict(man["entries"], man["seed"], man["gain"]), source="keras")
    assert report.ignored == report.initialised == ()
    (image,) = man["inputs"]
    image = gw.make_input(image["name"], image["shape"], man["seed"], image["dist"])
    image = (image - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    graph, state = nnx.split(model)
    out = jax.jit(lambda state, image: nnx.merge(graph, state)(image))(state, image)
    want = stored["out_segmentation"]
    mask = gw.subsample(np.asarray(jax.nn.sigmoid(out["mask_logits"])), want.size)
    assert np.abs(mask - want).max() <= TOLERANCE * np.abs(want).max()
    want = stored["out_classification"]
    assert np.abs(jax.nn.softmax(out["logits"]) - want).max() <= TOLERANCE * np.abs(want).max()


def test_keras_weights_make_a_round_trip_and_fit_no_running_normaliser():
    options = dict(TINY, parity="official")
    model, target = fill(empty("decoder_interaction", **options)), empty("decoder_interaction", **options)
    published = to_state_dict(model, "keras")
    jaxmed.load_weights(target, published, source="keras")
    assert_same(leaves(target), leaves(model))
    with pytest.raises(UserError, match="parity='official'"):
        jaxmed.load_weights(empty("decoder_interaction", **TINY), published, source="keras")


def test_mistakes_are_errors():
    for options, message in (
        ({"encoder": "resnet18"}, "takes EfficientNets"), ({"parity": "paper"}, "parity='paper'"),
        ({"tim_pool": "max"}, "tim_pool='max'"), ({"upa_norm": "none"}, "upa_norm='none'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            abstract(**options)
    with pytest.raises(UserError, match="multiples of 32"):
        abstract(**TINY)(jnp.zeros((1, 48, 64, 3)))
