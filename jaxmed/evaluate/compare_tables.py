"""The comparison of runs as text for the terminal and as a CSV with one row per run."""

import csv
import io
import math

from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.metrics import LABELS
from jaxmed.evaluate.wording import plural

METRICS = ("auc", "accuracy", "f1", "recall", "specificity")  # Table 1 of the paper, and its text


def as_text(result: dict) -> str:
    """Three tables: AUC of every fold and their mean; the metrics at the threshold; differences to the reference."""
    unit = result["unit"]
    title = (f"{plural(result['cases'], unit)} of split {result['split']!r} in {plural(result['folds'], 'fold')}, "
             f"{result['clusters']} independent groups")  # fmt: skip
    tables = [_columns(areas(result)), _columns(thresholded(result)), _columns(tests(result))]
    notes = "\n".join(f"[{number}] {method}" for number, method in enumerate(methods_used(result), start=1))
    return "\n\n".join([title, *tables, notes])


def areas(result: dict) -> list[list[str]]:
    """Header, then a row per run: the AUC of every fold, their mean with its interval, and the SD."""
    folds = list(next(iter(result["runs"].values()))["auc_per_fold"])
    each = folds if len(folds) > 1 else []
    several = any(run["networks"] > 1 for run in result["runs"].values())
    rows = [["run", *(f"fold {fold}" for fold in each), "AUC" + " (mean)" * bool(each), "95 % CI", *["SD"] * several, "method"]]
    for name, run in result["runs"].items():
        found = run["metrics"]["auc"]
        sd = [shown(math.nan if found.sd is None else found.sd)] * several
        rows.append([name, *(shown(run["auc_per_fold"][fold]) for fold in each), shown(found.value), span(found), *sd,
                     f"[{methods_used(result).index(found.method) + 1}]"])  # fmt: skip
    return rows


def thresholded(result: dict) -> list[list[str]]:
    """Header, then a row per run: the metrics of its decisions, with intervals."""
    names = METRICS[1:]
    rows = [["run", *(LABELS[name] for name in names)]]
    for name, run in result["runs"].items():
        found = [run["metrics"][metric] for metric in names]
        rows.append([name, *(" ".join(filter(None, (shown(e.value), f"({span(e)})" if span(e) else ""))) for e in found)])
    return rows


def tests(result: dict) -> list[list[str]]:
    """Header, then a row per run that is not the reference: the difference in AUC, its interval and p values."""
    checked = any(entry["delong"] for entry in result["differences"].values())
    rows = [[f"AUC minus {result['reference']}", "difference", "95 % CI", "p", "p (Holm)", *["p (DeLong)"] * checked]]
    for name, entry in result["differences"].items():
        found = entry["auc"]
        check = [p_text(entry["delong"]["p_value"]) if entry["delong"] else "-"] * checked
        p = [p_text(entry["p_value"]), p_text(entry["p_holm"]), *check]
        rows.append([name, shown(found.value, "+"), span(found, "+"), *p])
    return rows


def methods_used(result: dict) -> list[str]:
    """How the intervals of the AUCs were obtained, each once."""
    return list(dict.fromkeys(run["metrics"]["auc"].method for run in result["runs"].values()))


def shown(value: float, sign: str = "") -> str:
    """Three decimals; sign="+" shows the sign of a positive number."""
    return "-" if math.isnan(value) else f"{value:{sign}.3f}"


def span(found: Estimate, sign: str = "") -> str:
    """ "0.812 to 0.905", or "" where there is no interval. """
    return "" if math.isnan(found.low) else f"{found.low:{sign}.3f} to {found.high:{sign}.3f}"


def p_text(value: float) -> str:
    """Three decimals, "< 0.001" below."""
    return "-" if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def as_csv(result: dict) -> str:
    """One row per run; the reference has no difference. Numbers in full, empty where not defined."""
    file = io.StringIO()
    rows = [_csv_row(name, run, result["differences"].get(name)) for name, run in result["runs"].items()]
    writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _csv_row(name: str, run: dict, tested: dict | None) -> dict[str, object]:
    row = {"run": name, "model": run["model"], "networks": run["networks"]}
    for metric, found in run["metrics"].items():
        row |= _in_full(metric, found)
    row["auc_sd"] = _full(run["metrics"]["auc"].sd)
    row |= {f"auc_fold_{fold}": _full(value) for fold, value in run["auc_per_fold"].items()}
    if tested:
        row |= _in_full("difference", tested["auc"])
        row |= {"p_value": _full(tested["p_value"]), "p_holm": _full(tested["p_holm"])}
        row["p_delong"] = _full(tested["delong"]["p_value"]) if tested["delong"] else ""
    return row


def _in_full(name: str, found: Estimate) -> dict[str, str]:
    return {name: _full(found.value), f"{name}_low": _full(found.low), f"{name}_high": _full(found.high)}


def _full(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(float(value))
