"""Four-view phantoms: deterministic by index, consistent in both views and on both sides, with a stated mix of findings."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxmed.data import breast, phantom_mammo, phantom_mammo_lesion, phantom_mammo_tissue
from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.sources import make_study_source
from jaxmed.errors import UserError


@pytest.fixture(scope="module")
def source():
    return make_study_source({"source": "phantom_mammo", "num_cases": 400})


@pytest.fixture(scope="module")
def pixels(source):
    return [source.read(index)["views"] for index in range(24)]


def test_the_same_index_gives_the_same_bytes_in_any_order_and_any_set(source, pixels):
    other = PhantomMammoSource({"num_cases": 20})
    for index in (17, 3):
        np.testing.assert_array_equal(other.read(index)["views"], pixels[index])
    assert other.studies == source.studies[:20]
    assert other.fingerprint(3) == source.fingerprint(3) != source.fingerprint(4)
    assert PhantomMammoSource({"num_cases": 4, "phantom_seed": 1}).read(3)["views"].tolist() != pixels[3].tolist()


def test_a_birads_subset_leaves_studies_out_and_keeps_the_pixels_of_the_rest(source, pixels):
    part = PhantomMammoSource({"num_cases": 20, "birads_subset": (1, 5)})
    assert 0 < len(part) <= 20
    for index, study in enumerate(part.studies[:3]):
        number = [other.study_id for other in source.studies].index(study.study_id)
        np.testing.assert_array_equal(part.read(index)["views"], pixels[number])


def test_views_look_like_mammograms(source, pixels):
    for study, views in zip(source.studies, pixels, strict=False):
        assert views.shape == (4, 256, 256) and views.dtype == np.uint8
        for there, view in zip(study.present, views, strict=True):
            if there:
                assert breast.chest_wall(view) == "left"
                assert 0.15 < (view > 0).mean() < 0.7 and not view[:, -20:].any()
                assert 60 < view[view > 0].mean() < 170 and view[view > 0].std() > 15
            else:
                assert not view.any()


def test_the_pectoral_muscle_is_in_mlo_views_only():
    views = np.stack([phantom_mammo.make_views(0, index, 128) for index in range(0, 16, 2)])
    corner = views[:, :, :6, :12].mean((2, 3))
    assert (corner[:, [1, 3]] > 100).all() and (corner[:, [0, 2]] < 20).all()


def test_texture_has_a_power_law_spectrum():
    field = phantom_mammo_tissue.power_law(256, np.random.default_rng(0), 3)[2]
    power = np.abs(np.fft.fft2(field)) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256))) * 256
    rings = np.array([8, 12, 18, 27, 40, 60, 90])
    mean = [power[(f > 0.9 * ring) & (f < 1.1 * ring)].mean() for ring in rings]
    assert np.polyfit(np.log(rings), np.log(mean), 1)[0] == pytest.approx(-3, abs=0.2)


def test_every_8_studies_hold_7_patients_and_4_of_7_have_a_malignant_breast_on_either_side(source):
    for start in range(0, 400, 8):
        block = source.studies[start : start + 8]
        assert len({study.patient_id for study in block}) == 7
    everyone = [phantom_mammo.who(0, index).finding for index in range(4000)]
    share = np.mean([finding[1:] == "M" for finding in everyone])
    left = np.mean([finding == "LM" for finding in everyone])
    assert share == pytest.approx(4 / 7, abs=0.03) and left == pytest.approx(2 / 7, abs=0.03)


def test_a_second_visit_shows_the_same_finding_in_other_pictures(source, pixels):
    first, second = source.studies[6], source.studies[7]
    assert first.patient_id == second.patient_id
    for one, other in zip(first.label, second.label, strict=True):
        assert one == other or -1 in (one, other)
    assert (pixels[6] != pixels[7]).mean() > 0.2


def test_labels_and_birads_agree(source):
    labels = np.array([study.label for study in source.studies]).ravel()
    birads = np.array([study.birads for study in source.studies]).ravel()
    known = labels >= 0
    assert (known == (birads > 0)).all() and (labels[birads == 1] == 0).all()
    assert set(birads[known]) == {1, 2, 3, 4, 5} and min(np.bincount(birads[known])[1:]) >= 20
    lesion = birads > 1
    assert 0.85 < roc_auc_score(labels[lesion], birads[lesion]) < 0.985  # a reader is good, and not perfect


def test_some_studies_miss_views_and_a_missing_side_has_no_label(source):
    present = np.array([study.present for study in source.studies])
    assert 0.08 < (~present).any(1).mean() < 0.25
    assert present.any(1).all() and {1, 2, 3, 4} == set(present.sum(1))
    for study in source.studies:
        for side in (0, 1):
            assert (study.label[side] >= 0) == study.present[2 * side : 2 * side + 2].any()


def bare_scene(view, size=256):
    breast_ = phantom_mammo_tissue.sample_breast(np.random.default_rng(3))
    shape = phantom_mammo_tissue.sample_shape(breast_, view, np.random.default_rng(4))
    return phantom_mammo_tissue.make_scene(breast_, shape, np.zeros((size, size), np.float32), size)


@pytest.mark.parametrize("place", [(0.3, 0.6, 0.5), (0.7, -0.5, -0.4), (0.5, 0.0, 0.0)])
@pytest.mark.parametrize("size", [128, 256])
def test_a_lesion_lies_where_its_place_in_space_projects_in_both_views(place, size):
    lesion = replace(phantom_mammo_lesion.sample_lesion(np.random.default_rng(1), True), kind="mass", place=place)
    depths = []
    for view in ("CC", "MLO"):
        scene = bare_scene(view, size)
        before = scene.level.copy()
        phantom_mammo_lesion.insert(scene, lesion, np.random.default_rng(2))
        added = scene.level - before
        rows, columns = np.nonzero(added > 0.5 * added.max())
        x, y = scene.place(*place)
        assert np.hypot(columns.mean() - x, rows.mean() - y) < 0.02 * size
        skin = phantom_mammo_tissue.border(scene.shape, np.float32(y / size))
        depths.append(columns.mean() / size / skin)
    assert depths[0] == pytest.approx(depths[1], abs=0.06)  # as far from the nipple in one view as in the other


def test_the_two_breasts_of_a_woman_are_more_alike_than_those_of_two_women():
    def gland(index):
        views = phantom_mammo.make_views(0, index, 128).astype(float)
        return views[0, 40:88, 4:44].ravel(), views[2, 40:88, 4:44].ravel()

    pairs = [gland(index) for index in range(0, 40, 2)]
    own = np.mean([np.corrcoef(left, right)[0, 1] for left, right in pairs])
    other = np.mean([np.corrcoef(pairs[k][0], pairs[k - 1][1])[0, 1] for k in range(len(pairs))])
    assert own > other + 0.15


@pytest.mark.parametrize("attribute", ["spicules", "contrast", "waves", "calcifications", "variety", "radius"])
def test_no_attribute_alone_tells_malignant_from_benign(attribute):
    rng = np.random.default_rng(0)
    labels = np.arange(1500) % 2
    values = [getattr(phantom_mammo_lesion.sample_lesion(rng, bool(label)), attribute) for label in labels]
    assert 0.6 < roc_auc_score(labels, values) < 0.95


@pytest.mark.parametrize("wrong", [{"num_cases": 0}, {"phantom_size": 32}, {"classes": ("a", "b")}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=f"data.{next(iter(wrong))}"):
        PhantomMammoSource(wrong)


def test_other_names_have_no_studies():
    with pytest.raises(UserError, match="no four-view studies.*cmmd"):
        make_study_source({"source": "busi"})


def bumps(view):
    """How far the brightest spots of two sizes stand out of their surroundings, inside the breast and off its edges."""
    view = view.astype(np.float32)
    inside = cv2.erode((view > 12).astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=1)
    small, middle, large = (cv2.GaussianBlur(view, (0, 0), sigma) for sigma in (1.0, 4.0, 12.0))
    return [float(((small - middle) * inside).max()), float(((middle - large) * inside).max())]


def test_simple_features_find_malignant_breasts_but_not_all_of_them():
    """The stated difficulty's lower end; a small network must learn more than spots that stand out."""
    source = PhantomMammoSource({"num_cases": 240, "phantom_size": 128})
    features, labels = [], []
    for index, study in enumerate(source.studies):
        views = source.read(index)["views"]
        for side in (0, 1):
            if study.present[2 * side : 2 * side + 2].all():
                features.append(np.array(bumps(views[2 * side])) + bumps(views[2 * side + 1]))
                labels.append(study.label[side])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(model, np.array(features), labels, cv=5, method="predict_proba")[:, 1]
    assert 0.6 < roc_auc_score(labels, scores) < 0.9
