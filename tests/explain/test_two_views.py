"""Two-view mammograms: pruned windows, attention between views, saliency and regions, tall figures."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

import jaxmed
from configs import x_pruning
from jaxmed.errors import UserError
from jaxmed.explain.cross_attention import cross_map, look_across, parse_window, query_box
from jaxmed.explain.intercept import catching
from jaxmed.explain.layers import looks, maps_of
from jaxmed.explain.overlay import SALIENCY, WINDOWS, Box, Explained, HeatMap, case_figure
from jaxmed.explain.page import write_page
from jaxmed.explain.pruned import window_maps
from jaxmed.explain.saliency import region_boxes, saliency_maps
from jaxmed.models.x_pruning import XPruning
from jaxmed.train import explain, setup
from jaxmed.train.explain_beside import own_boxes, own_facts, own_maps
from jaxmed.train.explain_cases import TwoViewCases
from jaxmed.train.explain_step import Explainer
from tests.train import tiny_config  # noqa: F401  registers the encoder "tiny"

SWIN = dict(depths=(1, 1, 2, 1), dims=(8, 16, 32, 64), num_heads=(1, 2, 4, 8), window_size=2, frozen_stages=0, drop_path=0.0)
CROSS = SWIN | dict(prune_ratio=0.5, ctb_dim=64, ctb_heads=8, fusion_dim=16)
SIZE = (192, 64)  # the last map has 6 x 2 tokens: 3 windows


class Given(XPruning):
    """The views' maps before the cross-attention are given: nothing of the streams runs."""

    def entered(self, cc, mlo):
        return cc, mlo


def exchanged(b=2):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((b, 6, 2, 64)), jnp.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def crossing():
    return Given(**CROSS, rngs=nnx.Rngs(3))


def across(model, cc, mlo, window=None):
    wanted = {"cc": jnp.asarray(cc, jnp.float32), "mlo": jnp.asarray(mlo, jnp.float32)}
    return look_across(model, *exchanged(), wanted, window)


def test_the_hottest_window_of_each_view_and_case_looks_at_the_other_view(crossing):
    hot = np.zeros((2, 6, 2))
    hot[0, 4, 1], hot[1, 0, 0] = 1, 1
    found = across(crossing, hot, hot[::-1])
    np.testing.assert_array_equal(found["cc"][0], [[2, 0], [0, 0]])
    np.testing.assert_array_equal(found["mlo"][0], [[0, 0], [2, 0]])
    for case, tokens in enumerate(([8, 9, 10, 11], [0, 1, 2, 3])):
        expected = crossing.cross_attention(*exchanged(), "cc", tokens)[case]
        np.testing.assert_allclose(found["cc"][1][case], expected.mean(0), rtol=1e-5, atol=1e-7)
        assert found["cc"][1][case].sum() == pytest.approx(1, abs=1e-5)


def test_without_any_heat_the_window_of_the_highest_score_asks(crossing):
    found = across(crossing, np.zeros((2, 6, 2)), np.zeros((2, 6, 2)))
    for view, x in zip(("cc", "mlo"), exchanged(), strict=True):
        tokens = np.linalg.norm(x, axis=-1).reshape(2, 3, 4)  # windows of 2 x 2 tokens in a map two tokens wide
        np.testing.assert_array_equal(found[view][0][:, 0], tokens.mean(2).argmax(1))
    one = look_across(crossing, *exchanged(), {"cc": jnp.zeros((2, 6, 2))})  # --layer may be a layer of one view alone
    np.testing.assert_array_equal(one["mlo"][0], found["mlo"][0])


def test_a_window_can_be_named_if_it_is_there(crossing):
    empty = np.zeros((2, 6, 2))
    found = across(crossing, empty, empty, (2, 0))
    assert np.array_equal(found["cc"][0], [[2, 0], [2, 0]]) and found["mlo"][1].shape == (2, 6, 2)
    for window, said in (((3, 0), "--window=3,0: rows go from 0 to 2, columns from 0 to 0"), ((0, 1), "--window=0,1")):
        with pytest.raises(UserError, match=said):
            across(crossing, empty, empty, window)
    assert parse_window("11, 3") == (11, 3) and parse_window(None) is None
    for text in ("3", "a,b", "1,2,3", "-1,0"):
        with pytest.raises(UserError, match="is not row,column"):
            parse_window(text)


def test_keys_that_the_block_does_not_get_have_no_attention():
    model = Given(**CROSS, ctb_pruned=True, rngs=nnx.Rngs(3))
    weights = model.cross_attention(*exchanged(), "cc", [0])
    assert ((np.asarray(weights) > 0).sum((1, 2, 3)) == 4).all()  # one window of three is kept
    np.testing.assert_allclose(weights.sum((2, 3)), 1, rtol=1e-5)


