"""Mixture-of-experts layers in the report: their numbers are learned from the keys of metrics.jsonl."""

import math

import numpy as np
import pytest
from matplotlib.colors import same_color

from jaxmed.evaluate.routers import entropy_curves, load_curves, load_labels, loads, router_parts
from jaxmed.evaluate.style import BLUE, RED

from .synthetic import make_history, make_router_history, make_table
from .test_report import build


def test_parts_layers_and_experts_are_those_of_the_keys():
    history = make_router_history(2, (("projector", 12, 4), ("query", 1, 11)))
    assert router_parts(history) == {"projector": (12, 4), "query": (1, 11)}
    assert router_parts(make_history(2)) == {}


def test_every_layer_shows_the_load_of_its_experts_and_the_equal_share():
    history = make_router_history(5, (("query", 3, 4),))
    figure = load_curves(history, "query", 3, 4, best_epoch=2)
    for layer, ax in enumerate(figure.axes):
        equal, *drawn, kept = ax.get_lines()
        assert set(equal.get_ydata()) == {0.25} and set(kept.get_xdata()) == {2} and ax.get_ylim()[0] == 0
        for expert, line in enumerate(drawn):
            np.testing.assert_allclose(line.get_ydata(), [row[f"train/router_load_query{layer}_{expert}"] for row in history])
        assert same_color(drawn[0].get_color(), BLUE) and same_color(drawn[1].get_color(), RED)
    assert [text.get_text() for text in figure.legends[0].get_texts()][-2:] == ["equal share, 1/4", "epoch kept (2)"]


def test_experts_of_several_networks_are_ranked_before_they_are_averaged():
    history = [{"epoch": 1, "fold": f, **{f"train/router_load_a0_{k}": x for k, x in enumerate(shares)}}
               for f, shares in enumerate([(0.7, 0.2, 0.1), (0.1, 0.3, 0.6)])]
    np.testing.assert_allclose(loads(history, "a", 0, 3)[1][:, 0], [0.65, 0.25, 0.1])
    assert load_labels(history, 3) == ["most used expert", "rank 2", "least used expert"]
    assert load_labels(history[:1], 2) == ["expert 0", "expert 1"]


def test_a_single_expert_gets_everything():
    history = [row | {"fold": f} for f in range(2) for row in make_router_history(2, (("a", 1, 1),))]
    line = load_curves(history, "a", 1, 1).axes[0].get_lines()[1]
    assert set(line.get_ydata()) == {1.0} and load_labels(history, 1) == ["expert 0"]
    assert entropy_curves(history, {"a": (1, 1)}).axes[0].get_ylim()[1] > 0


def test_more_layers_than_fit_side_by_side_and_more_experts_than_colours():
    figure = load_curves(make_router_history(2, (("a", 5, 9),)), "a", 5, 9)
    assert [ax.get_visible() for ax in figure.axes] == [True] * 5 + [False] * 3
    assert len({line.get_color() for line in figure.axes[0].get_lines()[1:]}) == 9


def test_entropy_is_drawn_beside_the_logarithm_of_the_experts():
    history = make_router_history(4)
    axes = entropy_curves(history, router_parts(history)).axes
    for ax, part, layers in zip(axes, ("projector", "query"), (2, 3), strict=True):
        *lines, limit = ax.get_lines()
        assert len(lines) == layers and set(limit.get_ydata()) == {math.log(4)}
        np.testing.assert_allclose(lines[1].get_ydata(), [row[f"train/router_entropy_{part}1"] for row in history])


@pytest.mark.parametrize("folds", [1, 2])
def test_the_report_has_a_section_on_them(tmp_path, folds):
    tables = [make_table(30, fold=f, seed=f, gates=False) for f in range(folds)]
    history = [row | {"fold": f} for f in range(folds) for row in make_router_history(3, seed=f)]
    page = build(tmp_path, tables, history=history, features=False)
    assert {"router_load_projector", "router_load_query", "router_entropy"} <= page.ids
    assert "Experts of the mixture layers" in page.text and "the drop rate is 0" in page.text
    assert ("in the order of their load" in page.text) == (folds > 1)


def test_a_network_without_mixtures_has_no_such_section(tmp_path):
    page = build(tmp_path, [make_table(30)], history=make_history(3), features=False)
    assert "mixture layers" not in page.text and not [name for name in page.ids if name and name.startswith("router")]
