import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.config import base_config
from jaxmed.errors import UserError
from jaxmed.nn.frozen_norm import FrozenBatchNorm
from jaxmed.tasks.breast_task import BreastTask
from jaxmed.tasks.multiview import MultiView
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.state import new_state
from jaxmed.train.step import Steps
from jaxmed.tree import flatten, is_under, tree_of
from jaxmed.weights import to_state_dict
from tests.train import tiny_config  # noqa: F401  registers the encoder "tiny"
from tests.weights.networks import assert_same, filled, leaves

SHALLOW, STEM = dict(depths=(1, 1, 1, 1)), dict(depths=(1,))  # STEM: one block of 64 channels
TASK = MultiView((BreastTask("label", ("benign", "malignant"), (0.7, 1.8)), BreastTask("birads", ("1", "3", "5"))))
HEADS = 2 * (2048 * 2 + 2) + 2 * (2048 * 5 + 5)  # 4 D -> n for two sides, D = 512
GATE = 2048 * 512 + 512 + 512 * 4 + 4  # 4 D -> D -> 4
COUNTS = [
    ("multiview_resnet18", {}, 11_176_512 + GATE + HEADS),
    ("multiview_resnet18", {"tasks": "label"}, 11_176_512 + GATE + 2 * (2048 * 2 + 2)),
    ("multiview_resnet18", {"sharing": "projection"}, 2 * 11_176_512 + GATE + HEADS),
    ("multiview_resnet50", {}, 23_508_032 + 16_787_460 + 8 * 2048 * 7 + 14),
    ("multiview_hybrid", {}, 3_638_464 + GATE + HEADS),
    ("multiview_hybrid", {"sharing": "projection"}, 2 * 3_638_464 + GATE + HEADS),
    ("multiview_vssm", {"tasks": "label"}, 6_963_600 + 3072 * 768 + 768 + 768 * 4 + 4 + 2 * (3072 * 2 + 2)),
    ("cnn_vssm", {"num_classes": None}, 3_638_464),
    ("cnn_vssm", {"num_classes": None, "pre_merge": False}, 1_431_168),
    ("medmamba_tiny", SHALLOW, 6_965_138),
]


def abstract(name, **options):
    return nnx.eval_shape(lambda: jaxmed.create_model(name, **options))


@pytest.mark.parametrize(("name", "options", "count"), COUNTS)
def test_parameter_counts_are_exact(name, options, count):
    assert jaxmed.count(abstract(name, **options)) == count


def images(b=2, size=32):
    return jnp.asarray(np.random.default_rng(0).standard_normal((b, 4, size, size, 3)), jnp.float32)


@pytest.mark.parametrize("name", ["multiview_resnet18", "multiview_vssm", "multiview_hybrid"])
def test_outputs_have_the_promised_names_and_shapes(name):
    model = abstract(name, num_birads=3)
    out = jax.eval_shape(lambda m: m(jnp.zeros((3, 4, 32, 32, 3)), aux=True), model)
    heads = {"left_label": (3, 2), "right_label": (3, 2), "left_birads": (3, 3), "right_birads": (3, 3)}
    dim = 768 if name == "multiview_vssm" else 512
    assert {k: v.shape for k, v in out.items()} == heads | {"gate": (3, 4), "features": (3, 4 * dim)}
    assert model.input_names == ("views",) and model.frozen == ()


def test_one_task_has_two_heads():
    model = abstract("multiview_resnet18", tasks="birads")
    out = jax.eval_shape(lambda m: m(jnp.zeros((3, 4, 32, 32, 3))), model)
    assert set(out) == {"left_birads", "right_birads", "gate"} and out["left_birads"].shape == (3, 5)


@pytest.fixture(scope="module", params=["all", "projection"])
def resnet(request):
    return jaxmed.create_model("multiview_resnet18", sharing=request.param, num_birads=3, **STEM)


def test_views_go_through_their_backbone_and_keep_their_place(resnet):
    views, last = images(), len(resnet.backbones) - 1
    encoded = jax.jit(lambda m, x: m.encode(x))(resnet, views)
    alone = jax.jit(lambda m, x: m(x))
    for place, backbone in enumerate((0, last, 0, last)):
        expected = alone(resnet.backbones[backbone], views[:, place])
        np.testing.assert_allclose(encoded[:, place], expected, rtol=1e-4, atol=1e-5)


