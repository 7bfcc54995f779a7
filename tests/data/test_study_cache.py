"""The decoded studies: pixels at network size, missing views, broken files by name, small pickles."""

import pickle

import cv2
import numpy as np
import pytest

from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.studies import VIEWS, FileStudySource, Study
from jaxmed.data.study_cache import build_study_cache, decode_study
from jaxmed.errors import UserError

PHANTOMS = PhantomMammoSource({"num_cases": 12, "phantom_size": 64})


def build(source, size, folder, **options):
    return build_study_cache(source, size, folder, log=lambda line: None, **options)


@pytest.fixture
def files(tmp_path):
    """Three studies of PNG files; the second is without L_MLO."""
    studies = []
    for name in ("a", "b", "c"):
        views = {}
        for view in VIEWS:
            picture = cv2.circle(np.zeros((40, 30), np.uint8), (0, 20), 14, 100 + ord(name), -1)
            picture[20, 4] = 255 - VIEWS.index(view)
            cv2.imwrite(str(tmp_path / f"{name}_{view}.png"), picture)
            views[view] = tmp_path / f"{name}_{view}.png"
        if name == "b":
            del views["L_MLO"]
        studies.append(Study(name, f"p{name}", views, (0, 1)))
    return FileStudySource(studies, (), {"size": 32})


def spoil(source, study="b", view="R_CC"):
    path = next(one.views[view] for one in source.studies if one.study_id == study)
    path.write_bytes(path.read_bytes()[:60])
    return path.name


def test_the_cache_holds_what_the_source_reads_at_network_size(tmp_path):
    small, native = build(PHANTOMS, 32, tmp_path), build(PHANTOMS, 64, tmp_path)
    assert small.path != native.path and (small.size, small.num_cases, small.skipped) == (32, 12, {})
    missing = 0
    for row in range(12):
        views, present = PHANTOMS.read(row)["views"], PHANTOMS.studies[row].present
        np.testing.assert_array_equal(native.load(row), views)
        means = views.reshape(4, 32, 2, 32, 2).mean((2, 4))  # half the size: means of 2 x 2 pixels
        assert np.abs(small.load(row) - means).max() <= 0.5
        assert small.load(row).any((1, 2)).tolist() == present.tolist()
        missing += (~present).sum()
    assert missing  # some views of these phantoms are not there


def test_a_finished_cache_is_opened_without_decoding(files, tmp_path, monkeypatch):
    first = build(files, 32, tmp_path / "cache")
    monkeypatch.setattr(files, "read", None)
    again = build(files, 32, tmp_path / "cache")
    assert again.path == first.path
    np.testing.assert_array_equal(again.load(1), first.load(1))


def test_a_broken_file_stops_the_run_and_is_named_with_its_study(files, tmp_path):
    name = spoil(files)
    with pytest.raises(UserError, match=rf"(?s)1 of 3 cases cannot be read:.*b: .*{name}.*data.skip_bad=True"):
        build(files, 32, tmp_path / "cache")
    assert list((tmp_path / "cache/decoded").iterdir()) == []


def test_a_broken_file_can_be_left_out_by_name(files, tmp_path):
    name, lines = spoil(files), []
    cache = build_study_cache(files, 32, tmp_path / "cache", skip_bad=True, log=lines.append)
    assert list(cache.skipped) == [1] and name in cache.skipped[1]
    assert any(line.startswith("left out: b: ") and name in line for line in lines)
    with pytest.raises(UserError, match=name):
        cache.load(1)
    np.testing.assert_array_equal(cache.load(2), files.read(2)["views"])
    with pytest.raises(UserError, match="1 of 3 cases"):  # the finished cache is there, but skipping was not asked for
        build(files, 32, tmp_path / "cache")


def test_a_file_that_is_gone_is_a_broken_file(files, tmp_path):
    files.studies[2].views["L_CC"].unlink()
    with pytest.raises(UserError, match="1 of 3 cases cannot be read:\n.*c_L_CC.png"):
        build(files, 32, tmp_path / "cache")


@pytest.mark.parametrize(("views", "message"), [
    (np.zeros((4, 8, 8), np.uint16), r"b: expected four uint8 views \[4, h, w\], got uint16 \[4, 8, 8\]"),
    (np.zeros((3, 8, 8), np.uint8), r"b: .*got uint8 \[3, 8, 8\]"),
    (np.zeros((4, 8, 8, 1), np.uint8), r"b: .*got uint8 \[4, 8, 8, 1\]"),
])
def test_pixels_of_the_wrong_kind_name_their_study(files, monkeypatch, views, message):
    monkeypatch.setattr(files, "read", lambda index: {"views": views})
    with pytest.raises(UserError, match=message):
        decode_study(files, 1, 32)


def test_another_file_makes_another_cache(files, tmp_path):
    before = build(files, 32, tmp_path / "cache").path
    path = files.studies[0].views["L_CC"]
    cv2.imwrite(str(path), cv2.imread(str(path), 0)[:, ::-1] // 2)
    assert build(files, 32, tmp_path / "cache").path != before


def test_pickling_leaves_the_pixels_behind(tmp_path):
    cache = build(PHANTOMS, 64, tmp_path)
    cache.load(0)
    assert len(pickle.dumps(cache)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).load(3), cache.load(3))
