"""Users' own images: CSV files and class folders, and one error that lists everything wrong with them."""

import cv2
import numpy as np
import pytest

from jaxmed.data.sources import make_source
from jaxmed.errors import UserError

HEADER = "image,mask,label,patient_id,split\n"


def write(path, value=50, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size, value, np.uint8))


def open_source(path, needs=("image", "mask"), predict=False, **data):
    return make_source({"source": "folder", "dir": str(path), **data}, needs=needs, predict=predict)


@pytest.fixture
def table(tmp_path):
    """A function that writes cases.csv beside images a.png .. d.png and masks a_m.png .. d_m.png, a2_m.png."""
    for k, name in enumerate("abcd"):
        write(tmp_path / "img" / f"{name}.png", 50 + k)
        write(tmp_path / "img" / f"{name}_m.png", 0)
        mask = np.zeros((20, 30), np.uint8)
        mask[2:5, 2:5] = 255
        cv2.imwrite(str(tmp_path / "img" / f"{name}_m.png"), mask)
        cv2.imwrite(str(tmp_path / "img" / f"{name}2_m.png"), np.roll(mask, 10, axis=1))

    def write_table(rows, header=HEADER):
        (tmp_path / "cases.csv").write_text(header + "\n".join(rows) + "\n")
        return tmp_path / "cases.csv"

    return write_table


