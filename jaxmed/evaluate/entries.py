"""One number of metrics.json with its interval, and how the terminal prints it."""

import math

from jaxmed.evaluate.intervals import Estimate

NOT_DEFINED = "not defined"


def count_entry(value: int) -> dict:
    """A count, which has no interval."""
    return {"value": value, "low": None, "high": None, "method": "count"}


def entry_of(estimate: Estimate) -> dict:
    """{"value", "low", "high", "method"}, of several networks with "sd" and "runs"; None for what is not defined."""
    entry = {"value": _finite(estimate.value), "low": _finite(estimate.low), "high": _finite(estimate.high)}
    entry["method"] = estimate.method
    if estimate.sd is not None:
        entry |= {"sd": _finite(estimate.sd), "runs": [_finite(run) for run in estimate.runs]}
    return entry


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def format_value(value: float | None) -> str:
    """Three decimals, or "not defined"."""
    return NOT_DEFINED if value is None or math.isnan(value) else f"{value:.3f}"


def format_range(entry: dict) -> str:
    """ "0.842 to 0.976", or "-" """
    return "-" if entry["low"] is None else f"{entry['low']:.3f} to {entry['high']:.3f}"
