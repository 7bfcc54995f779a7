import numpy as np
import pytest
from fake_source import FakeSource

from jaxmed.data.checks import check_data
from jaxmed.data.similarity import thumbnail
from jaxmed.data.splits import make_split


def check(source, split=None, **options):
    return check_data(source, split, size=64, log=lambda line: None, **options)


def texts(report, level):
    return [finding.text for finding in report.of(level)]


def names(report, start):
    return next(list(finding.names) for finding in report.findings if finding.text.startswith(start))


def split_of(source, **data):
    return make_split(source, np.stack([thumbnail(image) for image in source.images]), data, seed=42)


def test_sound_data_have_no_errors_and_no_warnings():
    source = FakeSource(24)
    report = check(source, split_of(source))
    assert texts(report, "error") == texts(report, "warning") == []
    assert report.exit_status == 0
    assert texts(report, "ok") == [
        "every image and mask can be read",
        "no duplicates: no two images correlate above 0.95 (32 x 32 gray)",
        "no leak: no patient and no duplicate is in two splits",
    ]
    assert "Result: 0 errors, 0 warnings: the data can be used." in report.text()


def test_facts_tell_classes_sizes_and_lesions():
    facts = texts(check(FakeSource(24)), "fact")
    assert "cases per class: benign 12, malignant 12" in facts
    assert "image width: 56 to 56 pixels, median 56" in facts
    assert "masks: made up" in facts
    assert any(fact.startswith("lesion size, benign: ") for fact in facts)
    assert "no patient ids" in facts


def test_every_unreadable_file_is_named():
    source = FakeSource(60)
    source.bad = {row: f"file{row}.png: corrupt" for row in range(30)}
    report = check(source)
    assert names(report, "30 cases cannot be read") == [f"file{row}.png: corrupt" for row in range(30)]
    assert report.exit_status == 1
    assert "file29.png: corrupt" in report.text(limit=2)
    assert "repair the errors" in report.text()


def test_duplicates_are_a_warning_and_conflicts_name_both_cases():
    source = FakeSource(24)
    source.images[2], source.images[5] = source.images[0], source.images[0]  # benign, benign, malignant
    report = check(source)
    assert names(report, "duplicates: 3 pairs among 3 images") == ["case 0 + case 2 + case 5"]
    assert names(report, "label conflicts: 2 pairs")[0] == "case 0 [benign] = case 5 [malignant], correlation 1.0000"
    assert report.exit_status == 0


def test_a_patient_in_two_splits_is_an_error():
    patients = [f"p{row // 2}" for row in range(24)]
    source = FakeSource(24, patients=patients)
    split = split_of(source)
    first, second = split.indices("test")[:2]
    split.rows[first]["split"] = "train"
    report = check(source, split)
    assert "leak: 1 patient in several splits" in texts(report, "error")
    assert f"{source.cases[second].case_id} in test" in names(report, "leak")[0]


def test_a_duplicate_in_two_splits_of_the_source_is_an_error():
    splits = ["train"] * 16 + ["val"] * 4 + ["test"] * 4
    source = FakeSource(24, splits=splits)
    source.images[22] = source.images[0]
    report = check(source)
    assert names(report, "leak: 1 pair of duplicate images") == ["case 0 in train, case 22 in test, correlation 1.0000"]
    assert report.exit_status == 1


def test_a_split_that_says_it_leaks_is_only_warned_about():
    source = FakeSource(24)
    split = split_of(source, group_duplicates=False)
    source.images[split.indices("test")[0]] = source.images[split.indices("train")[0]]
    report = check(source, split, data={"group_duplicates": False})
    assert any(text.startswith("leak: 1 pair") for text in texts(report, "warning"))
    assert report.exit_status == 0


def test_tiny_lesions_and_empty_masks_are_named():
    source = FakeSource(24)
    source.masks[3] = np.zeros_like(source.masks[3])
    source.masks[4] = np.zeros_like(source.masks[4])
    source.masks[4][10:13, 10:13] = 1
    report = check(source)
    assert names(report, "1 of 24 empty masks") == ["case 3"]
    assert names(report, "1 of 24 lesions too small") == ["case 4"]


@pytest.mark.parametrize(
    ("labels", "level", "message"),
    [
        ([0] * 24, "error", "class 'malignant' has no cases"),
        ([0] * 20 + [1] * 4, "warning", "class 'malignant' has only 4 cases"),
        ([0, 1] * 11 + [-1, -1], "warning", "2 cases without label"),
    ],
)
def test_missing_and_rare_classes_are_reported(labels, level, message):
    assert any(text.startswith(message) for text in texts(check(FakeSource(24, labels=labels)), level))


def test_a_split_without_some_class_is_an_error():
    source = FakeSource(24, splits=["train"] * 16 + ["val"] * 7 + ["test"])
    assert "split test has no case of class benign" in texts(check(source), "error")


def test_blank_images_are_named_and_resemble_nothing():
    source = FakeSource(24)
    source.images[1] = source.images[2] = np.full_like(source.images[1], 30)
    report = check(source)
    assert names(report, "2 images of one single gray value") == ["case 1", "case 2"]
    assert any(text.startswith("no duplicates") for text in texts(report, "ok"))


def test_a_source_without_masks_is_told_its_option():
    source = FakeSource(24)
    source.has_masks = False
    assert 'no masks: only the mask-free option experts=("image",) can be trained' in texts(check(source), "fact")


def test_long_lists_are_cut_except_for_errors():
    source = FakeSource(30)
    for row in range(30):
        source.masks[row] = np.zeros_like(source.masks[row])
    assert "and 25 more" in check(source).text(limit=5)
    assert "more" not in check(source).text(limit=None)
