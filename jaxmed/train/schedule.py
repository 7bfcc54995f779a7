"""Learning rates that follow from the step number alone, so that a resumed run needs no schedule state.

The train step takes the rate as an argument, on the host and in double precision; it never recompiles.
"""

import math

from ml_collections import ConfigDict

from jaxmed.errors import UserError

HIGH, LOW = 0.95, 0.85  # torch's OneCycleLR for Adam's first beta


def learning_rate(config: ConfigDict, step: int, total: int) -> float:
    """The rate of update number `step` (0 to total - 1) of a run of `total` updates.

    `config.schedule` "one_cycle": cosine from 0 to `config.learning_rate` over the first `config.pct_start` of the updates,
    cosine back to 0 (torch's OneCycleLR with div_factor inf: the first and the last update have rate 0). "cosine": from
    the full rate at step 0 towards `config.min_learning_rate`, which update number `total` would have; with `config.warmup`
    the rate first rises in equal steps over that part of the updates, and the cosine takes the rest. "constant".

    Raises:
        UserError: an unknown schedule, or a part of the run that is none.
    """
    peak = float(config.learning_rate)
    if config.schedule == "one_cycle":
        return one_cycle(step, total, config.pct_start, 0.0, peak)
    if config.schedule == "cosine":
        return _warm_cosine(peak, float(config.min_learning_rate), step, total, config.warmup)
    if config.schedule == "constant":
        return peak
    choices = "plateau, one_cycle, cosine, constant"  # the first is jaxmed.train.plateau, which needs more than the step
    raise UserError(f"config.optimizer.schedule={config.schedule!r} is unknown; choose one of {choices}")


def first_beta(config: ConfigDict, step: int, total: int) -> float:
    """Adam's first beta: `config.b1`, or with `config.cycle_b1` 0.95 -> 0.85 -> 0.95, against the one-cycle rate.

    The cycle is what HSQformer's code does (torch's `cycle_momentum`); its paper has 0.9.
    """
    if not config.cycle_b1:
        return float(config.b1)
    if config.schedule != "one_cycle":
        raise UserError(f"config.optimizer.cycle_b1 needs schedule='one_cycle', not {config.schedule!r}")
    return one_cycle(step, total, config.pct_start, HIGH, LOW)


def one_cycle(step: int, total: int, pct_start: float, low: float, high: float) -> float:
    """From `low` to `high` at update pct_start * total - 1 and back at update total - 1, both along a half cosine."""
    if not 0.0 <= pct_start < 1.0:
        raise UserError(f"config.optimizer.pct_start={pct_start:g} must be at least 0 and less than 1")
    top, last = pct_start * total - 1, total - 1
    if step <= top and top > 0:
        return _cosine(low, high, step / top)
    return _cosine(high, low, min(1.0, (step - top) / (last - top)))


def _warm_cosine(peak: float, low: float, step: int, total: int, warmup: float) -> float:
    """Linear up to `peak`, which the last of the first ceil(warmup * total) updates has; then a half cosine to `low`."""
    if not 0.0 <= warmup < 1.0:
        raise UserError(f"config.optimizer.warmup={warmup:g} must be at least 0 and less than 1")
    rising = math.ceil(warmup * total)
    return peak * (step + 1) / rising if step < rising else _cosine(peak, low, (step - rising) / (total - rising))


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
