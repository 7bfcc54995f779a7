import json
from pathlib import Path

import pytest

from jaxmed.config import base_config
from jaxmed.errors import UserError
from jaxmed.train.plateau import Plateau
from jaxmed.train.rates import Rates

GOLDEN = Path(__file__).parents[1] / "golden"
TRACE = json.loads((GOLDEN / "plateau_torch.json").read_text())
TRACE_MAX = json.loads((GOLDEN / "plateau_torch_max.json").read_text())


def test_learning_rates_equal_a_stored_torch_trace():
    plateau = Plateau(5e-5, factor=0.5, patience=3, min_lr=1e-6)
    assert [plateau.update(loss) for loss in TRACE["loss"]] == TRACE["lr"]
    assert len(set(TRACE["lr"])) > 4  # the trace does exercise reductions


def test_a_plateau_restored_in_the_middle_goes_on_the_same():
    first = Plateau(5e-5)
    for loss in TRACE["loss"][:25]:
        first.update(loss)
    second = Plateau(1.0)
    second.restore(json.loads(json.dumps(first.state())))
    assert [second.update(v) for v in TRACE["loss"][25:]] == TRACE["lr"][25:]


def test_the_floor_is_never_crossed():
    plateau = Plateau(5e-5, min_lr=1e-6)
    for _ in range(200):
        plateau.update(1.0)
    assert plateau.lr == 1e-6 or 1e-6 <= plateau.lr < 2e-6


def test_a_score_to_be_raised_follows_torchs_trace_with_its_relative_threshold():
    scores, plateau = TRACE_MAX["value"], Plateau(1e-4, factor=0.5, patience=3, min_lr=1e-6, mode="max")
    assert [plateau.update(score) for score in scores] == TRACE_MAX["lr"]
    keen = Plateau(1e-4, mode="max", threshold=0.0)  # the trace has ties, and gains below the threshold
    assert [keen.update(score) for score in scores] != TRACE_MAX["lr"]


def test_epochs_of_a_cooldown_do_not_count_as_bad_also_after_a_resume():
    def epochs_of_cuts(cooldown, resume_at=0):
        plateau, cuts = Plateau(1.0, factor=0.5, patience=2, min_lr=0.0, cooldown=cooldown), []
        for epoch in range(1, 16):
            if epoch == resume_at:
                plateau, old = Plateau(1.0, factor=0.5, patience=2, min_lr=0.0, cooldown=cooldown), plateau
                plateau.restore(json.loads(json.dumps(old.state())))
            before = plateau.lr
            cuts += [epoch] if plateau.update(1.0) < before else []
        return cuts

    assert epochs_of_cuts(0) == [4, 7, 10, 13]  # the first epoch is the best, then three bad ones each time
    assert epochs_of_cuts(2) == epochs_of_cuts(2, resume_at=6) == [4, 9, 14]


def test_on_another_schedule_it_is_a_factor():
    config = base_config()
    config.optimizer.update(schedule="cosine", learning_rate=3e-4)
    config.plateau.update(factor=0.55, patience=0, min_lr=0.005, on_schedule=True)
    rates, plain = Rates(config, 100), base_config()
    plain.optimizer.update(schedule="cosine", learning_rate=3e-4)
    for value in (1.0, 1.0, 1.0):
        rates.end_epoch(value)
    want = Rates(plain, 100).at(30)["learning_rate"] * 0.55**2
    assert rates.at(30)["learning_rate"] == pytest.approx(want, rel=1e-12)


def test_an_unknown_mode_is_refused():
    with pytest.raises(UserError, match="config.plateau.mode='best' is neither 'min' nor 'max'"):
        Plateau(1e-4, mode="best")
