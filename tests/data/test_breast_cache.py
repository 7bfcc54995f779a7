"""The decoded breasts: any shape, 8 or 16 bits, files decoded once, faults by name."""

import pickle

import numpy as np
import pytest

from jaxmed.data.breast import resize, to_uint8
from jaxmed.data.breast_cache import build_breast_cache, decode_pair
from jaxmed.data.breasts import PAIR
from jaxmed.data.phantom_pairs import PhantomPairsSource
from jaxmed.errors import UserError

SIZE = (96, 32)


@pytest.fixture
def source():
    return PhantomPairsSource({"num_cases": 4, "phantom_size": 96})


def build(source, folder, size=SIZE, **options):
    return build_breast_cache(source, size, folder, log=lambda line: None, **options)


@pytest.mark.parametrize("bits", [8, 16])
def test_the_cache_holds_both_views_at_network_size_with_their_gray_levels(source, tmp_path, bits):
    cache = build(source, tmp_path, bits=bits)
    assert (cache.size, cache.num_cases, cache.skipped, cache.dtype) == (SIZE, len(source), {}, f"uint{bits}")
    for row in range(len(source)):
        native, found = source.read(row), cache.load(row)
        assert found.shape == (2, *SIZE) and found.dtype == cache.dtype
        for view, pixels in zip(PAIR, found, strict=True):
            wanted = resize(native[view], SIZE)
            np.testing.assert_array_equal(pixels, wanted if bits == 16 else to_uint8(wanted))
    assert len(np.unique(cache.load(0))) > 256 or bits == 8  # areas are averaged before gray levels are cut to 8 bits


def test_pixels_are_mapped_from_a_file_of_the_promised_size(source, tmp_path):
    cache = build(source, tmp_path, bits=16)
    file = cache.path / "pixels.npy"
    cache.load(0)
    assert isinstance(cache._pixels, np.memmap)
    assert file.stat().st_size == 128 + len(source) * 2 * 96 * 32 * 2  # after numpy's header


def test_size_and_bits_make_other_caches_and_a_finished_one_is_not_decoded_again(source, tmp_path, monkeypatch):
    paths = [build(source, tmp_path, **given).path for given in ({}, {"bits": 16}, {"size": (32, 96)})]
    assert len(set(paths)) == 3
    monkeypatch.setattr(source, "read", None)
    assert build(source, tmp_path).path == paths[0]


def test_what_cannot_be_read_is_named(source, tmp_path, monkeypatch):
    read, bad = source.read, source.breasts[2].case_id
    views = {"cc": np.zeros((8, 8), np.uint8), "mlo": np.zeros((8, 8), np.uint16)}
    monkeypatch.setattr(source, "read", lambda index: views if index == 2 else read(index))
    with pytest.raises(UserError, match=rf"{bad}: expected cc uint16 \[h, w\], got uint8 \[8, 8\]"):
        decode_pair(source, 2, SIZE)
    cache = build(source, tmp_path, skip_bad=True)
    assert list(cache.skipped) == [2]
    with pytest.raises(UserError, match=bad):
        cache.load(2)
    with pytest.raises(UserError, match="data.bits=12: gray levels are kept with 8 or 16 bits"):
        build(source, tmp_path, bits=12)


def test_pickling_leaves_the_pixels_behind(source, tmp_path):
    cache = build(source, tmp_path)
    cache.load(0)
    again = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(cache)) < 1000 and again.size == SIZE
    np.testing.assert_array_equal(again.load(1), cache.load(1))