def test_attention_is_given_in_units_of_equal_attention():
    attention = np.full((6, 2), 0.05)
    attention[3, 1] = 0.45
    heat = cross_map("mlo", np.array([2, 0]), attention)
    assert (heat.name, heat.picture, heat.heat[3, 1]) == ("window 2,0 of mlo on cc", "cc", 1)
    assert heat.peak == pytest.approx(0.45 * 12)


def test_the_asking_window_lies_over_its_pixels_and_ends_with_the_picture():
    box = query_box(np.array([2, 1]), 7, (84, 28), (2688, 896))
    assert (box.row, box.column, box.height, box.width) == (2 * 7 * 32, 7 * 32, 7 * 32, 7 * 32)
    edge = query_box(np.array([1, 0]), 4, (6, 3), (192, 96))
    assert (edge.row, edge.height, edge.width) == (128, 64, 96)


def test_windows_are_shown_as_the_share_of_blocks_that_computed_them(crossing):
    shapes = [(48, 16), (24, 8), (12, 4), (6, 2)]
    counts = [np.zeros(shape) for shape in shapes]
    counts[2][:4], counts[2][4:6] = 2, 1
    maps = window_maps(crossing, {"cc": counts, "mlo": counts})
    assert [heat.name for heat in maps] == [f"{v} stage {k}" for v in ("cc", "mlo") for k in (1, 2, 3, 4)]
    third = maps[6]
    np.testing.assert_array_equal(third.heat, counts[2] / 2)
    assert (third.layer, third.kind, third.peak) == ("mlo.layers.2", WINDOWS, 2)
    assert third.says == "r 0.5: 6 of 12 windows; 2 blocks, tokens in every one 33%, in none 50%"
    assert maps[0].says == "r 0.5: 96 of 192 windows"
    mixed = nnx.eval_shape(lambda: jaxmed.create_model("swin_pruned_tiny", **SWIN, prune_ratio=[0, 0, [0.1, 0.5], 0]))
    (found,) = [heat for heat in window_maps(mixed, {"image": counts}) if heat.name == "image stage 3"]
    assert found.says.startswith("r 0.1-0.5: 6-10 of 12 windows") and found.layer == "layers.2"


def test_saliency_has_a_map_per_view_and_class_and_regions_their_weights():
    model = nnx.eval_shape(lambda: jaxmed.create_model("dv_gmic", crop_size=64, num_crops=2))
    saliency = np.stack([np.full((3, 1), 0.5), np.array([[0.1], [0.4], [0.2]])], -1)
    maps = saliency_maps({"cc": saliency, "mlo": 0 * saliency}, ("benign", "malignant"))
    assert [(heat.picture, heat.explains) for heat in maps] == [(v, c) for v in ("cc", "mlo") for c in ("benign", "malignant")]
    np.testing.assert_allclose(maps[1].heat[:, 0], [0.25, 1, 0.5])
    assert (maps[1].peak, maps[1].kind, maps[3].empty) == (0.4, SALIENCY, True)
    boxes = region_boxes(model, np.array([[0, 0], [128, 0]]), np.array([0.25, 0.75]))
    assert boxes == (Box(0, 0, 64, 64, "0.25"), Box(128, 0, 64, 64, "0.75"))


def test_one_picture_and_two_are_shown_alike():
    model = nnx.eval_shape(lambda: jaxmed.create_model("gmic", crop_size=64, num_crops=1))
    out = {"saliency": np.ones((3, 1, 2)), "rois": np.array([[64.0, 0.0]]), "attention": np.ones(1)}
    one, picture = {"outputs": out, "queries": []}, {"image": np.zeros(SIZE, np.uint8)}
    two = {"outputs": {name: np.stack([x, x]) for name, x in out.items()}, "queries": []}
    pair = dict.fromkeys(("cc", "mlo"), picture["image"])
    assert [heat.picture for heat in own_maps(model, one, picture, ("a", "b"))] == ["image"] * 2
    assert [heat.picture for heat in own_maps(model, two, pair, ("a", "b"))] == ["cc", "cc", "mlo", "mlo"]
    boxes = own_boxes(model, two, pair)
    assert own_facts(two, pair, boxes) == {"boxes_cc": "64 0 64 64 1.00", "boxes_mlo": "64 0 64 64 1.00"}


def test_gmic_is_looked_at_in_its_global_networks_and_not_in_its_crops():
    model = nnx.eval_shape(lambda: jaxmed.create_model("dv_gmic", crop_size=64, num_crops=2))
    found = []

    def call(model, view):
        with catching(model) as seen:
            model(view, view)
        found.extend(seen)

    jax.eval_shape(call, model, jnp.zeros((2, 384, 128, 1)))
    looked = {look.encoder: look.candidates[-1].grid for look in looks(model, maps_of(found, (2, 384, 128, 1)))}
    assert looked == {"cc.global_net": (6, 2), "mlo.global_net": (6, 2)}


