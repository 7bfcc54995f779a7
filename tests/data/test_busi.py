"""BUSI's published layout becomes records, once, and cases."""

import cv2
import numpy as np
import pytest

from jaxmed.data import busi
from jaxmed.data.sources import make_source
from jaxmed.errors import UserError


def write(path, value, box=None, size=(40, 50)):
    pixels = np.full(size, value, np.uint8)
    if box:
        pixels[box] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def tree(tmp_path):
    """Three classes with two images each; benign (2) has two masks; names of two digits test the order."""
    root = tmp_path / "Dataset_BUSI_with_GT"
    for name, box in (("benign", np.s_[5:10, 5:15]), ("malignant", np.s_[9:30, 9:20]), ("normal", None)):
        for number, gray in ((2, 60), (10, 90)):
            write(root / name / f"{name} ({number}).png", gray)
            write(root / name / f"{name} ({number})_mask.png", 0, box)
    write(root / "benign" / "benign (2)_mask_1.png", 0, np.s_[20:24, 30:34])
    return root


def open_source(root, **data):
    return make_source({"source": "busi", "dir": str(root), **data}, needs=("image", "mask"))


def test_cases_are_the_images_of_the_classes_in_order(tree):
    source = open_source(tree)
    assert [case.case_id for case in source.cases] == ["benign (2)", "benign (10)", "malignant (2)", "malignant (10)"]
    assert [case.label for case in source.cases] == [0, 0, 1, 1]
    assert source.classes == ("benign", "malignant")
    assert source.notes == ["busi: 2 benign, 2 malignant", "1 images have several masks: united"]


def test_pixels_come_back_and_several_masks_are_united(tree):
    source = open_source(tree)
    pixels = source.read(0)
    assert pixels["image"].shape == (40, 50) and (pixels["image"] == 60).all()
    assert pixels["mask"].sum() == 5 * 10 + 4 * 4
    assert pixels["mask"][22, 32] == pixels["mask"][6, 6] == 1
    assert source.read(3)["mask"].sum() == 21 * 11


def test_normal_images_join_with_empty_masks(tree):
    source = open_source(tree, classes=("normal", "benign", "malignant"))
    assert [case.label for case in source.cases] == [0, 0, 1, 1, 2, 2]
    assert source.read(0)["mask"].sum() == 0


def test_the_parent_folder_will_do(tree):
    assert open_source(tree.parent).cases == open_source(tree).cases


def test_records_are_written_once_and_again_when_the_folder_changes(tree, capsys):
    before = open_source(tree)
    assert "preparing" in capsys.readouterr().out
    assert open_source(tree).fingerprint(0) == before.fingerprint(0)
    assert capsys.readouterr().out == ""
    write(tree / "benign" / "benign (2).png", 61)
    write(tree / "benign" / "benign (11).png", 70)
    write(tree / "benign" / "benign (11)_mask.png", 0, np.s_[1:3, 1:3])
    after = open_source(tree)
    assert len(after) == 5
    assert after.read(0)["image"][0, 0] == 61
    assert after.fingerprint(0) != before.fingerprint(0)
    assert after.fingerprint(1) == before.fingerprint(1)


def test_a_failed_preparation_leaves_nothing_behind(tree, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(busi.records, "example", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_source(tree, cache_dir=str(tmp_path / "cache"))
    assert list((tmp_path / "cache" / "records").iterdir()) == []


@pytest.mark.parametrize("folder", [None, "", "/does/not/exist"])
def test_a_missing_folder_says_where_busi_comes_from(folder):
    with pytest.raises(UserError, match="data.dir.*Al-Dhabyani.*Data in Brief 2020"):
        make_source({"source": "busi", "dir": folder})


def test_a_folder_without_busi_is_refused(tmp_path):
    with pytest.raises(UserError, match="no subfolder benign/"):
        open_source(tmp_path)
    (tmp_path / "benign").mkdir()
    with pytest.raises(UserError, match="no images named like"):
        open_source(tmp_path)


def test_every_image_without_a_mask_is_named(tree):
    (tree / "benign" / "benign (10)_mask.png").unlink()
    (tree / "malignant" / "malignant (2)_mask.png").unlink()
    with pytest.raises(UserError, match=r"2 images have no mask file: benign \(10\), malignant \(2\)"):
        open_source(tree)


def test_a_mask_without_image_and_a_foreign_name_are_errors(tree):
    (tree / "benign" / "benign (10).png").unlink()
    with pytest.raises(UserError, match=r"1 masks have no image: benign \(10\)"):
        open_source(tree)
    write(tree / "benign" / "copy of benign.png", 3)
    with pytest.raises(UserError, match="copy of benign.png: not a name of BUSI's layout"):
        open_source(tree)


def test_bad_pixels_are_an_error_of_that_case_alone(tree):
    (tree / "benign" / "benign (10).png").write_bytes(b"\x89PNG broken")
    write(tree / "malignant" / "malignant (2)_mask.png", 255, size=(39, 50))
    source = open_source(tree)
    assert source.read(0)["image"].shape == (40, 50)
    with pytest.raises(UserError, match=r"benign \(10\).png: not a readable"):
        source.read(1)
    with pytest.raises(UserError, match=r"malignant \(2\)_mask.png: the mask is 50 x 39 but .* is 50 x 40"):
        source.read(2)


def test_masks_of_one_image_must_agree_in_size(tree):
    write(tree / "benign" / "benign (2)_mask_1.png", 255, size=(39, 50))
    with pytest.raises(UserError, match=r"benign \(2\)_mask_1.png: the mask is 50 x 39"):
        open_source(tree)


def test_the_published_set_has_its_published_counts(busi_dir):
    source = open_source(busi_dir, classes=("normal", "benign", "malignant"))
    assert source.notes == ["busi: 133 normal, 437 benign, 210 malignant", "17 images have several masks: united"]
    pixels = source.read(next(k for k, case in enumerate(source.cases) if case.case_id == "malignant (145)"))
    assert pixels["image"].shape == pixels["mask"].shape
    assert 0 < pixels["mask"].mean() < 0.9
