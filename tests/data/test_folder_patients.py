"""Patient ids from file names, split folders, and several test sets beside the training folder."""

from collections import Counter

import cv2
import numpy as np
import pytest

from jaxmed.data.folder import FolderSource
from jaxmed.data.splits import make_split, read_split, write_split
from jaxmed.errors import UserError

LIVER = "^([^_]+)_"
CLASSES = ("Benign", "Malignant")


def write(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), np.full((8, 8), sum(map(ord, str(folder / name))) % 200, np.uint8))


def open_source(path, **data):
    return FolderSource({"dir": str(path), "patient_pattern": LIVER, **data})


def patients_of(source):
    return [case.patient_id for case in source.cases]


@pytest.fixture
def tree(tmp_path):
    write(tmp_path / "Benign", "p1_a.png", "p1_b_2.png", "p2_a.png")
    write(tmp_path / "Malignant", "p3_1.png")
    return tmp_path


def test_the_patient_is_the_name_up_to_the_first_underscore(tree):
    source = open_source(tree)
    assert patients_of(source) == ["p1", "p1", "p2", "p3"]
    assert source.notes == [f"patient ids from file names ({LIVER}): 3 patients"]
    assert patients_of(FolderSource({"dir": str(tree)})) == [""] * 4


def test_folders_and_suffixes_are_no_part_of_the_name_and_any_group_may_be_the_first(tmp_path):
    write(tmp_path / "a_1" / "x", "img-77 left.png")
    write(tmp_path / "a_1" / "y", "img-78 left.png")
    assert patients_of(open_source(tmp_path / "a_1", patient_pattern=r"-(\d+) (left|right)\.png$")) == ["77", "78"]


def test_a_csv_without_the_column_gets_patients_from_its_names(tree):
    (tree / "cases.csv").write_text("image,label\nBenign/p1_a.png,0\nMalignant/p3_1.png,1\n")
    assert patients_of(open_source(tree / "cases.csv")) == ["p1", "p3"]


def test_a_csv_with_patients_and_a_pattern_is_ambiguous(tree):
    (tree / "cases.csv").write_text("image,label,patient_id\nBenign/p1_a.png,0,\nMalignant/p3_1.png,1,p9\n")
    with pytest.raises(UserError, match="both name patients"):
        open_source(tree / "cases.csv")


def test_every_name_that_does_not_match_is_named(tree):
    write(tree / "Malignant", "noid.png", "_5.png")
    with pytest.raises(UserError) as caught:
        open_source(tree)
    message = str(caught.value)
    assert "2 problems" in message and "Malignant/noid.png" in message and "Malignant/_5.png" in message
    assert "data.patient_pattern" in message


@pytest.mark.parametrize(("pattern", "said"), [("(", "not a regular expression"), ("^[^_]+", "needs a group")])
def test_a_pattern_must_be_an_expression_with_a_group(tree, pattern, said):
    with pytest.raises(UserError, match=said):
        open_source(tree, patient_pattern=pattern)


def test_an_optional_group_that_matches_nothing_is_no_patient(tree):
    with pytest.raises(UserError, match="4 problems"):
        open_source(tree, patient_pattern="(zzz)?p")


@pytest.fixture
def liver(tmp_path):
    """Folders train, val, test, test_3 with 6 patients each, two images a patient."""
    for number, name in enumerate(("train", "val", "test", "test_3")):
        for k in range(6):
            write(tmp_path / name / CLASSES[k % 2], *(f"{number}{k}_{image}.png" for image in range(2)))
    return tmp_path


def test_split_folders_are_the_split(liver):
    source = open_source(liver)
    assert source.classes == CLASSES and len(source) == 36
    assert {(case.split, case.case_id.split("/")[0]) for case in source.cases} == {(s, s) for s in ("train", "val", "test")}
    assert "folders beside train, val, test that were not read: test_3" in source.notes
    split = make_split(source, None, {}, seed=0)
    assert [len(split.indices(name)) for name in ("train", "val", "test")] == [12, 12, 12]
    assert source.read(0)["image"].shape == (8, 8)


