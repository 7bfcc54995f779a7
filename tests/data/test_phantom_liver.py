"""Liver phantoms: deterministic, sectors on black, lesions that tell benign from malignant, but not all of them."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmed.data import phantom_lesion, phantom_liver, phantom_liver_lesion
from jaxmed.data.phantom_liver import PhantomLiverSource, who
from jaxmed.data.phantom_liver_scan import Sector
from jaxmed.data.similarity import similar_pairs, thumbnail
from jaxmed.data.sources import make_source
from jaxmed.errors import UserError

SECTOR = Sector(radius=50, depth=120, half=0.6, side=140, shift=0, top=5, size=140)


@pytest.fixture(scope="module")
def source():
    return make_source({"source": "phantom_liver", "num_cases": 96})


@pytest.fixture(scope="module")
def pixels(source):
    return [source.read(index)["image"] for index in range(len(source))]


def test_the_same_index_gives_the_same_bytes_in_any_order_and_any_set(source, pixels):
    other = PhantomLiverSource({"num_cases": 40})
    for index in (31, 3, 17, 3):
        np.testing.assert_array_equal(other.read(index)["image"], pixels[index])
    assert other.cases == source.cases[:40]
    assert other.fingerprint(3) == source.fingerprint(3) != source.fingerprint(4)


def test_another_seed_gives_another_set(source, pixels):
    other = PhantomLiverSource({"num_cases": 4, "phantom_seed": 1})
    assert (other.read(0)["image"] != pixels[0]).any() and other.fingerprint(0) != source.fingerprint(0)


def test_images_are_what_a_source_promises(source, pixels):
    assert not source.has_masks and source.classes == ("benign", "malignant")
    for image in pixels:
        assert image.shape == (160, 160) and image.dtype == np.uint8
        assert 20 < image.mean() < 120 and image.std() > 15
        assert 0.4 < (image > 0).mean() < 0.95  # the sector, and black beside it


def test_every_16_cases_hold_8_of_each_class_and_patients_with_one_to_three_images(source):
    for start in range(0, len(source), 16):
        block = source.cases[start : start + 16]
        assert sum(case.label for case in block) == 8
        patients = [case.patient_id for case in block]
        assert sorted(patients.count(name) for name in set(patients)) == [1] * 6 + [2] * 2 + [3] * 2
        assert len({(case.patient_id, case.label) for case in block}) == 10
    assert len({case.patient_id for case in source.cases}) == 60
    assert len({who(0, index) for index in range(96)}) == 96


def test_no_two_patients_look_like_duplicates(source, pixels):
    pairs = similar_pairs(np.stack([thumbnail(image) for image in pixels]), 0.95)
    names = [(source.cases[a].patient_id, source.cases[b].patient_id) for a, b, _ in pairs]
    assert all(first == second for first, second in names)


def test_images_of_a_patient_are_different_pictures(source, pixels):
    seen = {}
    for index, case in enumerate(source.cases):
        if case.patient_id in seen:
            assert (pixels[seen[case.patient_id]] != pixels[index]).mean() > 0.5
        seen[case.patient_id] = index


def test_scan_conversion_undoes_the_beams():
    """A smooth picture sampled along the beams and converted back is the same inside the sector and black outside."""
    grid = np.linspace(0, 3, SECTOR.size)
    picture = (120 + 60 * np.sin(grid)[:, None] * np.cos(grid)[None]).astype(np.float32)
    back = SECTOR.to_picture(SECTOR.to_beams(picture).astype(np.uint8))
    z, x = np.mgrid[: SECTOR.size, : SECTOR.size] + 0.5  # 1 mm per pixel
    across, down = x - SECTOR.centre[0], z - SECTOR.centre[1]
    distance, angle = np.hypot(across, down), np.abs(np.arctan2(across, down))
    whole = (x > 2) & (x < 138) & (z < 138)  # at the picture's border the beams leave it
    inside = (distance > 53) & (distance < 167) & (angle < 0.58) & whole
    outside = (distance < 48) | (distance > 172) | (angle > 0.63)
    assert inside.mean() > 0.5 and outside.mean() > 0.1
    assert np.abs(back[inside] - picture[inside]).max() <= 2
    assert (back[outside] == 0).all()


def test_a_point_lies_at_its_reach_and_angle():
    np.testing.assert_allclose(SECTOR.point(0, 0), [70, 5 + 50 * (1 - np.cos(0.6))])
    corner = SECTOR.point(0, -1)
    np.testing.assert_allclose(corner, [70 - 50 * np.sin(0.6), 5])
    assert SECTOR.point(1, 0)[1] - SECTOR.point(0, 0)[1] == pytest.approx(120)


def lesion_of(**attributes):
    lesion = phantom_liver_lesion.sample_lesion(np.random.default_rng(0), False)
    return replace(lesion, diameter=30.0, aspect=1.0, lobulation=0.0, spicules=0, texture=0.0, **attributes)


@pytest.mark.parametrize(("attenuation", "halo"), [(-0.2, 0.0), (0.1, 6.0)])
def test_a_lesion_changes_its_place_its_rim_and_what_lies_behind(attenuation, halo):
    lesion = lesion_of(echo=-12.0, halo=halo, attenuation=attenuation, border=0.6)
    rng = np.random.default_rng(0)
    points = phantom_lesion.outline(lesion, rng) + SECTOR.point(0.4, 0)
    level, mirrors = np.full((140, 140), -9, np.float32), np.zeros((280, 140), np.float32)
    loss = phantom_liver_lesion.insert(level, mirrors, points, lesion, SECTOR, rng)
    row, column = int(0.4 * 140), 70
    assert level[row, column] == pytest.approx(-21, abs=0.5)
    assert level[row, 5] == pytest.approx(-9, abs=1e-3)
    rim = level[row - 35 : row, column].min()
    assert rim < -24 if halo else rim == pytest.approx(-21, abs=0.5)
    assert loss[135, column] == pytest.approx(30 * attenuation, rel=0.08)  # 30 mm of it
    assert abs(loss[5, column]) < 0.05 and abs(loss[135, 5]) < 0.05


def test_lesions_lie_inside_the_picture():
    for patient in range(40):
        rng = np.random.default_rng(patient)
        sector = phantom_liver.sample_sector(rng, 160)
        lesion = phantom_liver_lesion.sample_lesion(rng, bool(patient % 2))
        middle = phantom_liver_lesion.place(phantom_lesion.outline(lesion, rng), sector, 20.0, rng).mean(0) / sector.side
        assert (0.05 < middle).all() and (middle < 0.95).all()


def test_cysts_are_mostly_benign_and_bright_lesions_more_often_than_dark_ones():
    def share(malignant, low, high):
        rng = np.random.default_rng(1)
        echoes = np.array([phantom_liver_lesion.sample_lesion(rng, malignant).echo for _ in range(800)])
        return ((low < echoes) & (echoes < high)).mean()

    assert share(False, -40, -15) > 0.3 > 0.1 > share(True, -40, -15) > 0
    assert share(False, 0, 20) > 1.5 * share(True, 0, 20) > 0.1
    assert share(True, -15, 0) > 2 * share(False, -15, 0) > 0.1


@pytest.mark.parametrize("wrong", [{"num_cases": 0}, {"phantom_size": 32}, {"classes": ("malignant", "benign")}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=f"data.{next(iter(wrong))}"):
        PhantomLiverSource(wrong)


def test_systems_that_need_masks_cannot_use_them():
    with pytest.raises(UserError, match="'phantom_liver' has no masks"):
        make_source({"source": "phantom_liver", "num_cases": 16}, needs=("image", "mask"))
