"""BUSI-WHU's layouts, on synthetic trees (the originals were never at hand)."""

import cv2
import numpy as np
import pytest

from jaxmed.data.sources import make_source
from jaxmed.errors import UserError


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((30, 40), value, np.uint8))


def open_source(root):
    return make_source({"source": "busi_whu", "dir": str(root)}, needs=("image", "mask"))


def release(root):
    """The Mendeley release: img/ and gt/ under each split, names without a class."""
    for split, name, gray in (("train", "00001", 10), ("train", "10002-1", 20), ("test", "10002-2", 30)):
        write(root / split / "img" / f"{name}.bmp", gray)
        write(root / split / "gt" / f"{name}_anno.bmp", 255)


def test_the_release_with_a_labels_file(tmp_path):
    release(tmp_path)
    rows = ["image,label", "00001.bmp,benign", "10002-1.bmp,malignant", "10002-2.bmp,malignant"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    source = open_source(tmp_path)
    names = ["test/img/10002-2.bmp", "train/img/00001.bmp", "train/img/10002-1.bmp"]
    assert [case.case_id for case in source.cases] == names
    assert [case.label for case in source.cases] == [1, 0, 1]
    assert [case.patient_id for case in source.cases] == ["10002", "", "10002"]
    assert source.read(0)["image"][0, 0] == 30 and source.read(0)["mask"].all()


def test_the_release_alone_names_every_file_without_a_class(tmp_path):
    release(tmp_path)
    with pytest.raises(UserError, match=r"(?s)3 problems.*train/img/00001.bmp: no class.*labels.csv"):
        open_source(tmp_path)


def test_the_labelled_release_reads_the_class_from_the_file_name(tmp_path):
    for name in ("benign_0001", "malignant_0002"):
        write(tmp_path / "validation" / "images" / f"{name}.bmp", 10)
        write(tmp_path / "validation" / "masks" / f"{name}.bmp", 255)
    assert [case.label for case in open_source(tmp_path).cases] == [0, 1]


def test_class_folders_will_do(tmp_path):
    for name in ("benign", "malignant"):
        write(tmp_path / name / "images" / "7.png", 10)
        write(tmp_path / name / "masks" / "7.png", 255)
    source = open_source(tmp_path)
    assert [case.label for case in source.cases] == [0, 1]
    assert "check these counts" in source.notes[-1]


def test_missing_masks_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match="no images in folders"):
        open_source(tmp_path)
    write(tmp_path / "benign" / "images" / "7.png", 10)
    write(tmp_path / "malignant" / "images" / "8.png", 10)
    with pytest.raises(UserError, match=r"(?s)2 problems.*benign/images/7.png: no mask.*malignant/images/8.png: no"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="data.dir.*is not a folder.*k6cpmwybk3"):
        open_source(tmp_path / "missing")
