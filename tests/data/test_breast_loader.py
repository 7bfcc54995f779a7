"""Breasts as elements of a batch, and through the pipeline."""

import pickle

import numpy as np
import pytest

from jaxmed.data.breast_cache import build_breast_cache
from jaxmed.data.breast_loader import BreastLoader
from jaxmed.data.phantom_pairs import PhantomPairsSource
from jaxmed.data.pipeline import PADDING, Pipeline
from jaxmed.errors import UserError

SIZE, AUGMENT = (48, 32), {"degrees": 10.0, "hflip": 0.5}


@pytest.fixture(scope="module")
def source():
    return PhantomPairsSource({"num_cases": 4, "phantom_size": 64})


@pytest.fixture(scope="module", params=[8, 16])
def make(source, request, tmp_path_factory):
    cache = build_breast_cache(source, SIZE, tmp_path_factory.mktemp("cache"), bits=request.param, log=lambda line: None)
    labels = np.array([case.label for case in source.cases])
    return lambda augment=None: BreastLoader(cache, labels, augment)


def test_an_element_holds_both_views_and_the_label_of_its_row(make, source):
    load = make()
    for row in range(len(source)):
        element = load(row)
        np.testing.assert_array_equal(np.stack([element["cc"], element["mlo"]])[..., 0], load.cache.load(row))
        assert (element["label"], element["case_id"], element["weight"]) == (source.breasts[row].label, row, 1)


def test_padding_is_black_and_of_the_same_kind(make):
    padding, real = make(AUGMENT)(PADDING, np.random.default_rng(0)), make()(0)
    assert {k: (v.dtype, v.shape) for k, v in padding.items()} == {k: (v.dtype, v.shape) for k, v in real.items()}
    assert not padding["cc"].any() and not padding["mlo"].any() and (padding["label"], padding["weight"]) == (-1, 0)


def test_a_flip_turns_both_views_and_nothing_happens_without_options(make):
    load = make({"hflip": 1.0})
    plain, turned = load.plain()(0), load(0, np.random.default_rng(0))
    for view in ("cc", "mlo"):
        np.testing.assert_array_equal(turned[view], plain[view][:, ::-1])
    off = make({"degrees": 0.0, "translate": 0.0, "scale": 0.0, "hflip": 0.0, "flip_views": False})
    np.testing.assert_array_equal(off(0, np.random.default_rng(0))["mlo"], plain["mlo"])


def test_a_run_resumes_at_the_same_augmented_batch(make, source):
    def batch(start, ahead):
        with Pipeline(make(AUGMENT), seed=7, workers=0).train(range(len(source)), 2, start=start) as batches:
            return [next(batches) for _ in range(ahead + 1)][-1]

    whole, resumed = batch(0, 3), batch(3, 0)
    for key in whole:
        np.testing.assert_array_equal(whole[key], resumed[key], err_msg=key)


def test_a_breast_without_label_cannot_be_trained_on(make):
    load = make()
    load.labels[1] = -1
    with pytest.raises(UserError, match="breast 1 has no label"):
        load.check_trainable(np.array([0, 1]))
    assert len(pickle.dumps(make(AUGMENT))) < 2000