def explained():
    picture, heat = np.full(SIZE, 90, np.uint8), np.eye(6, 2)
    maps = [HeatMap(view, view, heat, 1.0, "norm", explains="malignant") for view in ("cc", "mlo")]
    maps += [HeatMap(f"{v} stage {k}", v, heat, 1.0, "layers", WINDOWS, says="r 0.3") for v in ("cc", "mlo") for k in range(4)]
    boxes = {"cc": (Box(0, 0, 64, 32, "query"),)}
    return Explained("s:left", {"cc": picture, "mlo": picture}, tuple(maps), ("truth benign",), "asked for", boxes=boxes)


def test_tall_pictures_stand_eight_to_a_row_and_windows_in_a_row_of_their_own():
    figure = case_figure(explained())
    axes = np.array(figure.axes[:16]).reshape(2, 8)
    drawn = [[len(ax.images) for ax in row] for row in axes]
    assert drawn == [[1, 1, 2, 2, 0, 0, 0, 0], [2] * 8]
    assert [len(ax.patches) for ax in axes[0, :2]] == [1, 0]
    width, height = figure.get_size_inches()
    assert 1.1 < width / height < 2
    flat = explained().pictures["cc"][:64]
    square = Explained("a", {"image": flat}, (HeatMap("image", "image", np.eye(2), 1.0, "x"),), (), "asked for")
    assert len(case_figure(square).axes) == 3


def test_boxes_and_notes_stand_in_the_table(tmp_path):
    write_page(tmp_path, [explained()], {"title": "t", "subtitle": "", "notes": []}, log=lambda text: None)
    with (tmp_path / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["note"] for row in rows} == {"", "r 0.3"} and rows[2]["kind"] == "pruned windows"


def run_of(tmp_path, name, **options):
    config = x_pruning.get_config()
    config.model.name, config.model.options, config.batch_size = name, ConfigDict(options), 4
    config.data.num_cases, config.data.phantom_size, config.data.size = 4, 64, SIZE
    return setup.prepare(config, tmp_path, setup.prepare_data(config, tmp_path, divide=False), quiet=True)


def test_a_network_of_two_views_shows_all_that_it_has(tmp_path):
    run = run_of(tmp_path, "x_pruning", **CROSS | {"depths": (1, 1, 1, 1)})
    kind = TwoViewCases(run)
    explainer = Explainer(run, kind, [kind.default_class])
    chosen = {run.source.cases[1].case_id: "asked for"}
    (case,) = explain._explained(run, kind, explainer, chosen)
    assert [look.encoder for look, _ in explainer.reached] == ["cc", "mlo"]
    names = [heat.name for heat in case.maps]
    assert names[:2] == ["cc", "mlo"] and names[4:] == [f"{v} stage {k}" for v in ("cc", "mlo") for k in (1, 2, 3, 4)]
    assert names[2].endswith("of cc on mlo") and names[3].endswith("of mlo on cc")
    assert {heat.explains for heat in case.maps[:2]} == {"malignant"}
    assert set(case.boxes) == set(case.pictures) == {"cc", "mlo"} and case.pictures["cc"].dtype == np.uint8
    row, column = map(int, names[2].split()[1].split(","))
    assert (case.boxes["cc"][0].row, case.boxes["cc"][0].column) == (64 * row, 64 * column)
    with pytest.raises(UserError, match="--window: dv_resnet18 has no cross-attention"):
        Explainer(run_of(tmp_path, "dv_resnet18", encoder="tiny"), kind, [1], window=(0, 0))


def test_one_network_for_both_views_has_a_map_of_each(tmp_path):
    run = run_of(tmp_path, "tiny")
    kind = TwoViewCases(run)
    explainer = Explainer(run, kind, [kind.default_class])
    batch = next(run.eval_batches(np.arange(4)))
    heat, swapped = (explainer(b)["heat"] for b in (batch, batch | {"cc": batch["mlo"], "mlo": batch["cc"]}))
    ((look, layer),) = explainer.reached
    assert layer.maps == 2 and [kind.place(0, 1, look.encoder, m) for m in (0, 1)] == [("cc", "cc", 0), ("mlo", "mlo", 0)]
    maps, others = heat[layer.name][:, 0], swapped[layer.name][:, 0]
    np.testing.assert_allclose(others, maps[:, ::-1], rtol=1e-4, atol=1e-6 * float(maps.max()))
    assert np.abs(maps[:, 0] - maps[:, 1]).max() > 0.01 * maps.max() > 0
