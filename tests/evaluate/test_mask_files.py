import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.evaluate.mask_files import CaseMasks, read_mask_files, write_mask_files


def case(name: str, seed: int) -> CaseMasks:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (5, 7), dtype=np.uint8)
    return CaseMasks(name, "test", picture, *(rng.random((2, 5, 7)) < 0.5))


def test_masks_and_pictures_come_back_bit_for_bit_under_names_that_are_no_file_names(tmp_path):
    cases = [case("benign (1)", 0), case("train/a, b.png", 1)]
    write_mask_files(tmp_path, cases)
    found = [file.load() for file in read_mask_files(tmp_path)]
    for got, wanted in zip(found, cases, strict=True):
        assert (got.case_id, got.split) == (wanted.case_id, wanted.split)
        for name in ("picture", "predicted", "true"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name), strict=True)


def test_writing_again_leaves_no_mask_of_the_older_evaluation(tmp_path):
    write_mask_files(tmp_path, [case("a", 0), case("b", 1)])
    write_mask_files(tmp_path, [case("c", 2)])
    assert [file.case_id for file in read_mask_files(tmp_path)] == ["c"]
    assert len(list((tmp_path / "masks").iterdir())) == 3


def test_a_workdir_without_masks_has_none_and_a_lost_file_is_named(tmp_path):
    assert read_mask_files(tmp_path) == []
    write_mask_files(tmp_path, [case("a", 0)])
    (tmp_path / "masks/0001.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"0001\.png cannot be read"):
        read_mask_files(tmp_path)[0].load()
