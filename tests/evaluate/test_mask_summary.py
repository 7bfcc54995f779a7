"""The mask metrics of metrics.json and of the table in the terminal."""

import json

import pytest

from jaxmed.evaluate.masks import LABELS, mask_estimates
from jaxmed.evaluate.metrics import METRICS
from jaxmed.evaluate.summary import format_table, write_metrics

from .synthetic import make_lesions, make_table, write_workdir


def test_metrics_json_holds_every_mask_metric_and_how_many_images_it_is_about(tmp_path):
    table, _ = make_lesions(45)
    metrics = write_metrics(write_workdir(tmp_path, [table], features=False))["test"]
    assert json.loads((tmp_path / "metrics.json").read_text())["test"] == metrics
    expected = mask_estimates(table)
    for name in LABELS:
        entry = metrics[f"mask/{name}"]
        assert (entry["value"], entry["low"]) == pytest.approx((expected[name].value, expected[name].low))
    counts = {kind: metrics[f"mask/{kind}/images"]["value"] for kind in ("lesions", "all", "pooled", "normal")}
    assert counts == {"lesions": 30, "all": 45, "pooled": 45, "normal": 15}
    assert metrics["auc"]["value"] > 0.5


def test_masks_of_unlabelled_classes_count_and_images_without_a_mask_do_not(tmp_path):
    table, _ = make_lesions(45)
    table.target[7], table.extras["iou"][9] = -1, float("nan")
    metrics = write_metrics(write_workdir(tmp_path, [table], features=False))["test"]
    assert (metrics["cases"]["value"], metrics["mask/all/images"]["value"]) == (44, 44)


def test_the_table_prints_the_masks_below_the_classes(tmp_path):
    table, _ = make_lesions(45)
    metrics = write_metrics(write_workdir(tmp_path, [table], features=False))
    text = format_table(metrics)
    places = [text.index(words) for words in ("AUC", "mean over images with a lesion (30)", "two empty masks count 1 (45)",
                                              "pixels of all images together (45)", "images without a lesion (15)")]
    assert places == sorted(places)
    line = next(line for line in text.splitlines() if "Hausdorff" in line)
    assert f"{metrics['test']['mask/lesions/hd95']['value']:.3f}" in line
    assert "1 of 30 lesions without a drawn mask left out" in text


def test_without_normal_images_their_averages_are_not_printed(tmp_path):
    table, _ = make_lesions(45)
    metrics = write_metrics(write_workdir(tmp_path, [table.take(table.target > 0)], features=False))
    text = format_table(metrics)
    assert "False alarms" not in text and "all images," not in text and "pixels of all images together (30)" in text
    assert metrics["test"]["mask/normal/false_alarm"]["value"] is None


def test_a_table_of_masks_alone_has_mask_metrics_alone(tmp_path):
    table, _ = make_lesions(45, classes=False)
    metrics = write_metrics(write_workdir(tmp_path, [table], features=False))["test"]
    assert not set(METRICS) & set(metrics) and metrics["mask/lesions/iou"]["value"] > 0.3
    text = format_table({"test": metrics})
    assert "test: 45 cases" in text and "Dice" in text and "AUC" not in text


def test_tables_without_masks_have_no_mask_metrics(tmp_path):
    metrics = write_metrics(write_workdir(tmp_path, [make_table(20)], features=False))
    assert not [name for name in metrics["test"] if name.startswith("mask/")] and "masks" not in format_table(metrics)
