import pickle

import numpy as np
import pytest

from jaxmed.data.pipeline import Pipeline
from jaxmed.data.sampler import epoch_cases, inverse_counts, weighted_rows
from jaxmed.errors import UserError

LABELS = np.array([0] * 8 + [1] * 2 + [2] * 5)
ROWS = np.arange(100, 115)


class Plain:
    """A loader that hands rows through, with a number drawn for augmentation."""

    size_bytes, skipped = 1, {}

    def __call__(self, row, rng):
        return {"case_id": np.int32(row), "draw": rng.random()}


def draws(count, seed=3, labels=LABELS):
    data = weighted_rows(ROWS, inverse_counts(labels), seed)
    return np.array([data[k] for k in range(count)])


def batches(count, start=0, process=(0, 1)):
    pipeline = Pipeline(Plain(), seed=0, workers=0, process=process)
    elements = weighted_rows(ROWS, inverse_counts(LABELS), 3).random_map(Plain(), seed=5)
    own = pipeline._own_batches(elements, 6)[start:]
    return [own[k] for k in range(count)]


def test_every_class_comes_equally_often_and_its_cases_too():
    chance = inverse_counts(LABELS)
    np.testing.assert_allclose([chance[LABELS == k].sum() for k in range(3)], 1 / 3)
    seen = np.bincount(draws(12000) - 100, minlength=15) / 12000
    assert np.abs(seen - chance).max() < 4 * np.sqrt(chance.max() / 12000)  # four standard deviations


def test_a_case_may_come_twice_in_a_row_and_another_seed_draws_others():
    drawn = draws(2000)
    assert (drawn[1:] == drawn[:-1]).mean() == pytest.approx((inverse_counts(LABELS) ** 2).sum(), abs=0.025)
    assert (drawn == draws(2000, seed=4)).mean() < 0.2


def test_a_draw_depends_on_its_position_alone():
    data = weighted_rows(ROWS, inverse_counts(LABELS), 3)
    later = pickle.loads(pickle.dumps(data))[500:]  # another process that starts at 500
    assert [later[k] for k in range(20)] == draws(520)[500:].tolist()
    assert data[10**12] in ROWS


def test_a_resumed_run_and_two_processes_see_the_same_batches():
    whole = batches(6)
    for batch, again in zip(whole[2:], batches(4, start=2), strict=True):
        np.testing.assert_array_equal(batch["case_id"], again["case_id"])
        np.testing.assert_array_equal(batch["draw"], again["draw"])
    halves = [batches(6, process=(index, 2)) for index in (0, 1)]
    for batch, one, two in zip(whole, *halves, strict=True):
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([one[key], two[key]]))


def test_an_epoch_is_twice_the_cases():
    assert epoch_cases(11244) == 22488 and epoch_cases(7, 1.5) == 11


def test_cases_without_label_are_errors():
    with pytest.raises(UserError, match="each with a label"):
        inverse_counts(np.array([0, -1]))
