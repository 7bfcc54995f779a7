import pytest

from jaxmed.errors import UserError
from jaxmed.train.early_stop import EarlyStop


def epochs_run(values, **options) -> int:
    """Epochs until it stops."""
    stop, best, stalled = EarlyStop(**options), float("-inf"), 0
    for epoch, value in enumerate(values, start=1):
        best, stalled = stop.after(value, best, stalled)
        if stop.stops(stalled):
            return epoch
    return len(values)


def test_it_stops_after_patience_epochs_that_are_not_better_by_more_than_the_threshold():
    assert epochs_run([0.1, 0.5, 0.502, 0.504, 0.504, 0.9], patience=3, min_delta=0.004) == 5
    assert epochs_run([0.1, 0.5, 0.502, 0.505, 0.504, 0.9], patience=3, min_delta=0.004) == 6  # 0.505 counts


def test_without_patience_it_never_stops():
    assert epochs_run([0.5] * 50) == 50


def test_negative_numbers_are_errors():
    for options in ({"patience": -1}, {"min_delta": -0.1}):
        with pytest.raises(UserError, match="config.early_stop"):
            EarlyStop(**options)
