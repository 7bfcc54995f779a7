import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.config import base_config
from jaxmed.errors import UserError
from jaxmed.models.gmic import GMIC
from jaxmed.tasks.gmic import task_class
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.state import new_state
from jaxmed.train.step import Steps
from jaxmed.tree import flatten, tree_of
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, empty, filled, leaves

SMALL = dict(num_crops=3, crop_size=32, top_t=0.2)
PARTS = {  # of the published structure
    "global_net": 2_799_536, "saliency": 512, "local_net": 11_176_512, "attention": 131_200, "local_head": 1_024,
    "fusion_head": 1_538,
}  # fmt: skip
TOTAL = 14_110_322


def test_parameter_counts_are_exact():
    model = empty("gmic", 2)
    assert {part: jaxmed.count(getattr(model, part)) for part in PARTS} == PARTS
    assert jaxmed.count(model) == sum(PARTS.values()) == TOTAL
    assert jaxmed.count(empty("dv_gmic", 2)) == 2 * (TOTAL - 1_538) + 2 * 1536 + 2


@pytest.mark.parametrize(("size", "last"), [((2944, 1920), (46, 30)), ((2688, 896), (42, 14)), ((1024, 768), (16, 12))])
def test_maps_have_the_sizes_of_the_published_network(size, last):
    image = jnp.zeros((1, *size, 1))
    maps = jax.eval_shape(lambda m: m.global_net.features(image), empty("gmic", 2))
    first = tuple((n // 2 - 1) // 2 for n in size)
    assert [m.shape[-1] for m in maps] == [16, 32, 64, 128, 256]
    assert maps[0].shape[1:3] == first and maps[-1].shape[1:3] == last
    if size == (2944, 1920):
        assert [m.shape[1:3] for m in maps] == [(735, 479), (368, 240), (184, 120), (92, 60), (46, 30)]


@pytest.mark.parametrize(("name", "views"), [("gmic", ()), ("dv_gmic", (2,))])
def test_outputs_have_the_promised_names_and_shapes(name, views):
    images = [jnp.zeros((2, 192, 128, 1))] * (len(views) + 1)
    for dtype in (jnp.float32, jnp.bfloat16):
        model = empty(name, 2, dtype=dtype, **SMALL)
        out = jax.eval_shape(lambda m: m(*images, train=True, aux=True), model)
        shapes = {
            "logits": (2, 2), "local_logits": (2, *views, 2), "global": (2, *views, 2), "saliency": (2, *views, 3, 2, 2),
            "rois": (2, *views, 3, 2), "attention": (2, *views, 3), "features": (2, 768 * (len(views) + 1)),
        }  # fmt: skip
        assert {key: value.shape for key, value in out.items()} == shapes
        assert {value.dtype for key, value in out.items() if key != "rois"} == {jnp.dtype("float32")}
    assert "features" not in jax.eval_shape(lambda m: m(*images), model)


@pytest.fixture(scope="module")
def seen():
    """(network, pictures, its outputs, those of the pictures in reverse order)"""
    model = jaxmed.create_model("gmic", **SMALL)
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 256, 192, 1)), jnp.float32)
    graph, state = nnx.split(model)
    run = jax.jit(lambda state, images: nnx.merge(graph, state)(images, aux=True))
    return model, images, *(jax.device_get(run(state, x)) for x in (images, images[::-1]))


def test_images_do_not_touch_each_other(seen):
    _, _, out, swapped = seen
    for name, value in out.items():
        np.testing.assert_allclose(value, swapped[name][::-1], rtol=1e-5, atol=1e-6, err_msg=name)
    assert not np.allclose(out["features"][0], out["features"][1])


def test_the_global_answer_is_the_mean_of_the_largest_saliencies(seen):
    out = seen[2]
    cells = out["saliency"].reshape(2, 12, 2)
    np.testing.assert_allclose(out["global"], np.sort(cells, 1)[:, -2:].mean(1), rtol=1e-6)  # round(0.2 * 12) = 2


