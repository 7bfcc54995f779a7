"""Studies: missing views and sides, class indices of four heads, and the BI-RADS subset rule with its counts."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from dicom_files import half_bright, write_dicom

from jaxmed.data.studies import VIEWS, FileStudySource, Study, StudySource, read_view
from jaxmed.errors import UserError

FILES = {name: Path(f"{name}.dcm") for name in VIEWS}


def source(*studies, **data):
    return StudySource(studies, (), data)


def test_the_order_of_views_is_the_contracts():
    assert VIEWS == ("L_CC", "L_MLO", "R_CC", "R_MLO")


def test_a_breast_without_pictures_has_no_label():
    study = source(Study("a", "p", {"L_CC": Path("x")}, (1, 1), (5, 4))).studies[0]
    assert study.label == (1, -1) and study.birads == (5, -1)
    np.testing.assert_array_equal(study.present, [True, False, False, False])


def test_targets_are_class_indices_of_the_four_heads():
    one = source(Study("a", "p", FILES, (1, 0), (5, 1)), birads_subset=(1, 3, 5))
    assert one.targets(0) == {"left_label": 1, "right_label": 0, "left_birads": 2, "right_birads": 0}
    five = source(Study("a", "p", FILES, (-1, 0), (-1, 4)))
    assert five.targets(0) == {"left_label": -1, "right_label": 0, "left_birads": -1, "right_birads": 3}


@pytest.mark.parametrize(
    ("subset", "keep", "label", "birads"),
    [
        ((1, 5), False, (1, -1), (5, -1)),
        ((1, 5), True, (1, 0), (5, -1)),
        ((1, 3, 5), False, (1, 0), (5, 3)),
        ((1, 2, 3, 4, 5), False, (1, 0), (5, 3)),
    ],
)
def test_breasts_outside_the_subset_lose_both_targets_unless_the_label_is_kept(subset, keep, label, birads):
    study = Study("a", "p", FILES, (1, 0), (5, 3))
    seen = source(study, birads_subset=subset, keep_label=keep).studies[0]
    assert (seen.label, seen.birads) == (label, birads)
    assert seen.present.all()  # its views stay as context


def test_studies_without_a_valid_breast_are_dropped_and_counted():
    studies = [Study("a", "p", FILES, (0, 0), (2, 3)), Study("b", "q", FILES, (1, 0), (5, 4)), Study("c", "r", FILES)]
    seen = source(*studies, birads_subset=(1, 5))
    assert [study.study_id for study in seen.studies] == ["b"]
    assert seen.notes[0].startswith("BI-RADS subset {1, 5}: 3 breasts outside it") and "2 studies without" in seen.notes[0]


def test_without_a_subset_nothing_is_dropped():
    assert len(source(Study("a", "p", FILES, (0, -1), (-1, -1)), Study("b", "q", FILES))) == 2


@pytest.mark.parametrize("subset", [(5, 1), (1,), (1, 6), (1, 1, 5)])
def test_impossible_subsets_are_refused(subset):
    with pytest.raises(UserError, match="data.birads_subset"):
        source(birads_subset=subset)


def test_the_cases_carry_patient_and_split_and_the_worse_label():
    case = source(Study("a", "p", FILES, (0, 1), split="val")).cases[0]
    assert (case.case_id, case.patient_id, case.split, case.label) == ("a", "p", "val", 1)


@pytest.fixture
def files(tmp_path):
    for name in ("L_CC", "R_CC", "R_MLO"):
        side, view = name.split("_")
        pixels = half_bright((80, 60), right=side == "R", top=2000 if view == "MLO" else 1000)
        write_dicom(tmp_path / f"{name}.dcm", pixels, ImageLaterality=side, ViewPosition=view)
    return {name: tmp_path / f"{name}.dcm" for name in ("L_CC", "R_CC", "R_MLO")}


def test_files_are_read_in_order_oriented_and_with_zeros_for_missing_views(files):
    study = FileStudySource([Study("a", "p", files)], (), {"size": (40, 32)}).read(0)
    assert study["views"].shape == (4, 40, 32) and study["views"].dtype == np.uint8
    np.testing.assert_array_equal(study["present"], [True, False, True, True])
    assert not study["views"][1].any()
    for row in (0, 2, 3):
        assert study["views"][row].max() > 230
        assert study["views"][row, :, :14].mean() > 20 * study["views"][row, :, 18:].mean()


def test_the_fingerprint_changes_with_the_file_and_with_the_size(files):
    one = FileStudySource([Study("a", "p", files)], (), {"size": 64})
    first = one.fingerprint(0)
    assert first == FileStudySource([Study("a", "p", files)], (), {"size": 64}).fingerprint(0)
    assert first != FileStudySource([Study("a", "p", files)], (), {"size": 65}).fingerprint(0)
    write_dicom(files["L_CC"], half_bright((82, 60)))
    assert one.fingerprint(0) != first


def test_16_bit_and_8_bit_png_files_come_as_dicom_does(tmp_path, files):
    pixels = half_bright((80, 60))
    cv2.imwrite(str(tmp_path / "deep.png"), pixels)
    cv2.imwrite(str(tmp_path / "flat.png"), np.round(pixels / 4).astype(np.uint8))
    wanted = read_view(files["L_CC"], "L_CC", (80, 60)).astype(int)
    assert abs(read_view(tmp_path / "deep.png", "L_CC", (80, 60)) - wanted).max() == 0
    assert abs(read_view(tmp_path / "flat.png", "L_CC", (80, 60)) - wanted).max() <= 2


def test_a_file_that_vanished_is_named(tmp_path):
    gone = FileStudySource([Study("a", "p", {"L_CC": tmp_path / "gone.dcm"})], (), {})
    for ask in (gone.read, gone.fingerprint):
        with pytest.raises(UserError, match="gone.dcm"):
            ask(0)
