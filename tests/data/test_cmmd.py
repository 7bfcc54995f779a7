"""CMMD's and TOMPEI's published layout, on synthetic trees (the originals were never at hand)."""

import csv

import numpy as np
import openpyxl
import pytest
from dicom_files import half_bright, write_dicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from jaxmed.data.cmmd import SHEET, CmmdSource
from jaxmed.errors import UserError

CODES = {"CC": ("399162004", "cranio-caudal"), "MLO": ("399368009", "medio-lateral oblique")}
# TOMPEI: two header rows with merged cells, BI-RADS in column V
TOP = ["ID", "LeftRight", "Age", "classification", "Exclusion reason", "Breast density", "Mass", *[""] * 5]
TOP += ["Calcification", *[""] * 4, "Other findings", *[""] * 3, "BI-RADS\nCategory", "Notes"]
BELOW = [""] * 6 + ["Location", "Shape", "Margin", "Density", "Associated calcification", "Other"]
BELOW += ["Location", "Morphology", "Distribution", "Clearly benign", "Other", "Location", "Breast", "Skin", "Nodes", "", ""]


def picture(root, patient, name, tag_side=None, number=1):
    """One file as TCIA's tree has it: the view only in ViewCodeSequence, 8 bits."""
    code = Dataset()
    code.CodeValue, code.CodeMeaning = CODES[name[2:]]
    pixels = (half_bright((48, 32), right=name[0] == "R") / 8).astype(np.uint8)
    tags = {"ImageLaterality": tag_side or name[0], "ViewPosition": None, "ViewCodeSequence": Sequence([code])}
    place = root / "CMMD" / patient / "07-18-2010-NA-NA-12345" / "1.000000-NA-67890" / f"1-{number}.dcm"
    write_dicom(place, pixels, bits=8, PatientID=patient, StudyInstanceUID=f"1.{number}", **tags)


def breast_row(patient, side, kind, birads):
    row = [""] * len(TOP)
    row[:4], row[21] = [patient, side, 50, kind], birads
    return row


def write_tompei(root, rows, kind="xlsx"):
    rows = [TOP, BELOW, *rows]
    path = root / f"TOMPEI-CMMD_clinical_data_v01_20250121.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return
    book = openpyxl.Workbook()
    book.active.title = "README"
    page = book.create_sheet(SHEET)
    for row in rows:
        page.append([cell if cell != "" else None for cell in row])
    page.merge_cells("G1:L1")
    book.save(path)


@pytest.fixture
def tree(tmp_path):
    for number, name in enumerate(("L_CC", "L_MLO", "R_CC", "R_MLO"), start=1):
        picture(tmp_path, "D1-0001", name, number=number)
    picture(tmp_path, "D1-0002", "L_CC", number=1)
    picture(tmp_path, "D1-0002", "L_MLO", number=2)
    picture(tmp_path, "D2-0001", "R_MLO", number=1)
    return tmp_path


ROWS = [
    breast_row("D1-0001", "L", "Malignant", 5),
    breast_row("D1-0001", "R", "Normal", 1),
    breast_row("D1-0002", "L", "Benign", 3),
    breast_row("D2-0001", "R", "Invisible", 2),
]


def open_source(root, **data):
    return CmmdSource({"dir": str(root), "size": 32, **data})


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_studies_join_pictures_with_tompeis_labels(tree, kind):
    write_tompei(tree, ROWS, kind)
    source = open_source(tree)
    seen = {study.study_id: (study.label, study.birads) for study in source.studies}
    assert seen == {"D1-0001": ((1, 0), (5, 1)), "D1-0002": ((0, -1), (3, -1)), "D2-0001": ((-1, 1), (-1, 2))}
    assert source.studies[0].patient_id == "D1-0001" and source.studies[0].present.all()
    study = source.read(0)
    assert study["views"].shape == (4, 32, 32)
    assert (study["views"][:, :, :12].mean((1, 2)) > 10 * study["views"][:, :, 20:].mean((1, 2))).all()
    assert any("check these counts" in note for note in source.notes)