def error_of(path, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_source(path, **options)
    return str(caught.value)


def test_a_csv_gives_cases_with_patients_and_splits(table):
    source = open_source(table(["img/a.png,img/a_m.png,malignant,p1,train", "img/b.png,img/b_m.png,benign,p2,test"]))
    assert source.classes == ("benign", "malignant")
    first, second = source.cases
    assert (first.case_id, first.label, first.patient_id, first.split) == ("img/a.png", 1, "p1", "train")
    assert (second.label, second.patient_id, second.split) == (0, "p2", "test")
    assert source.has_masks and source.mask_origin == "column 'mask' of cases.csv"
    assert source.read(1)["image"][0, 0] == 51
    assert source.read(1)["mask"].sum() == 9


def test_several_masks_of_an_image_are_united(table):
    source = open_source(table(["img/a.png,img/a_m.png; img/a2_m.png,benign,,", "img/b.png,img/b_m.png,malignant,,"]))
    assert source.read(0)["mask"].sum() == 18
    assert source.notes == ["1 images have several masks: united"]


def test_a_mask_listed_twice_is_an_error_that_names_both_lines(table):
    rows = ["img/a.png,img/a_m.png,benign,,", "img/b.png,img/a_m.png,malignant,,", "img/c.png,img/c_m.png;img/c_m.png,benign,,"]
    message = error_of(table(rows))
    assert "2 problems" in message
    assert "line 3: mask a_m.png is already that of line 2" in message and "line 4: a mask is listed twice" in message


def test_two_columns_are_enough_without_masks(table):
    source = open_source(table(["img/a.png,cyst", "img/b.png,solid"], header="image,label\n"), needs=("image",))
    assert source.classes == ("cyst", "solid")
    assert not source.has_masks and set(source.read(0)) == {"image"}


def test_a_spreadsheets_byte_order_mark_and_blank_lines_do_no_harm(table):
    path = table(["img/a.png,benign", "", ",", "img/b.png,malignant"], header="\ufeffimage,label\n")
    assert len(open_source(path, needs=("image",))) == 2


def test_masks_of_some_images_only_are_not_used_and_noted(table):
    path = table(["img/a.png,img/a_m.png,benign,,", "img/b.png,,malignant,,"])
    source = open_source(path, needs=("image",))
    assert not source.has_masks and source.notes == ["only 1 of 2 images have a mask: masks are not used"]


def test_the_positive_class_comes_last_unless_the_config_says_otherwise(table):
    path = table(["img/a.png,normal", "img/b.png,malignant", "img/c.png,benign", "img/d.png,cyst"], "image,label\n")
    assert open_source(path, needs=("image",)).classes == ("normal", "benign", "cyst", "malignant")
    classes = ("malignant", "benign", "cyst", "normal")
    assert open_source(path, needs=("image",), classes=classes).classes == classes


def test_all_bad_rows_are_listed_at_once_with_their_lines(table):
    message = error_of(
        table(
            [
                "img/a.png,img/a_m.png,benign,,train",
                "img/gone.png,img/b_m.png,benign,,train",
                "img/b.png,img/gone_m.png,benign,,train",
                "img/c.png,img/c_m.png,,,train",
                "img/d.png,img/d_m.png,malignant,,training",
                "img/./a.png,img/a_m.png,malignant,,train",
            ]
        )
    )
    assert "cases.csv: 5 problems" in message
    assert "line 3: image file" in message and "gone.png does not exist" in message
    assert "line 4: mask file" in message and "gone_m.png does not exist" in message
    assert "line 5: no label" in message
    assert "line 6: split 'training' is none of train, val, test" in message
    assert "line 7: image a.png is already in line 2" in message


def test_ten_problems_are_shown_and_the_rest_counted(table):
    message = error_of(table([f"img/{k}.png,benign" for k in range(14)], "image,label\n"), needs=("image",))
    assert "14 problems" in message and "... and 4 more" in message
    assert message.count("does not exist") == 10


def test_missing_masks_name_the_lines_and_both_ways_out(table):
    message = error_of(table(["img/a.png,img/a_m.png,benign,,", "img/b.png,,malignant,,"]))
    assert "line 3: no mask" in message
    assert "`mask`" in message and 'experts=("image",)' in message
    message = error_of(table(["img/a.png,benign", "img/b.png,malignant"], "image,label\n"))
    assert "no column 'mask'" in message and 'experts=("image",)' in message


@pytest.mark.parametrize(
    ("header", "missing"), [("picture,label\n", "image"), ("image,diagnosis\n", "label"), ("image;label\n", "image")]
)
def test_a_missing_column_is_named_with_the_ones_found(table, header, missing):
    message = error_of(table(["img/a.png,benign"], header), needs=("image",))
    assert f"no column '{missing}'" in message and header.strip().split(",")[-1] in message


def test_an_unknown_label_names_its_line(table):
    path = table(["img/a.png,benign", "img/b.png,Malignant", "img/c.png,malignant"], "image,label\n")
    message = error_of(path, needs=("image",), classes=("benign", "malignant"))
    assert "line 3: unknown label 'Malignant'" in message and "data.classes=('benign', 'malignant')" in message


def test_one_class_is_not_enough_to_train(table):
    assert "at least two classes" in error_of(table(["img/a.png,benign"], "image,label\n"), needs=("image",))


def test_a_split_given_for_some_rows_only_is_an_error(table):
    message = error_of(table(["img/a.png,img/a_m.png,benign,,train", "img/b.png,img/b_m.png,malignant,,"]))
    assert "line 3: no split, but other rows have one" in message


def test_repeated_case_ids_are_an_error(table):
    header = "image,label,case_id\n"
    assert "case_id 'x' is already in line 2" in error_of(
        table(["img/a.png,benign,x", "img/b.png,malignant,x"], header), needs=("image",)
    )


def test_empty_and_unreadable_tables_are_named(table, tmp_path):
    assert "no rows" in error_of(table([]))
    (tmp_path / "cases.csv").write_bytes(b"image,label\n\xff\xfe,x")
    assert "cannot be read as a UTF-8 CSV" in error_of(tmp_path / "cases.csv")


def test_prediction_needs_neither_labels_nor_classes(table):
    path = table(["img/a.png,img/a_m.png", "img/b.png,img/b_m.png"], "image,mask\n")
    source = open_source(path, predict=True, classes=("benign", "malignant"))
    assert [case.label for case in source.cases] == [-1, -1]
    assert source.classes == ("benign", "malignant") and source.has_masks


def test_class_folders_with_masks_beside_or_apart(tmp_path):
    for place in ("benign/a_mask.png", "benign/a_mask_1.png", "masks/malignant/b.png", "malignant/masks/c_mask.png"):
        write(tmp_path / place, 255)
    for place in ("benign/a.png", "malignant/b.png", "malignant/c.jpg"):
        write(tmp_path / place)
    (tmp_path / "benign" / ".DS_Store").write_text("x")
    source = open_source(tmp_path)
    assert [case.case_id for case in source.cases] == ["benign/a.png", "malignant/b.png", "malignant/c.jpg"]
    assert [case.label for case in source.cases] == [0, 1, 1]
    assert source.has_masks and source.read(2)["mask"].all()


def test_class_folders_that_are_not_asked_for_are_noted(tmp_path):
    for name in ("benign", "malignant", "normal"):
        write(tmp_path / name / "a.png")
    source = open_source(tmp_path, needs=("image",), classes=("benign", "malignant"))
    assert len(source) == 2
    assert source.notes == ["folders left out because data.classes does not name them: normal"]
    assert "no class folder cyst" in error_of(tmp_path, needs=("image",), classes=("benign", "cyst"))


def test_trees_list_missing_and_lone_masks(tmp_path):
    for place in ("benign/a.png", "malignant/b.png", "malignant/gone_mask.png"):
        write(tmp_path / place)
    message = error_of(tmp_path)
    assert "3 problems" in message and "benign/a.png: no mask" in message
    assert "malignant/gone_mask.png: a mask without an image named gone" in message


def test_the_same_name_with_two_suffixes_is_an_error(tmp_path):
    for place in ("benign/a.png", "benign/a.jpg", "malignant/b.png"):
        write(tmp_path / place)
    assert "benign/a.png: the same name as a.jpg" in error_of(tmp_path, needs=("image",))


def test_a_plain_folder_is_enough_for_prediction_only(tmp_path):
    for place in ("a.png", "a_mask.png", "b.png", "masks/b.png"):
        write(tmp_path / place)
    source = open_source(tmp_path, predict=True)
    assert [(case.case_id, case.label) for case in source.cases] == [("a.png", -1), ("b.png", -1)]
    assert source.has_masks
    assert "images outside a class folder" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"), [(None, "data.dir is not set"), ("gone.csv", "does not exist"), ("a.txt", "neither a .csv")]
)
def test_what_is_not_a_table_or_folder_is_refused(tmp_path, name, words):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=words):
        make_source({"source": "folder", "dir": name and str(tmp_path / name)})


def test_an_empty_folder_is_refused(tmp_path):
    assert "no images" in error_of(tmp_path)


def test_bad_pixels_are_an_error_of_that_case_alone(table, tmp_path):
    path = table(["img/a.png,img/a_m.png,benign,,", "img/b.png,img/b_m.png,malignant,,"])
    write(tmp_path / "img" / "b_m.png", 255, size=(19, 30))
    source = open_source(path)
    assert source.read(0)["mask"].sum() == 9
    with pytest.raises(UserError, match="b_m.png: the mask is 30 x 19 but its image .*b.png is 30 x 20"):
        source.read(1)


def test_the_fingerprint_follows_image_and_mask(table, tmp_path):
    path = table(["img/a.png,img/a_m.png,benign,,", "img/b.png,img/b_m.png,malignant,,"])
    before = open_source(path).fingerprint(0)
    assert open_source(path).fingerprint(0) == before != open_source(path).fingerprint(1)
    write(tmp_path / "img" / "a_m.png", 255)
    assert open_source(path).fingerprint(0) != before
