"""VinDr-Mammo's published layout, on synthetic trees (the originals were never at hand)."""

import csv

import pytest
from dicom_files import half_bright, write_dicom

from jaxmed.data.sources import make_breast_source
from jaxmed.data.splits import make_split
from jaxmed.data.vindr_mammo import BREASTS, FINDINGS, Finding
from jaxmed.errors import UserError

BREAST_COLUMNS = ["study_id", "series_id", "laterality", "view_position", "image_id", "height", "width", "breast_birads",
                  "breast_density", "split"]  # fmt: skip
FINDING_COLUMNS = [*BREAST_COLUMNS[:-1], "finding_categories", "finding_birads", "xmin", "ymin", "xmax", "ymax", "split"]
VIEWS = ("L_CC", "L_MLO", "R_CC", "R_MLO")


def picture_row(study, view, birads, split):
    side, position = view.split("_")
    facts = {"series_id": f"x{study}", "height": 48, "width": 32, "breast_density": "DENSITY C"}
    names = {"study_id": study, "laterality": side, "view_position": position, "image_id": f"{study}{view}"}
    return facts | names | {"breast_birads": f"BI-RADS {birads}", "split": split}


def write_csv(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def tree(tmp_path):
    """A function that writes studies {id: (BI-RADS left, right, split)} and findings."""

    def write_tree(studies, findings=None):
        rows = [picture_row(study, view, birads[view[0] == "R"], split)
                for study, (*birads, split) in studies.items() for view in VIEWS]  # fmt: skip
        write_csv(tmp_path / BREASTS, BREAST_COLUMNS, rows)
        if findings is not None:
            write_csv(tmp_path / FINDINGS, FINDING_COLUMNS, findings)
        for row in rows:
            path = tmp_path / "images" / row["study_id"] / f"{row['image_id']}.dicom"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # only what is read needs pixels
        return tmp_path

    return write_tree


SMALL = {"a1": (1, 5, "training"), "b2": (3, 2, "test"), "c3": (4, 3, "training")}


def open_source(root, predict=False, **data):
    return make_breast_source({"source": "vindr_mammo", "dir": str(root), **data}, predict=predict)


@pytest.mark.parametrize(("mapping", "labels"), [
    ("1-3|4-5", {"a1:left": 0, "a1:right": 1, "b2:left": 0, "b2:right": 0, "c3:left": 1, "c3:right": 0}),
    ("1-2|4-5", {"a1:left": 0, "a1:right": 1, "b2:right": 0, "c3:left": 1}),
    ("1-2|3-5", {"a1:left": 0, "a1:right": 1, "b2:left": 1, "b2:right": 0, "c3:left": 1, "c3:right": 1}),
])  # fmt: skip
def test_birads_categories_become_suspicion(tree, mapping, labels):
    source = open_source(tree(SMALL), birads_mapping=mapping)
    assert {case.case_id: case.label for case in source.cases} == labels
    assert source.classes == ("not suspicious", "suspicious")
    assert f"label: suspicion by BI-RADS {mapping} (not | suspicious), not pathology" in source.notes
    assert len(open_source(tree(SMALL), birads_mapping=mapping, predict=True)) == 6


def test_pictures_are_found_and_read_whatever_their_headers_say(tree):
    root = tree(SMALL)
    for view in ("R_CC", "R_MLO"):
        path = root / "images" / "a1" / f"a1{view}.dicom"
        write_dicom(path, half_bright(right=True), ImageLaterality=None, ViewPosition=None)
    source = open_source(root)
    assert source.breasts[1].case_id == "a1:right" and source.breasts[1].birads == 5
    views = source.read(1)
    assert {name: pixels.shape for name, pixels in views.items()} == {"cc": (48, 32), "mlo": (48, 32)}
    assert all(pixels[:, :16].any() and not pixels[:, 16:].any() for pixels in views.values())


def many(count=40):
    return {f"{k:02}": (5 if k % 4 == 0 else 1, 2, "test" if k % 5 == 0 else "training") for k in range(count)}


def test_both_breasts_of_a_study_stay_together(tree):
    source = open_source(tree(many()))
    places = [row["split"] for row in make_split(source, None, {}, seed=1).rows]
    assert set(places) == {"train", "val", "test"} and places[::2] == places[1::2]
    assert "no patient ids: the breasts of a study stay together" in source.notes[-1]


def test_the_official_test_studies_stay_the_test_set_in_every_fold(tree):
    source = open_source(tree(many()), official_split=True)
    official = {f"{k:02}" for k in range(0, 40, 5)}
    for fold in (None, 0, 2):
        split = make_split(source, None, {}, seed=0, fold=fold, num_folds=None if fold is None else 3)
        tested = {source.breasts[k].study_id for k in split.indices("test")}
        assert tested == official and len(split.indices("val")) and len(split.indices("train"))


def test_negatives_are_drawn_by_the_seed_in_each_split(tree):
    root = tree(many())
    source = open_source(root, negatives_per_positive=1.5)
    labels = [case.label for case in source.cases]
    assert (labels.count(1), labels.count(0)) == (10, 15)
    note = "negatives_per_positive 1.5: 55 negative breasts left out by chance (sample_seed 0)"
    assert note in source.notes
    same, other = (open_source(root, negatives_per_positive=1.5, sample_seed=seed) for seed in (0, 1))
    assert source.cases == same.cases != other.cases
    official = open_source(root, negatives_per_positive=1.5, official_split=True)
    tested = [case.label for case in official.cases if case.split == "test"]
    assert (tested.count(1), tested.count(0)) == (2, 3)
    assert len(open_source(root, negatives_per_positive=0)) == len(open_source(root, True, negatives_per_positive=1.5)) == 80


def finding(study, view, categories, birads, *box):
    places = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)) if box else {}
    row = picture_row(study, view, 4, "training")
    return row | {"finding_categories": str(categories), "finding_birads": birads} | places