def test_the_paper_s_subset_is_taken_per_breast(tree):
    write_tompei(tree, ROWS)
    source = open_source(tree, birads_subset=(1, 5))
    assert [study.study_id for study in source.studies] == ["D1-0001"]
    assert "2 studies without a valid breast" in " ".join(source.notes)


def test_excluded_breasts_have_no_target_and_invisible_ones_may_be_ignored(tree):
    write_tompei(tree, [*ROWS[1:], breast_row("D1-0001", "L", "Exclusion", 4)])
    source = open_source(tree, invisible="ignore")
    assert (source.studies[0].label, source.studies[0].birads) == ((-1, 0), (-1, 1))
    assert source.studies[2].label == (-1, -1)


def test_pictures_tagged_with_the_wrong_side_follow_the_labels(tree):
    picture(tree, "D1-0252", "L_CC", tag_side="R", number=1)
    write_tompei(tree, [*ROWS, breast_row("D1-0252", "L", "Malignant", 4)])
    source = open_source(tree)
    study = source.studies[2]
    assert study.study_id == "D1-0252" and study.label == (1, -1) and set(study.views) == {"L_CC"}
    assert source.read(2)["views"][0, :, :12].mean() > 50  # the pixels keep it on the left
    assert any(note.startswith("1 patients whose pictures are tagged with the wrong side") for note in source.notes)


def test_cmmds_own_table_gives_labels_without_birads(tree):
    header = ["ID1", "LeftRight", "Age", "number", "abnormality", "classification", "subtype"]
    rows = [header, ["D1-0001", "L", 44, 2, "mass", "Malignant", "Luminal A"], ["D1-0002", "L", 51, 2, "both", "Benign", ""]]
    with (tree / "CMMD_clinicaldata_revision.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    source = open_source(tree)
    assert [study.label for study in source.studies] == [(1, -1), (0, -1), (-1, -1)]
    assert all(study.birads == (-1, -1) for study in source.studies)
    assert any(note.startswith("no TOMPEI-CMMD table") for note in source.notes)


def test_rows_that_make_no_sense_are_listed_together(tree):
    bad = [breast_row("D1-0001", "X", "Malignant", 5), breast_row("D1-0002", "L", "Odd", "9")]
    write_tompei(tree, [*bad, ROWS[0], breast_row("D1-0001", "L", "Benign", 2)])
    with pytest.raises(UserError) as caught:
        open_source(tree)
    message = str(caught.value)
    for part in ("row 3: LeftRight 'X'", "row 4: classification 'Odd'", "row 4: BI-RADS '9'", "row 6: D1-0001 L differs"):
        assert part in message


def test_bad_dicom_files_are_listed_or_left_out(tree):
    write_tompei(tree, ROWS)
    (tree / "CMMD" / "D1-0002" / "broken.dcm").write_text("hello")
    with pytest.raises(UserError, match="(?s)1 problem.*broken.dcm: not a DICOM file.*data.skip_bad"):
        open_source(tree)
    source = open_source(tree, skip_bad=True)
    assert len(source) == 3 and any("1 DICOM files left out" in note for note in source.notes)


def test_what_is_missing_is_named_with_where_to_get_it(tmp_path, tree):
    for folder, message in ((tree / "gone", "not a folder"), (tree, "no clinical table")):
        with pytest.raises(UserError, match=f"{message}.*cancerimagingarchive"):
            open_source(folder)
    write_tompei(tree, [])
    with pytest.raises(UserError, match="no rows with a patient"):
        open_source(tree)


def test_a_table_without_the_columns_is_refused(tree):
    (tree / "TOMPEI-CMMD_clinical_data.csv").write_text("patient,side\nD1-0001,L\n")
    with pytest.raises(UserError, match="no header row.*ID.*LeftRight"):
        open_source(tree)
