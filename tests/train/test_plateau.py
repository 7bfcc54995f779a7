import json
from pathlib import Path

from jaxmed.train.plateau import Plateau

TRACE = json.loads((Path(__file__).parents[1] / "golden/plateau_torch.json").read_text())


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
