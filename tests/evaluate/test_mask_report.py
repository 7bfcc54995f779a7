"""The report's section about masks: true to the numbers, and the whole page of a network without classes."""

import re

import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.evaluate.compare_runs import read_runs
from jaxmed.evaluate.mask_files import write_mask_files
from jaxmed.evaluate.mask_table import worst_lesions
from jaxmed.evaluate.readers import write_readers
from jaxmed.evaluate.report import write_report
from jaxmed.evaluate.summary import write_metrics
from jaxmed.evaluate.workdir import read_workdir

from .synthetic import make_lesions, make_table, write_workdir
from .test_report import Page, read

PUBLISHED = {"model": "Proposed", "IoU": 74.50, "Dice": 85.25, "Acc": 90.60, "Sens": 80.87, "Prec": 85.47}
FIGURES = {"mask_overlays", "mask_iou_by_size", "mask_iou_histogram"}


def build(path, tables, files=(), **run) -> Page:
    write_workdir(path, tables, run={"published": PUBLISHED, **run}, features=False)
    if files:
        write_mask_files(path, files)
    return read(write_report(path))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The report of one network with classes, masks, UPA weights and mask files."""
    path = tmp_path_factory.mktemp("masks")
    table, files = make_lesions(45)
    build(path, [table], files)
    return path


def test_the_section_says_what_metrics_json_says(built):
    page, metrics = read(built / "report.html"), write_metrics(built)["test"]
    assert FIGURES | {"upa_weights", "roc", "confusion"} <= page.ids
    for name in ("lesions/iou", "lesions/dice", "all/iou", "pooled/dice"):
        entry = {key: 100 * metrics[f"mask/{name}"][key] for key in ("value", "low", "high")}
        assert f"{entry['value']:.1f} % {entry['low']:.1f} to {entry['high']:.1f} %" in page.text
    distance = metrics["mask/lesions/hd95"]
    assert f"{distance['value']:.2f} px {distance['low']:.2f} to {distance['high']:.2f} px" in page.text
    assert f"masks have a mean IoU of {100 * metrics['mask/lesions/iou']['value']:.1f} %" in page.text
    assert "1 of 30 lesions without a drawn mask left out" in page.text


def test_missed_lesions_and_false_alarms_are_counted(built):
    text = read(built / "report.html").text
    assert "(no pixel found): 2 of 30; 1 without any drawing, 1 with a drawing elsewhere." in text
    assert "(a drawing on an image without a lesion): 1 of 15." in text


def test_the_published_dice_stands_beside_the_one_that_follows_from_the_iou(built):
    text, metrics = read(built / "report.html").text, write_metrics(built)["test"]
    ours = [100 * metrics[f"mask/lesions/{name}"]["value"] for name in ("iou", "dice_of_mean_iou", "sensitivity", "precision")]
    assert " ".join(f"{value:.2f}" for value in ours) + " Published" in text
    assert "74.50 85.25 80.87 85.47" in text and "2 IoU / (1 + IoU) of that mean" in text


def test_the_worst_lesions_are_listed_with_what_is_wrong(built):
    rows = worst_lesions(read_workdir(built))
    assert [row["iou"] for row in rows] == sorted(row["iou"] for row in rows) and len(rows) == 10
    remarks = {row["case_id"]: row["remark"] for row in rows}
    assert (remarks["test-001"], remarks["test-004"]) == ("nothing drawn", "drawn elsewhere")
    assert next(row["hd95"] for row in rows if row["case_id"] == "test-001") == "–"


def test_masks_that_are_scored_are_not_called_an_input(built):
    text = read(built / "report.html").text
    assert "mirror image" not in text  # no test-time flips here
    assert "upper bound" not in text and "what the network learns to draw" in text


def test_a_network_without_classes_has_a_page_about_masks(tmp_path):
    table, files = make_lesions(45, classes=False, upa=False)
    page = build(tmp_path, [table], files, priors={"learned": [0.5, 0.5], "true": [0.6, 0.4]}, test_time_flips="hv")
    assert "averaged over each picture and its three mirror images" in page.text
    assert FIGURES == {name for name in page.ids if name} - {"warnings"}
    assert "The network read 45 cases that were kept aside for testing. The masks have" in page.text
    for words in ("AUC", "Accuracy", "All metrics", "most wrong", "positive class", "lacked a class", "90.60", "Training drew"):
        assert words not in page.text, words
    assert "Beside the published numbers" in page.text and "resamples that lacked lesions" in page.text
    assert not re.search(r"\bnan\b", page.text.lower())


def test_the_overlays_of_folds_come_from_their_folders(tmp_path):
    table, files = make_lesions(30, classes=False)
    table.fold = np.arange(30) % 2
    for fold in range(2):
        write_mask_files(tmp_path / f"fold_{fold:02d}", files[fold::2])
    page = build(tmp_path, [table])
    assert FIGURES <= page.ids and "2 networks (2 folds)" in page.text


def test_a_run_of_masks_alone_is_neither_compared_nor_read_against_readers(tmp_path):
    path = write_workdir(tmp_path, [make_lesions(6, classes=False)[0]], features=False)
    for refused in (lambda: read_runs({"a": path, "b": path}), lambda: write_readers(path, tmp_path / "reads.csv")):
        with pytest.raises(UserError, match="predictions.csv holds masks and no columns prob_"):
            refused()


def test_mask_files_of_other_cases_are_refused(tmp_path):
    table, files = make_lesions(30, classes=False)
    with pytest.raises(UserError, match="no pictures of case test-001"):
        build(tmp_path, [table], [file for file in files if file.case_id != "test-001"])


def test_several_networks_show_their_sd_and_counts_per_network(tmp_path):
    page = build(tmp_path, [make_lesions(30, seed=r, repeat=r, classes=False)[0] for r in range(2)])
    assert "mask_overlays" not in page.ids and "Metric Value SD" in page.text
    assert "2 of 20; 1 without any drawing" in page.text and "Counts are means over repeats." in page.text


def test_images_without_any_lesion_have_only_false_alarms(tmp_path):
    table, files = make_lesions(30)
    normal = table.target == 0
    page = build(tmp_path, [table.take(normal)], [file for file, keep in zip(files, normal, strict=True) if keep])
    assert FIGURES & page.ids == {"mask_overlays"} and "(no pixel found): 0 of 0" in page.text
    assert not re.search(r"\bnan\b", page.text.lower())


def test_test_sets_stand_side_by_side_and_without_mask_files_there_are_no_overlays(tmp_path):
    page = build(tmp_path, [make_lesions(30)[0], make_lesions(24, split="clinic")[0]])
    text = page.text
    assert FIGURES & page.ids == {"mask_iou_by_size", "mask_iou_histogram"}
    assert "Set Images IoU Dice Hausdorff 95 % IoU, pooled Missed False alarms Method test 30" in text and "clinic 24" in text


def test_a_run_without_masks_has_no_such_section(tmp_path):
    page = build(tmp_path, [make_table(20)])
    assert not (FIGURES | {"upa_weights"}) & page.ids and "Masks" not in page.text
