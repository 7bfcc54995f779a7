"""Two-view phantoms: portrait pictures with the chest wall on the left, the women and labels of the four-view ones."""

import numpy as np
import pytest

from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.phantom_pairs import PhantomPairsSource, make_pair
from jaxmed.data.splits import make_split
from jaxmed.errors import UserError

DATA = {"num_cases": 24, "phantom_size": 96}


@pytest.fixture(scope="module")
def source():
    return PhantomPairsSource(DATA)


def test_there_is_one_case_for_each_breast_of_the_women_that_has_both_views(source):
    studies = PhantomMammoSource(DATA).studies
    whole = {f"{study.study_id}:{side}": (study.label[k], study.birads[k], study.patient_id)
             for study in studies for k, side in enumerate(("left", "right"))
             if study.present[2 * k : 2 * k + 2].all()}  # fmt: skip
    found = {item.case_id: (item.label, item.birads, item.patient_id) for item in source.breasts}
    assert found == whole and len(whole) < 2 * len(studies)
    assert any("lack their CC or their MLO view" in note for note in source.notes)
    assert source.columns(0) == {"study_id": source.breasts[0].study_id, "side": source.breasts[0].side}


def test_pictures_are_portrait_16_bit_and_show_the_whole_breast_at_the_left(source):
    for row in range(12):
        for pixels in source.read(row).values():
            assert pixels.shape == (96, 72) and pixels.dtype == np.uint16 and pixels.max() > 30000
            assert not pixels[:, -2:].any()  # no breast is deeper than the picture is wide
            assert pixels[:, :8].mean() > 2 * pixels[:, -24:].mean()


def test_pixels_depend_on_seed_woman_side_and_visit_alone():
    pair = make_pair(0, 3, 1, 96)
    np.testing.assert_array_equal(make_pair(0, 3, 1, 96)["cc"], pair["cc"])
    others = [make_pair(0, 3, 0, 96), make_pair(1, 3, 1, 96), make_pair(0, 4, 1, 96), {"cc": pair["mlo"]}]
    assert all((other["cc"] != pair["cc"]).any() for other in others)
    prints = {PhantomPairsSource(DATA | given).fingerprint(0) for given in ({}, {"phantom_seed": 1}, {"phantom_size": 64})}
    assert len(prints) == 3


def test_both_breasts_of_a_woman_are_in_one_fold(source):
    data = {"test_fraction": 0.2, "val_fraction": 0.2}
    folds = [make_split(source, None, data, seed=0, fold=k, num_folds=3) for k in range(3)]
    held_out = [set(np.array(source.cases, object)[split.indices("test")].tolist()) for split in folds]
    women = [{case.patient_id for case in part} for part in held_out]
    assert not any(women[a] & women[b] for a in range(3) for b in range(a))
    assert sum(map(len, held_out)) == len(source)
    for split in folds:
        parts = [{source.cases[row].patient_id for row in split.indices(name)} for name in ("train", "val", "test")]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


@pytest.mark.parametrize("given", [{"num_cases": 0}, {"phantom_size": 32}, {"classes": ("benign", "malignant")}])
def test_what_a_phantom_cannot_be_is_refused(given):
    with pytest.raises(UserError, match="num_cases=|classes="):
        PhantomPairsSource(DATA | given)