def test_projections_have_weights_of_their_own_and_sides_share_them(resnet):
    same = jnp.broadcast_to(images()[:, :1], (2, 4, 32, 32, 3))
    out = np.asarray(jax.jit(lambda m, x: m.encode(x))(resnet, same))
    np.testing.assert_allclose(out[:, :2], out[:, 2:], rtol=1e-5, atol=1e-6)
    shared = len(resnet.backbones) == 1
    assert np.allclose(out[:, 0], out[:, 1], rtol=1e-4, atol=1e-5) == shared


def test_all_views_of_a_study_are_one_batch_for_batch_norm():
    model = jaxmed.create_model("multiview_resnet18", dropout=0.0, **STEM)
    views = images(1) * jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1, 1)
    stem = model.backbones[0].conv1(views[0])
    model(views, train=True)
    np.testing.assert_allclose(model.backbones[0].bn1.mean.get_value(), 0.1 * stem.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)


MISSING = np.array([[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]], bool)  # none to three views
TARGETS = {
    "left_label": [0, 1, -1, -1], "right_label": [1, 0, 0, 1], "left_birads": [0, 2, -1, -1], "right_birads": [2, -1, 0, 1],
}  # fmt: skip


def training_step(model):
    """batch -> (loss, gradients of the parameters, outputs) of one training call."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def run(params, rest, batch):
        def loss_of(params):
            copy = nnx.merge(graph, params, rest, copy=True)
            out = copy(batch["views"], train=True, aux=True, rngs=nnx.Rngs(dropout=1), present=batch["present"])
            return TASK.loss(out, batch)[0], out

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    def step(batch):
        (loss, out), grads = run(params, rest, batch)
        return loss, {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(grads)}, out

    return step


def incomplete(**targets):
    views = jnp.where(MISSING[:, :, None, None, None], images(4), -2.0)  # zeros, normalised
    labels = {name: jnp.asarray(target) for name, target in (TARGETS | targets).items()}
    return labels | {"views": views, "present": jnp.asarray(MISSING), "weight": jnp.ones(4)}


SYSTEMS = {
    "resnet": ("multiview_resnet18", STEM),
    "masked": ("multiview_resnet18", STEM | {"mask_missing_views": True, "sharing": "projection"}),
    "hybrid": ("multiview_hybrid", STEM | {"cut": "layer1"}),
}


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    name, options = SYSTEMS[request.param]
    model = jaxmed.create_model(name, num_birads=3, **options)
    return request.param, model, training_step(model)


def test_studies_without_one_two_or_three_views_train_and_predict(system):
    name, model, step = system
    loss, grads, out = step(incomplete())
    assert np.isfinite(loss) and all(np.isfinite(grad).all() and np.any(grad) for grad in grads.values())
    np.testing.assert_allclose(out["gate"].sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(out["gate"]) > 0, MISSING if name == "masked" else True)
    predicted = jax.jit(lambda m, x: m(x, present=MISSING))(model, incomplete()["views"])
    assert all(np.isfinite(value).all() for value in predicted.values())


def test_heads_of_a_side_that_nobody_has_get_exactly_zero_gradients(system):
    none = [-1, -1, -1, -1]
    grads = system[2](incomplete(left_label=none, left_birads=none))[1]
    for path, grad in grads.items():
        assert np.any(grad) == (not path.startswith("heads.left")), path


def tiny(**options):
    return jaxmed.create_model("multiview_resnet18", encoder="tiny", num_birads=3, dropout=0.0, **options)


def statistics(module):
    return {k: np.asarray(v) for k, v in flatten(tree_of(module)).items() if k.endswith((".mean", ".var"))}


def test_missing_views_can_be_kept_out_of_batch_norms_as_if_they_were_not_in_the_batch():
    model, reference = (tiny(sharing="projection", missing_views_in_norm=False) for _ in range(2))
    views = np.where(MISSING[:, :, None, None, None], images(4), np.float32(-2))
    encoded = np.asarray(nnx.jit(lambda m, x, p: m.encode(x, True, present=p))(model, views, MISSING))
    for i, backbone in enumerate(reference.backbones):
        places = [view for view in range(4) if reference.backbone_of[view] == i]
        there = MISSING[:, places]
        alone = nnx.jit(lambda m, x: m(x, True))(backbone, views[:, places][there])
        np.testing.assert_allclose(encoded[:, places][there], alone, rtol=1e-4, atol=1e-5)
        got, wanted = statistics(model.backbones[i]), statistics(backbone)
        assert got.keys() == wanted.keys()
        for path, value in got.items():
            np.testing.assert_allclose(value, wanted[path], rtol=1e-4, atol=1e-6, err_msg=path)


def test_by_default_missing_views_take_part_in_batch_norms_as_zeros_do_in_the_paper():
    model, other = tiny(), tiny(missing_views_in_norm=False)
    views, present = jnp.where(MISSING[:, :, None, None, None], images(4), -2.0), jnp.asarray(MISSING)
    for one in (model, other):
        one.encode(views, True, present=present)
    first = model.backbones[0].norms[0].mean.get_value()
    stem = model.backbones[0].convs[0](views.reshape(16, 32, 32, 3))
    np.testing.assert_allclose(first, 0.1 * stem.mean((0, 1, 2)), rtol=1e-3, atol=1e-5)
    assert not np.allclose(first, other.backbones[0].norms[0].mean.get_value(), atol=1e-3)


def test_a_projection_that_nobody_has_in_a_batch_stays_finite_and_keeps_its_statistics():
    model = tiny(sharing="projection", missing_views_in_norm=False)
    before = statistics(model.backbones[0])
    present = jnp.asarray(np.tile([False, True, False, True], (4, 1)))
    encoded = model.encode(jnp.where(present[:, :, None, None, None], images(4), -2.0), True, present=present)
    assert np.isfinite(encoded).all()
    for path, value in statistics(model.backbones[0]).items():
        np.testing.assert_allclose(value, before[path], rtol=1e-6)


def test_which_views_exist_must_be_said_where_norms_depend_on_it():
    with pytest.raises(UserError, match="missing_views_in_norm=False needs to know which views exist"):
        jax.eval_shape(lambda m: m(jnp.zeros((1, 4, 32, 32, 3))), abstract("multiview_resnet18", missing_views_in_norm=False))


def byte_batch(seed):
    rng = np.random.default_rng(seed)
    labels = {name: jnp.asarray(target, jnp.int32) for name, target in TARGETS.items()}
    views = rng.integers(0, 255, (4, 4, 32, 32, 1), np.uint8) * MISSING[:, :, None, None, None].astype(np.uint8)
    return labels | {"views": views, "present": MISSING, "weight": jnp.ones(4), "case_id": jnp.arange(4)}


def test_a_frozen_cnn_is_the_same_after_training_and_has_no_optimiser_state():
    model, optimizer = tiny(freeze_cnn=True), make_optimizer(base_config().optimizer)
    state, before = new_state(model, optimizer, TASK.meters), flatten(tree_of(model))
    before = {path: np.asarray(value) for path, value in before.items()}
    steps = Steps(model, TASK, optimizer, (0.5,) * 3, (0.25,) * 3, 0)
    for k in range(2):
        state, loss = steps.train(state, byte_batch(k), jnp.float32(0.1))
    assert np.isfinite(loss)
    after = flatten(state["params"]) | flatten(state["frozen"]) | flatten(state["stats"])
    assert after.keys() == before.keys()
    for path, value in after.items():
        assert np.array_equal(value, before[path]) == path.startswith("backbones."), path
    assert any(path.endswith(".mean") for path in after)  # norms are among what stayed
    moments = {path for path, _ in flat_paths(state["opt"])}
    assert not [path for path in moments if "backbones" in path] and [path for path in moments if "heads" in path]


def flat_paths(tree):
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


@pytest.mark.parametrize("sharing", ["all", "projection"])
def test_only_the_resnet_of_the_hybrid_is_frozen(sharing):
    model = abstract("multiview_hybrid", freeze_cnn=True, sharing=sharing)
    assert model.frozen == tuple(f"backbones.{i}.resnet" for i in range(len(model.backbones)))
    frozen = sum(jaxmed.count(backbone.resnet) for backbone in model.backbones)
    assert jaxmed.count(model, trainable=False) == frozen and jaxmed.count(model, trainable=True) > 0
    norms = {path: module for path, module in nnx.iter_modules(model) if isinstance(module, jaxmed.nn.BatchNorm)}
    for path, norm in norms.items():
        assert isinstance(norm, FrozenBatchNorm) == is_under(".".join(map(str, path)), model.frozen), path
    assert any(isinstance(norm, FrozenBatchNorm) for norm in norms.values())


def test_without_a_cnn_there_is_nothing_to_freeze():
    with pytest.raises(UserError, match="freeze_cnn=True: the encoder 'medmamba_tiny' has no CNN to freeze"):
        abstract("multiview_vssm", freeze_cnn=True)


@pytest.mark.parametrize("name", ["multiview_hybrid", "multiview_vssm"])
def test_mixed_precision_keeps_float32_outputs(name):
    model = abstract(name, dtype=jnp.bfloat16)
    out = jax.eval_shape(lambda m: m(jnp.zeros((1, 4, 32, 32, 3)), aux=True), model)
    assert {value.dtype for value in out.values()} == {jnp.dtype("float32")}


def test_imagenet_weights_fill_both_backbones_of_a_projection_model():
    source = filled("resnet18", 7)
    model = filled("multiview_resnet18", 2, seed=1, sharing="projection")
    report = jaxmed.load_weights(model, to_state_dict(source), into="encoder")
    body = {path: leaf for path, leaf in leaves(source).items() if not path.startswith("fc.")}
    for backbone in model.backbones:
        assert_same(leaves(backbone), body)
    assert set(report.ignored) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("source", ["timm", "jaxmed"])
def test_imagenet_weights_fill_the_hybrids_resnet_and_only_later_stages_are_ignored(cut, source):
    model, resnet18 = filled("multiview_hybrid", 2, seed=1, cut=f"layer{cut}"), filled("resnet18", 7)
    weights = leaves(resnet18) if source == "jaxmed" else to_state_dict(resnet18)
    report = jaxmed.load_weights(model, weights, source=source, into="encoder")
    gone = (*(f"layer{k}." for k in range(cut + 1, 5)), "fc.")
    assert_same(leaves(model.backbones[0].resnet), {k: v for k, v in leaves(resnet18).items() if not k.startswith(gone)})
    assert set(report.ignored) == {key for key in weights if key.startswith(gone)} and not report.initialised


def test_the_hybrids_resnet_is_filled_strictly():
    model, weights = filled("multiview_hybrid", 2), to_state_dict(filled("resnet18", 7))
    for change, message in (
        ({"layer2.2.conv1.weight": np.zeros(3)}, r"nothing uses \(1\): layer2.2.conv1.weight"),
        ({"layer5.0.conv1.weight": np.zeros(3)}, r"nothing uses \(1\): layer5.0.conv1.weight"),
        ({"layer2.1.bn2.bias": np.zeros(3)}, r"layer2.1.bn2.bias is \[3\] where the model needs \[128\]"),
    ):
        with pytest.raises(UserError, match=message):
            jaxmed.load_weights(model, weights | change, into="encoder")
    del weights["layer2.1.bn2.bias"]
    with pytest.raises(UserError, match=r"no key fills \(1\): layer2.1.bn2.bias"):
        jaxmed.load_weights(model, weights, into="encoder")


def test_a_whole_resnet_still_needs_its_last_stage():
    weights = {key: value for key, value in to_state_dict(filled("resnet18", 3)).items() if not key.startswith("layer4")}
    with pytest.raises(UserError, match=r"no key fills \(25\): layer4"):
        jaxmed.load_weights(filled("resnet18", 3), weights)


BAD = [
    ("multiview_resnet18", {"tasks": ("birads", "label")}, "in this order"),
    ("multiview_resnet18", {"tasks": ()}, "in this order"),
    ("multiview_resnet18", {"sharing": "view"}, "'all'.*'projection'"),
    ("multiview_resnet18", {"num_birads": 4}, r"num_birads=4.*1, 3, 5"),
    ("multiview_resnet18", {"num_classes": None}, "num_classes=None"),
    ("multiview_resnet18", {"cut": "layer2"}, "'resnet18' has no option 'cut'"),
    ("multiview_vssm", {"pre_merge": False}, "'medmamba_tiny' has no option 'pre_merge'"),
    ("multiview_hybrid", {"cut": "layer4"}, "'layer1', 'layer2', 'layer3'"),
]


@pytest.mark.parametrize(("name", "options", "message"), BAD)
def test_bad_options_say_what_is_possible(name, options, message):
    with pytest.raises(UserError, match=message):
        abstract(name, **options)


def test_other_shapes_and_too_small_images_are_refused():
    with pytest.raises(UserError, match="L_CC, L_MLO, R_CC, R_MLO; got .4, 32, 32, 3."):
        jax.eval_shape(lambda m: m(jnp.zeros((4, 32, 32, 3))), abstract("multiview_resnet18"))
    with pytest.raises(UserError, match="16 x 16 pixels are too few: .* 32 x 32"):
        jax.eval_shape(lambda m: m(jnp.zeros((1, 4, 16, 16, 3))), abstract("multiview_hybrid"))
