"""`--mode=explain` on runs that train in seconds."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.explain.grad_cam import grad_cam
from jaxmed.explain.layers import layers, looks
from jaxmed.tasks.inputs import normalise
from jaxmed.train import modes, setup
from jaxmed.train.explain import explain
from jaxmed.train.explain_cases import BreastCases
from jaxmed.train.explain_step import Explainer
from jaxmed.train.state import evaluated, merge_model
from tests.train import tiny_config, tiny_views_config


def config():
    config = tiny_config.get_config("experts")
    config.epochs = 1
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    modes.train(config(), workdir)
    return workdir


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_most_wrong_and_the_most_certain_test_cases_get_a_figure_each(trained):
    before = {path.name for path in trained.iterdir()}
    page = explain(config(), trained, count=3)
    table = rows(page.parent / "cases.csv")
    assert page == trained / "explain/index.html" and {path.name for path in trained.iterdir()} == before | {"explain"}
    stored = {row["case_id"]: row for row in rows(trained / "predictions.csv") if row["split"] == "test"}
    assert len({row["case_id"] for row in table}) == 3 and len(table) == 9
    worst = min(stored.values(), key=lambda row: float(row[f"prob_{row['target']}"]))
    assert table[0]["case_id"] == worst["case_id"]
    for row in table:
        found = stored[row["case_id"]]
        assert row["target"] == found["target"] and row["explains"] == row["predicted"] and row["split"] == "test"
        assert float(row["probability"]) == pytest.approx(float(found[f"prob_{row['predicted']}"]), abs=1e-5)
        assert float(row["gate"]) == pytest.approx(float(found[f"gate_{row['map']}"]), abs=1e-4)
        assert (page.parent / row["figure"]).exists() and row["cells"] == "2x2"
        assert sum(map(float, row[f"stages_{row['map']}"].split())) == pytest.approx(1.0, abs=2e-3)
        if row["empty"] == "0":
            assert 0 <= float(row["heat_in_mask"]) <= 1 and 0 < float(row["mask_area"]) < 1


def test_cases_layer_and_class_can_be_chosen(trained, tmp_path):
    split = rows(trained / "splits.csv")
    name = next(row["case_id"] for row in split if row["split"] == "train")
    page = explain(config(), trained, cases=name, layer="features[1]", target="benign", output=str(tmp_path / "out"))
    table = rows(page.parent / "cases.csv")
    assert [row["layer"] for row in table] == [f"encoders.{k}.features[1]" for k in range(3)]
    shown = {(row["case_id"], row["split"], row["explains"], row["why"]) for row in table}
    assert shown == {(name, "train", "benign", "asked for")}
    assert {row["cells"] for row in table} == {"8x8"} and name in page.read_text()


@pytest.mark.parametrize(("asked", "message"), [
    (dict(cases="phantom 00001,phantom 1"), r"'phantom 1' \(close: phantom 000"),
    (dict(target="malign"), "'malign' is no class of this network; it has benign, malignant"),
    (dict(layer="layer9"), "--layer=layer9"),
    (dict(count=0), "--count=0"),
])
def test_what_does_not_exist_is_named(trained, asked, message):
    with pytest.raises(UserError, match=message):
        explain(config(), trained, **asked)


def test_a_view_is_explained_by_the_malignant_logit_of_its_own_breast(tmp_path):
    given = tiny_views_config.get_config()
    given.data.num_cases, given.model.options.sharing = 24, "projection"
    run = setup.prepare(given, tmp_path, setup.prepare_data(given, tmp_path, divide=False))
    kind = BreastCases(run)
    explainer = Explainer(run, kind, [kind.default_class] * 2)
    batch = next(run.eval_batches(np.arange(8)))
    host = explainer(batch)
    model = merge_model(run.steps.graph, run.steps.template, evaluated(run.state))
    views = normalise(jnp.asarray(batch["views"]), run.steps.mean, run.steps.std)
    found = looks(model, layers(model, views))
    places = {}
    for number, look in enumerate(explainer.looks):
        name = look.candidates[-1].name
        assert name == found[number].candidates[-1].name and host["heat"][name].shape[:3] == (8, 2, 2)
        for m in range(2):
            view, _, answer = kind.place(number, 2, look.encoder, m)
            places[view] = (name, m, answer)
    assert {view: place[1:] for view, place in places.items()} == {
        "L_CC": (0, 0), "R_CC": (1, 1), "L_MLO": (0, 0), "R_MLO": (1, 1),
    }  # fmt: skip
    for side, view in (("left", "L_CC"), ("right", "R_MLO")):
        name, m, answer = places[view]
        layer = next(item for look in found for item in look.candidates if item.name == name)
        _, maps = grad_cam(model, [views], [layer], lambda out, side=side: out[f"{side}_label"][None, :, 1])
        expected = maps[name][0].reshape(8, 2, *layer.grid)[:, m]
        np.testing.assert_allclose(host["heat"][name][:, answer, m], expected, rtol=1e-4, atol=1e-6 * float(expected.max()))
        assert expected.max() > 0
