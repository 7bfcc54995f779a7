import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_source import FakeSource

from jaxmed.data import cache as cache_module
from jaxmed.data.cache import build_cache, resize_case
from jaxmed.data.similarity import thumbnail
from jaxmed.errors import UserError


def quiet(_):
    pass


def build(source, folder, size=24, **options):
    return build_cache(source, size, folder, log=quiet, **options)


def test_the_cache_holds_the_resized_image_and_mask(tmp_path):
    source = FakeSource(5)
    cache = build(source, tmp_path)
    for row in range(5):
        expected = resize_case(source.images[row], source.masks[row], 24)
        image, mask = cache.load(row)
        np.testing.assert_array_equal(image, expected[..., 0])
        np.testing.assert_array_equal(mask, expected[..., 1])
        np.testing.assert_array_equal(cache.thumbnails[row], thumbnail(source.images[row]))
    assert (cache.num_cases, cache.size, cache.skipped) == (5, 24, {})


def test_masks_stay_zero_and_one_and_lie_over_the_image():
    mask = np.zeros((90, 120), np.uint8)
    mask[30:60, 40:80] = 1
    small = resize_case(mask * 200, mask, 30)
    assert set(np.unique(small[..., 1])) == {0, 1}
    np.testing.assert_array_equal(small[..., 0] > 100, small[..., 1] > 0)


def test_every_case_is_decoded_once_and_never_again(tmp_path):
    source = FakeSource(6)
    for _ in range(2):  # two epochs of the first run
        cache = build(source, tmp_path)
        [cache.load(row) for row in range(6)]
    assert source.reads == 6
    second_run = FakeSource(6)
    build(second_run, tmp_path).load(0)
    assert second_run.reads == 0


def test_new_pixels_another_size_or_another_transform_make_another_cache(tmp_path, monkeypatch):
    source = FakeSource(3)
    paths = [build(source, tmp_path).path, build(source, tmp_path, size=16).path]
    source.images[1] = source.images[1] // 2
    paths.append(build(source, tmp_path).path)
    monkeypatch.setattr(cache_module, "TRANSFORM_VERSION", 99)
    paths.append(build(source, tmp_path).path)
    assert len(set(paths)) == 4


def test_a_source_without_masks_is_cached_without_them(tmp_path):
    source = FakeSource(3)
    source.has_masks = False
    cache = build(source, tmp_path)
    assert not cache.has_masks
    assert cache.path != build(FakeSource(3), tmp_path).path


def test_every_bad_file_is_listed_and_nothing_is_kept(tmp_path):
    source = FakeSource(5)
    source.bad = {1: "a.png: corrupt", 3: "b.png: 16 bit"}
    with pytest.raises(UserError, match="2 of 5 cases cannot be read") as error:
        build(source, tmp_path)
    assert "a.png: corrupt" in str(error.value) and "b.png: 16 bit" in str(error.value)
    assert "data.skip_bad=True" in str(error.value)
    assert list((tmp_path / "decoded").iterdir()) == []


def test_bad_files_can_be_left_out_by_name(tmp_path):
    source, lines = FakeSource(5), []
    source.bad = {1: "a.png: corrupt"}
    for _ in range(2):  # built, then opened
        cache = build_cache(source, 24, tmp_path, skip_bad=True, log=lines.append)
        assert cache.skipped == {1: "a.png: corrupt"}
    assert lines.count("left out: case 1: a.png: corrupt") == 2
    assert not cache.thumbnails[1].any()
    with pytest.raises(UserError, match="a.png: corrupt"):
        cache.load(1)
    with pytest.raises(UserError, match="1 of 5 cases cannot be read"):
        build(source, tmp_path)


def test_a_file_that_is_not_even_there_is_a_bad_file(tmp_path):
    source = FakeSource(2)
    source.fingerprint = lambda index: Path(tmp_path / "gone.png").read_bytes() and ""
    with pytest.raises(UserError, match="gone.png"):
        build(source, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda source: source.masks.__setitem__(1, source.masks[1][:-2]), "case 1: a mask of 56 x 38 for an image of 56 x 40"),
        (lambda source: source.images.__setitem__(0, source.images[0].astype(np.uint16)), "case 0: expected a uint8 gray"),
        (lambda source: source.images.__setitem__(0, np.zeros((4, 4, 4), np.uint8)), r"case 0: .*\[4, 4, 4\]"),
    ],
)
def test_pixels_of_the_wrong_kind_name_their_case(tmp_path, change, message):
    source = FakeSource(2)
    change(source)
    with pytest.raises(UserError, match=message):
        build(source, tmp_path)


def test_a_damaged_cache_is_built_again(tmp_path):
    source = FakeSource(4)
    path = build(source, tmp_path).path
    pixels = path / "pixels.npy"
    pixels.write_bytes(pixels.read_bytes()[:-100])
    cache = build(source, tmp_path)
    assert source.reads == 8
    np.testing.assert_array_equal(cache.load(3)[0], resize_case(source.images[3], None, 24)[..., 0])


def test_pickling_leaves_the_pixels_behind(tmp_path):
    source = FakeSource(4)
    cache = build(source, tmp_path, size=64)
    cache.load(0)
    assert len(pickle.dumps(cache)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cache)).load(2), cache.load(2))


def test_progress_tells_speed_and_time_left(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmed.data.reading._PROGRESS_SECONDS", 0.0)
    lines = []
    build_cache(FakeSource(4), 24, tmp_path, log=lines.append)
    assert "decoding 4 images" in lines[0]
    assert "1/4" in lines[1] and "images/s" in lines[1] and "s left" in lines[1]
    assert "4 images in" in lines[-1]


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    script = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_source import FakeSource
from jaxmed.data.cache import build_cache
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
build_cache(FakeSource(20), 64, {str(tmp_path)!r}, log=lambda line: None)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "UserError: image cache" in run.stderr and "no space left" in run.stderr
    assert "JAXMED_CACHE" in run.stderr
    assert list((tmp_path / "decoded").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "decoded").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot write"):
        build(FakeSource(2), tmp_path)


def test_the_soft_limit_of_this_process_was_not_touched():
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