def test_the_fused_answer_joins_the_strongest_global_features_and_the_attended_crops(seen):
    model, images, out, _ = seen
    crops = [[image[r : r + 32, c : c + 32] for r, c in rois] for image, rois in zip(images, out["rois"], strict=True)]
    crops = jnp.asarray(crops)
    assert crops.shape == (2, 3, 32, 32, 1)  # all inside
    graph, state = nnx.split(model)
    each = jax.jit(lambda state, crops: nnx.merge(graph, state).local_features(crops))(state, crops)
    local = np.einsum("bk,bkd->bd", out["attention"], each)
    np.testing.assert_allclose(out["features"][:, 256:], local, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["local_logits"], local @ model.local_head.kernel.get_value(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["logits"], model.fusion_head(jnp.asarray(out["features"])), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["attention"].sum(1), 1.0, rtol=1e-6)


def test_crops_lie_on_the_strongest_cells(seen):
    out = seen[2]
    assert out["saliency"].shape[1:3] == (4, 3)
    maps = out["saliency"] - out["saliency"].min((1, 2), keepdims=True)
    maps = (maps / maps.max((1, 2), keepdims=True)).sum(-1)
    for b in range(2):
        best = np.argsort(-maps[b].ravel(), kind="stable")[:3]
        np.testing.assert_array_equal(out["rois"][b], np.stack(np.divmod(best, 3), 1) * 64)  # a crop covers half a cell


def test_two_streams_keep_their_views_apart(monkeypatch):
    def look(self, image, train=False, rngs=None):
        return {"global": image.mean((1, 2)), "features": jnp.repeat(image.mean((1, 2)), 768, -1)}

    monkeypatch.setattr(GMIC, "look", look)
    model = jaxmed.create_model("dv_gmic", **SMALL)
    out = model(jnp.full((2, 8, 8, 1), 1.0), jnp.full((2, 8, 8, 1), 2.0), aux=True)
    np.testing.assert_array_equal(out["global"][..., 0], [[1, 2], [1, 2]])
    np.testing.assert_array_equal(out["features"], np.repeat([[1.0, 2.0], [1.0, 2.0]], 768, 1))
    np.testing.assert_allclose(out["logits"], model.fusion_head(out["features"]), rtol=1e-6)
    with pytest.raises(UserError, match="one shape"):
        model(jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 8, 9, 1)))


@pytest.mark.slow  # compiles the gradient of both encoders
def test_a_step_learns_from_bytes_and_leaves_the_unknown_finding_alone():
    model, optimizer = jaxmed.create_model("gmic", **SMALL), make_optimizer(base_config().optimizer)
    task = task_class(model)(("benign", "malignant"))
    steps = Steps(model, task, optimizer, (0.5,) * 3, (0.5,) * 3, 0)
    before, state = leaves(model), new_state(model, optimizer, task.meters)
    rng = np.random.default_rng(1)
    batch = {
        "image": rng.integers(0, 256, (2, 128, 64, 1), np.uint8), "label": np.array([1, 0], np.int32),
        "case_id": np.arange(2), "weight": np.ones(2, np.float32),
    }  # fmt: skip
    state, _ = steps.train(state, jax.tree.map(jnp.asarray, batch), jnp.float32(1e-3))
    after = flatten(jax.device_get(state["params"]))
    still = [path for path in after if np.array_equal(before[path], after[path])]
    assert not still
    for path in ("saliency.kernel", "local_head.kernel", "fusion_head.kernel", "fusion_head.bias"):
        np.testing.assert_array_equal(before[path][..., 0], after[path][..., 0])


def test_published_files_load_with_what_no_layer_uses():
    source, target = filled("gmic", 2), empty("gmic", 2)
    extra = {"shared_rep_filter.weight": np.zeros((2, 512)), "ds_net.final_bn.num_batches_tracked": np.array(3)}
    published = to_state_dict(source, "official")
    report = jaxmed.load_weights(target, published | extra, source="official")
    assert set(report.ignored) == extra.keys()
    assert_same(leaves(target), leaves(source))
    with pytest.raises(UserError, match="another.weight"):
        jaxmed.load_weights(target, published | {"another.weight": np.zeros(2)}, source="official")


def test_weights_fill_both_streams_and_the_local_encoders():
    source, resnet, pair = filled("gmic", 2), filled("resnet18", 5, seed=1), empty("dv_gmic", 2)
    report = jaxmed.load_weights(pair, to_state_dict(source, "official"), source="official", into="encoder")
    assert set(report.ignored) == {"fusion_dnn.weight", "fusion_dnn.bias"}
    jaxmed.load_weights(pair, to_state_dict(resnet), into="local")
    ours, wanted = flatten(tree_of(pair)), leaves(source)
    for view in ("cc", "mlo"):
        np.testing.assert_array_equal(ours[f"{view}.global_net.first_conv.kernel"], wanted["global_net.first_conv.kernel"])
        np.testing.assert_array_equal(ours[f"{view}.local_net.conv1.kernel"], leaves(resnet)["conv1.kernel"])


BAD = [({"num_classes": None}, "num_classes=None"), ({"num_crops": 0}, "num_crops=0"), ({"top_t": 0.0}, "top_t=0.0")]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        jaxmed.create_model("gmic", **options)
