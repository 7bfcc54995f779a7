"""Figures show the right data in the agreed colours, and leave matplotlib as it was."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import same_color
from sklearn.metrics import roc_curve

from jaxmed.evaluate.breasts import one_per_study, rows_about
from jaxmed.evaluate.calibration import reliability
from jaxmed.evaluate.curves import gate_curves, gate_names, learning_curves
from jaxmed.evaluate.embedding import match_features, perplexity_for, tsne, tsne_plot
from jaxmed.evaluate.metrics import confusion_matrix
from jaxmed.evaluate.plots import calibration_plot, confusion_plot, gate_by_class
from jaxmed.evaluate.roc import GRID, roc_on_grid, roc_plot, roc_points, roc_with_band
from jaxmed.evaluate.style import BLUE, GREEN, RED, YELLOW, to_png
from jaxmed.evaluate.table import concatenate
from jaxmed.evaluate.view_weights import view_weights_plot

from .synthetic import VIEWS, make_breasts, make_history, make_table, make_view_history


def lines(ax):
    return {(line.get_label(), line.get_linestyle()): line for line in ax.get_lines()}


def test_the_evaluation_needs_neither_jax_nor_pyplot():
    code = ("import sys, jaxmed.evaluate.report, jaxmed.evaluate.summary;"
            "sys.exit(bool({'jax', 'matplotlib.pyplot', 'tensorflow'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_learning_curves_draw_training_solid_and_validation_dashed():
    history = make_history(6)
    loss, accuracy, rate = learning_curves(history, best_epoch=4).axes
    drawn = lines(loss)
    np.testing.assert_allclose(drawn["training", "-"].get_ydata(), [row["train/loss"] for row in history])
    np.testing.assert_allclose(drawn["validation", "--"].get_ydata(), [row["val/loss"] for row in history])
    assert all(4 in np.unique(ax.get_lines()[-1].get_xdata()) for ax in (loss, accuracy, rate))
    assert rate.get_yscale() == "log"


def test_the_iou_is_drawn_where_it_was_logged_and_the_accuracy_only_then():
    logged = {"lr": 1e-3, "train/loss": 0.4, "train/iou_all": 0.1, "val/iou_all": 0.09, "val/iou": 0.05}
    history = [{"epoch": k} | {key: k * value for key, value in logged.items()} for k in range(1, 5)]
    loss, overlap, rate = learning_curves(history).axes
    drawn = lines(overlap)
    assert [ax.get_title(loc="left") for ax in (loss, overlap, rate)] == ["Loss", "IoU", "Learning rate"]
    for label, style, key in (("training", "-", "train/iou_all"), ("validation", "--", "val/iou_all"),
                              ("validation, lesions", "-.", "val/iou")):
        np.testing.assert_allclose(drawn[label, style].get_ydata(), [row[key] for row in history])


def test_a_history_without_validation_or_of_one_epoch_is_drawn():
    history = [{"epoch": 1, "lr": 1e-3, "train/loss": 0.5, "train/accuracy": 0.8}]
    assert to_png(learning_curves(history)).startswith(b"\x89PNG")


def test_several_networks_are_drawn_as_mean_and_range():
    history = [{**row, "repeat": r, "train/loss": row["train/loss"] + r} for r in range(3) for row in make_history(4)]
    ax = learning_curves(history).axes[0]
    np.testing.assert_allclose(lines(ax)["training", "-"].get_ydata(), [r["train/loss"] + 1 for r in make_history(4)])
    assert len(ax.collections) == 2


def test_gate_curves_have_the_colours_of_the_paper():
    history = make_history(5)
    assert gate_names(history) == ["image", "core", "boundary"]
    drawn = [line for line in gate_curves(history).axes[0].get_lines() if len(line.get_xdata()) == 5]
    for name, color in (("image", GREEN), ("core", BLUE), ("boundary", YELLOW)):
        for split, style in (("train", "-"), ("val", "--")):
            values = [row[f"{split}/gate_{name}"] for row in history]
            line = next(one for one in drawn if np.allclose(one.get_ydata(), values))
            assert same_color(line.get_color(), color) and line.get_linestyle() == style


def test_roc_points_equal_scikit_learn():
    table = make_table(50, skill=0.5)
    score = np.round(table.probabilities[:, 1], 1)
    false_positive, sensitivity = roc_points(table.target == 1, score, np.ones((1, 50), int))
    x, y, _ = roc_curve(table.target, score, drop_intermediate=False)
    np.testing.assert_allclose(false_positive[0], x)
    np.testing.assert_allclose(sensitivity[0], y)


def test_the_curve_at_no_false_alarm_is_the_best_sensitivity_without_one():
    curve = roc_on_grid(np.array([0, 1, 0, 1], bool), np.array([0.1, 0.3, 0.5, 0.9]), np.ones((1, 4), int))
    assert curve[0, 0] == 0.5 and curve[0, -1] == 1


def test_the_band_surrounds_the_curve():
    band = roc_with_band(make_table(60, group_size=2, skill=0.8))
    assert band.sensitivity.shape == GRID.shape
    assert (band.low <= band.sensitivity + 1e-9).all() and (band.sensitivity <= band.high + 1e-9).all()
    assert (band.high - band.low).max() > 0.05


@pytest.mark.parametrize("parts", [
    [make_table(30)], [make_table(30, repeat=r, seed=r) for r in range(3)], [make_table(30, ("a", "b", "c"))],
])
def test_every_kind_of_run_has_a_roc_figure(parts):
    labels = [text.get_text() for text in roc_plot(parts, "AUC 0.9").axes[0].get_legend().get_texts()]
    if len(parts[0].classes) == 3:
        assert sum("against the rest" in label for label in labels) == 3
    else:
        assert any("AUC 0.9" in label for label in labels)


def test_the_confusion_matrix_shows_counts_and_row_percentages():
    texts = [text.get_text() for text in confusion_plot(np.array([[9, 1], [5, 15]]), ("a", "b")).axes[0].texts]
    assert texts == ["9", "90.0 %", "1", "10.0 %", "5", "25.0 %", "15", "75.0 %"]


def test_a_class_without_cases_leaves_its_row_at_zero():
    table = make_table(10)
    table = table.take(table.target == 0)
    matrix = confusion_matrix(table.target, table.probabilities)
    assert matrix.shape == (2, 2) and matrix[1].sum() == 0
    assert to_png(confusion_plot(matrix, table.classes)).startswith(b"\x89PNG")


def test_the_calibration_histogram_counts_every_case():
    figure = calibration_plot(make_table(60, group_size=2), "label")
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == 60


def test_corrected_probabilities_are_a_second_calibration_curve():
    table, moved = make_table(60), make_table(60)
    moved.probabilities = np.stack([1 - table.probabilities[:, 1] / 2, table.probabilities[:, 1] / 2], axis=1)
    top = calibration_plot(table, "as it is", corrected=moved, corrected_label="moved").axes[0]
    second, curve = lines(top)["moved", "--"], reliability(moved.target, moved.probabilities)
    np.testing.assert_allclose(second.get_ydata(), curve.observed[curve.count > 0])
    np.testing.assert_allclose(second.get_xdata(), curve.predicted[curve.count > 0])
    assert "moved" not in [text.get_text() for text in calibration_plot(table, "x").axes[0].get_legend().get_texts()]


def test_gate_boxes_show_each_case_once_in_the_colour_of_its_class():
    table = make_table(30)
    ax = gate_by_class(table, ["image", "core", "boundary"]).axes[0]
    benign, malignant = ax.collections
    np.testing.assert_allclose(malignant.get_offsets()[:, 1], table.extras["gate_image"][table.target == 1])
    assert same_color(benign.get_facecolor()[0][:3], BLUE) and same_color(malignant.get_facecolor()[0][:3], RED)


def test_tsne_rings_the_errors_and_repeats_itself():
    table = make_table(24, skill=0.2)
    features = np.random.default_rng(0).normal(size=(24, 5))
    points = tsne(features)
    np.testing.assert_array_equal(points, tsne(features))
    rings = tsne_plot(points, table).axes[0].collections[-1]
    wrong = (table.probabilities[:, 1] > 0.5).astype(int) != table.target
    np.testing.assert_allclose(rings.get_offsets(), points[wrong])


def test_perplexity_fits_the_number_of_cases():
    assert [perplexity_for(n) for n in (10, 31, 400)] == [3, 10, 30]


def test_features_are_matched_by_case_id():
    table = make_table(4)
    features = {"case_id": table.case_id[[3, 1, 0]], "features": np.array([[3.0], [1.0], [0.0]])}
    matched, values = match_features(table, features)
    assert matched.case_id.tolist() == table.case_id[[0, 1, 3]].tolist() and values[:, 0].tolist() == [0, 1, 3]


def test_drawing_leaves_the_settings_of_matplotlib_alone():
    before = dict(matplotlib.rcParams)
    to_png(learning_curves(make_history(3)))
    assert dict(matplotlib.rcParams) == before


def test_tables_of_repeats_give_gates_per_case():
    table = concatenate([make_table(10, repeat=r, seed=r) for r in range(2)]).average_repeats()
    assert len(gate_by_class(table, ["core"]).axes[0].collections[0].get_offsets()) == 5


def test_every_view_has_a_colour_of_its_own():
    history = make_view_history(4)
    assert gate_names(history) == list(VIEWS)
    solid = [line for line in gate_curves(history, kind="view").axes[0].get_lines()
             if len(line.get_xdata()) == 4 and line.get_linestyle() == "-"]
    assert len({line.get_color() for line in solid}) == 4
    labels = [text.get_text() for text in gate_curves(history, kind="view").axes[0].get_legend().get_texts()]
    assert "view: R_MLO" in labels


def test_view_weights_are_one_dot_per_study_apart_for_missing_views():
    studies = one_per_study(make_breasts(20))
    dots = [c.get_offsets() for c in view_weights_plot(studies, list(VIEWS)).axes[0].collections]
    weights = studies.extras["gate_R_CC"]
    there = np.array(["R_CC" in text for text in studies.extras["views"].tolist()])
    np.testing.assert_allclose(dots[4][:, 1], weights[there])
    np.testing.assert_allclose(dots[5][:, 1], weights[~there])
    assert (dots[5][:, 0] > dots[4][:, 0].max()).all() and len(dots[1]) == 0


def test_gate_boxes_of_a_view_show_its_own_breasts():
    table = make_breasts(20).known()
    ax = gate_by_class(table, list(VIEWS), "view").axes[1]
    rows = table.take(rows_about(table, "L_MLO"))
    np.testing.assert_allclose(ax.collections[1].get_offsets()[:, 1], rows.extras["gate_L_MLO"][rows.target == 1])
    assert ax.get_title(loc="left") == "view: L_MLO"