def test_masks_beside_the_images_of_split_folders_are_found(liver):
    for image in liver.glob("*/*/*.png"):
        cv2.imwrite(str(image.with_name(image.stem + "_mask.png")), np.eye(8, dtype=np.uint8) * 255)
    assert open_source(liver).read(0)["mask"].sum() == 8


def test_a_missing_split_folder_says_how_to_go_on(liver):
    for path in sorted((liver / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (liver / "val").rmdir()
    with pytest.raises(UserError, match=r"but no val; give data\.dir='.*train'"):
        open_source(liver)
    assert len(FolderSource({"dir": str(liver)}, predict=True)) == 24


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path / "train", "a.png")
    write(tmp_path / "tram", "b.png")
    assert FolderSource({"dir": str(tmp_path)}).classes == ("train", "tram")


def with_sets(liver, **more):
    sets = f"multi={liver / 'val'},single={liver / 'test_3'}"
    return FolderSource({"patient_pattern": LIVER, "classes": CLASSES, "dir": str(liver / "train"), "test_sets": sets, **more})


def divided(liver, **options):
    source = with_sets(liver)
    return source, make_split(source, None, {"val_fraction": 0.5, **options}, seed=0)


def test_test_sets_are_cases_of_their_own_split(liver):
    source = with_sets(liver)
    assert source.test_sets == ("multi", "single")
    assert Counter(case.split for case in source.cases) == {"": 12, "multi": 12, "single": 12}
    assert all(case.case_id.startswith(case.split) for case in source.cases)


def test_training_data_are_divided_and_test_sets_left_alone(liver):
    source, split = divided(liver, test_fraction=0.5)
    assert split.test_sets == ("multi", "single") and split.reported == ("multi", "single", "val")
    for name in split.test_sets:
        assert {source.cases[i].split for i in split.indices(name)} == {name}
    assert sorted([*split.indices("train"), *split.indices("val")]) == list(range(12))


def test_folds_hold_out_the_validation_cases(liver):
    source = with_sets(liver)
    held = [make_split(source, None, {}, seed=0, fold=k, num_folds=3).indices("val") for k in range(3)]
    assert sorted(np.concatenate(held)) == list(range(12))


def test_the_papers_mixing_joins_validation_and_the_first_set_and_says_so(liver):
    source, split = divided(liver, test_fraction=0.5, paper_protocol=True, also_train=("single",))
    assert split.test_sets == ("multi",)
    np.testing.assert_array_equal(split.indices("val"), split.indices("multi"))
    assert {source.cases[i].split for i in split.indices("val")} == {"", "multi"}
    assert {source.cases[i].split for i in split.indices("train")} == {"", "single"}
    assert any("joined with the validation split" in note for note in split.notes)
    assert any("in the training split besides: single" in note for note in split.notes)


def test_a_split_with_test_sets_is_read_back_as_it_was(liver, tmp_path):
    source, split = divided(liver, test_fraction=0.5)
    write_split(tmp_path / "splits.csv", split)
    assert read_split(tmp_path / "splits.csv", source) == split


def test_a_patient_in_training_and_in_a_test_set_is_an_error(liver):
    write(liver / "test_3" / "Malignant", "01_99.png")
    with pytest.raises(UserError, match="'single' shares patients with the training data: 01"):
        with_sets(liver)


@pytest.mark.parametrize("sets, message", [
    ("multi", "is not name=DIR"), ("val=.", "is taken"), ("a=.,a=.", "is taken"), ("a=/nowhere", "does not exist"),
])  # fmt: skip
def test_wrong_test_sets_are_errors(liver, sets, message):
    with pytest.raises(UserError, match=message):
        with_sets(liver, test_sets=sets)
