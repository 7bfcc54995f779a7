"""Studies as elements of a batch, and through the pipeline."""

import pickle

import numpy as np
import pytest

from jaxmed.data.augment_views import DEFAULT
from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.pipeline import PADDING, Pipeline
from jaxmed.data.studies import Study, StudySource
from jaxmed.data.study_cache import build_study_cache
from jaxmed.data.study_loader import TARGETS, StudyLoader, study_targets
from jaxmed.errors import UserError

COUNT = 11


@pytest.fixture(scope="module")
def source():
    return PhantomMammoSource({"num_cases": COUNT, "phantom_size": 64})


@pytest.fixture(scope="module")
def cache(source, tmp_path_factory):
    return build_study_cache(source, 32, tmp_path_factory.mktemp("cache"), log=lambda line: None)


@pytest.fixture(scope="module")
def make(source, cache):
    """A loader of the phantoms, perhaps with other targets."""
    present = np.stack([study.present for study in source.studies])
    return lambda augment=None, **targets: StudyLoader(cache, study_targets(source) | targets, present, augment)


def test_an_element_holds_the_study_of_its_row(make, source, cache):
    for row in range(COUNT):
        element, study = make()(row), source.studies[row]
        np.testing.assert_array_equal(element["views"][..., 0], cache.load(row))
        assert element["present"].tolist() == study.present.tolist()
        assert (int(element["left_label"]), int(element["right_label"])) == study.label
        assert [int(element[f"{side}_birads"]) for side in ("left", "right")] == [max(k - 1, -1) for k in study.birads]
        assert (int(element["case_id"]), float(element["weight"])) == (row, 1.0)


def test_batches_have_the_promised_keys_shapes_and_types(make):
    with Pipeline(make(DEFAULT), seed=0, workers=0).train(range(COUNT), 4) as batches:
        batch = next(batches)
    assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
        "views": ("uint8", (4, 4, 32, 32, 1)), "present": ("bool", (4, 4)), **dict.fromkeys(TARGETS, ("int32", (4,))),
        "case_id": ("int32", (4,)), "weight": ("float32", (4,)),
    }  # fmt: skip


def test_targets_are_minus_one_where_nothing_is_known():
    views = {"L_CC": "x", "R_CC": "x"}
    studies = [Study("a", "p", views, (1, -1), (5, 2)), Study("b", "q", {"R_CC": "x"}, (1, 0), (5, 1))]
    targets = study_targets(StudySource(studies, (), {"birads_subset": (1, 5)}, predict=True))
    assert {name: values.tolist() for name, values in targets.items()} == {
        "left_label": [1, -1], "right_label": [-1, 0], "left_birads": [1, -1], "right_birads": [-1, 0],
    }  # fmt: skip


def test_padding_is_black_without_views_targets_and_weight(make):
    element, real = make(DEFAULT)(PADDING, np.random.default_rng(0)), make()(0)
    assert {key: (value.dtype, value.shape) for key, value in element.items()} == {
        key: (value.dtype, value.shape) for key, value in real.items()
    }
    assert not element["views"].any() and not element["present"].any() and element["weight"] == 0
    assert {int(element[name]) for name in (*TARGETS, "case_id")} == {-1}


def test_evaluation_shows_every_study_once_without_augmentation(make, cache):
    batches = list(Pipeline(make(DEFAULT), seed=0, workers=0).evaluate(range(COUNT), 4))
    rows = np.concatenate([batch["case_id"] for batch in batches])
    assert rows.tolist() == [*range(COUNT), PADDING]
    views = np.concatenate([batch["views"] for batch in batches])[:COUNT, ..., 0]
    np.testing.assert_array_equal(views, np.stack([cache.load(row) for row in range(COUNT)]))


def test_a_run_resumes_at_the_same_augmented_batch(make):
    def batch(start, ahead):
        with Pipeline(make(DEFAULT), seed=7, workers=0).train(range(COUNT), 4, start=start) as batches:
            return [next(batches) for _ in range(ahead + 1)][-1]

    whole, resumed = batch(0, 3), batch(3, 0)
    for key in whole:
        np.testing.assert_array_equal(whole[key], resumed[key], err_msg=key)


def test_a_study_without_any_target_cannot_be_trained_on_and_is_named(make):
    targets = {name: np.zeros(COUNT, np.int32) for name in TARGETS}
    for values in targets.values():
        values[3] = -1
    pipeline = Pipeline(make(**targets), seed=0, workers=0)
    with pytest.raises(UserError, match="study 3 has neither a label nor a BI-RADS category"):
        pipeline.train([1, 3], 2)
    pipeline.train([1, 2], 2).close()
    assert len(list(pipeline.evaluate([1, 3], 2))) == 1


def test_one_known_target_of_one_breast_is_enough(make):
    targets = {name: np.full(COUNT, -1, np.int32) for name in TARGETS}
    targets["right_birads"][3] = 0
    make(**targets).check_trainable(np.array([3]))


def test_bad_augmentation_is_refused_before_the_first_batch(make):
    with pytest.raises(UserError, match="augment.vflip is unknown for views"):
        make({"vflip": 0.5})


def test_what_a_worker_receives_is_small(make):
    load = make(DEFAULT)
    load(0, np.random.default_rng(0))
    assert len(pickle.dumps(load)) < 2500