def test_findings_belong_to_their_breast(tree):
    found = [
        finding("a1", "R_CC", ["Mass", "Skin Retraction"], "BI-RADS 5", 3.5, 10, 20, 30.25),
        finding("a1", "R_MLO", ["Suspicious Lymph Node"], "", 1, 2, 3, 4),
        finding("b2", "L_CC", ["No Finding"], ""),
    ]
    source = open_source(tree(SMALL, found), birads_mapping="1-2|4-5")
    assert source.findings[1] == (
        Finding(("Mass", "Skin Retraction"), "cc", (3.5, 10, 20, 30.25), 5),
        Finding(("Suspicious Lymph Node",), "mlo", (1, 2, 3, 4), -1),
    )
    assert [len(group) for group in source.findings] == [0, 2, 0, 0] and len(source) == 4


def test_findings_without_a_usable_box_are_listed_or_left_out(tree):
    bad = [finding("a1", "R_CC", ["Mass"], "BI-RADS 4"), finding("a1", "R_CC", "Mass", "", 1, 2, 3, 4)]
    root = tree(SMALL, [*bad, finding("a1", "R_CC", ["Mass"], "", 9, 2, 3, 4)])
    with pytest.raises(UserError, match="(?s)3 problems.*line 2: not a finding.*line 3.*'Mass'.*line 4.*xmin '9'"):
        open_source(root)
    source = open_source(root, skip_bad=True)
    assert len(source) == 6 and not any(source.findings)
    assert any(note.startswith("3 findings left out: line 2: not a finding with a box") for note in source.notes)


def test_missing_pictures_are_listed_or_left_out(tree):
    root = tree(SMALL)
    (root / "images" / "c3" / "c3L_CC.dicom").unlink()
    with pytest.raises(UserError, match="(?s)1 problem.*c3/c3L_CC.dicom: does not exist.*data.skip_bad=True"):
        open_source(root)
    source = open_source(root, skip_bad=True)
    assert [case.case_id for case in source.cases] == ["a1:left", "a1:right", "b2:left", "b2:right", "c3:right"]
    assert "1 pictures left out: c3/c3L_CC.dicom: does not exist" in source.notes
    assert "1 breasts lack their CC or their MLO view: left out (c3:left)" in source.notes


def test_rows_that_make_no_sense_are_listed_together(tree):
    root = tree({"a1": (1, 5, "train"), "b2": (7, 2, "test")})
    with pytest.raises(UserError) as caught:
        open_source(root)
    for part in ("line 2: split 'train' is neither", "line 6: breast_birads 'BI-RADS 7' is none", "6 problems"):
        assert part in str(caught.value)


def test_a_view_given_twice_and_a_breast_of_two_categories_are_named(tree):
    root = tree({"a1": (1, 5, "training")})
    rows = [picture_row("a1", view, birads, "training") for view, birads in (("L_CC", 1), ("L_MLO", 2), ("L_CC", 1))]
    write_csv(root / BREASTS, BREAST_COLUMNS, rows)
    with pytest.raises(UserError, match="(?s)line 4: study 'a1' has L_CC already in line 2.*line 3: birads 2 of study 'a1'"):
        open_source(root)


@pytest.mark.parametrize(("options", "message"), [
    ({"birads_mapping": "1|5"}, "data.birads_mapping='1.5': choose one of 1-3.4-5"),
    ({"negatives_per_positive": -1}, "data.negatives_per_positive=-1: give 0"),
    ({"dir": "/nowhere"}, "'/nowhere' is not a folder; download VinDr-Mammo"),
])  # fmt: skip
def test_wrong_options_are_named(tree, options, message):
    with pytest.raises(UserError, match=message):
        make_breast_source({"source": "vindr_mammo", "dir": str(tree(SMALL)), **options})


def test_a_missing_table_or_column_is_named(tmp_path):
    with pytest.raises(UserError, match="breast-level_annotations.csv does not exist; download VinDr-Mammo"):
        open_source(tmp_path)
    (tmp_path / BREASTS).write_text("study_id,image_id\na,b\n")
    with pytest.raises(UserError, match="no column laterality"):
        open_source(tmp_path)
