"""The data check of two-view breasts: sound data have no findings, and every fault is found and its file named."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from jaxmed.data.breast_checks import check_breasts
from jaxmed.data.breasts import Breast, FileBreastSource
from jaxmed.data.split_table import Split


def picture(path, seed):
    """A textured half disk at the left edge."""
    disk = cv2.circle(np.zeros((48, 40 + seed % 3), np.uint8), (0, 24), 16, 120, -1)
    noise = np.random.default_rng(seed).integers(0, 60, disk.shape, np.uint8)
    cv2.imwrite(str(path), disk + noise * (disk > 0))
    return path


@pytest.fixture
def breasts(tmp_path):
    """20 left breasts, two studies per patient, every other patient malignant."""
    return [
        Breast(f"s{k}:left", k // 2 % 2, picture(tmp_path / f"{k}cc.png", 2 * k), picture(tmp_path / f"{k}mlo.png", 2 * k + 1),
               "left", f"s{k}", f"p{k // 2}")
        for k in range(20)
    ]  # fmt: skip


def check(breasts, split=None, predict=False, test_sets=()):
    source = FileBreastSource(breasts, ("a note",), {}, predict)
    source.test_sets = test_sets
    return check_breasts(source, split, log=lambda line: None)


def texts(report, level):
    return [finding.text for finding in report.of(level)]


def names(report, start):
    return next(list(finding.names) for finding in report.findings if finding.text.startswith(start))


def test_sound_breasts_have_no_errors_and_no_warnings(breasts):
    report = check(breasts)
    assert texts(report, "error") == texts(report, "warning") == [] and report.exit_status == 0
    assert texts(report, "ok") == ["every view can be read", "no picture is there twice"]
    facts = ["a note", "20 breasts of 20 studies (10 patients): 10 non-malignant, 10 malignant"]
    facts += ["cases per class: non-malignant 10, malignant 10", "cc: 48 to 48 pixels high, 40 to 42 wide"]
    assert texts(report, "fact")[:4] == facts


def test_every_file_that_cannot_be_read_is_named(breasts):
    breasts[3].cc.write_bytes(b"not a picture")
    breasts[5].mlo.unlink()
    report = check(breasts)
    found = names(report, "2 breasts cannot be read")
    assert found[0].startswith("s3:left: ") and "3cc.png" in found[0] and "5mlo.png" in found[1]
    assert report.exit_status == 1


def test_the_same_pixels_twice_are_named_with_their_files_even_mirrored(breasts):
    pixels = cv2.imread(str(breasts[0].cc), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(breasts[6].mlo), pixels[:, ::-1])
    report = check(breasts)
    assert names(report, "1 picture more than once") == [f"s0:left cc ({breasts[0].cc}) = s6:left mlo ({breasts[6].mlo})"]
    rows = [{"case_id": item.case_id, "patient_id": item.patient_id, "label": "malignant", "split": split}
            for item, split in zip(breasts, ["test"] * 4 + ["train"] * 8 + ["val"] * 8, strict=True)]  # fmt: skip
    report = check(breasts, Split(rows))
    places = f"s0:left cc ({breasts[0].cc}) in test = s6:left mlo ({breasts[6].mlo}) in train"
    assert names(report, "leak: 1 picture") == [places] and report.exit_status == 1


def test_a_patient_in_two_of_the_given_splits_is_an_error(breasts):
    given = [replace(item, split=("train", "val", "test")[k % 3 if k < 2 else k // 4 % 3]) for k, item in enumerate(breasts)]
    report = check(given)
    assert names(report, "leak: 1 patient in several splits") == ["s0:left in train, s1:left in val"]
    assert report.exit_status == 1


def test_a_source_that_brings_its_test_set_is_checked_by_the_splits_that_it_has(breasts):
    given = [replace(item, split="test" if k < 4 else "") for k, item in enumerate(breasts)]
    report = check(given, test_sets=("test",))
    assert report.exit_status == 0 and "no leak: no patient is in two splits" in texts(report, "ok")
    assert "split test: non-malignant 2, malignant 2" in texts(report, "fact")
    given[1] = replace(given[1], split="")
    assert names(check(given, test_sets=("test",)), "leak: 1 patient") == ["s0:left in test, s1:left in train"]


def test_breasts_of_one_class_are_an_error_and_without_labels_good_for_prediction_only(breasts):
    report = check([replace(item, label=1) for item in breasts])
    assert texts(report, "error") == ["class 'non-malignant' has no cases"]
    report = check([replace(item, label=-1) for item in breasts], predict=True)
    assert texts(report, "warning") == ["no breast has a label: good for prediction only"] and report.exit_status == 0
