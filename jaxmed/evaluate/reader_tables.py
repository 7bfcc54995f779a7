"""The readers' comparison as a Markdown page, as a CSV, and as an ROC curve with the readers as points."""

import csv
import io
import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmed.evaluate.intervals import Estimate
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.reader_bootstrap import AT_SENSITIVITY, AT_SPECIFICITY
from jaxmed.evaluate.reads import Reads
from jaxmed.evaluate.resample import RESAMPLES
from jaxmed.evaluate.roc import GRID, roc_points, roc_with_band
from jaxmed.evaluate.style import BLACK, BLUE, CYCLE, MARKERS, MUTED, new_figure, styled, unit_axes

ALL_READERS = "all readers"
NAMES = {"recall": "Sensitivity", "specificity": "Specificity", "accuracy": "Accuracy", "precision": "Precision", "f1": "F1"}
MATCHED_NAMES = {AT_SPECIFICITY: "Model's sensitivity at the same specificity",
                 AT_SENSITIVITY: "Model's specificity at the same sensitivity"}  # fmt: skip


def as_markdown(result: dict) -> str:
    """Two tables in %: who scores what, and the model against each reader; then how to read them."""
    area = "AUC" if result["scale"] == "ratings" else "AUC (balanced accuracy for readers)"
    rows = [["", "Cases", *NAMES.values(), area]]
    for name, reader in result["readers"].items():
        rows.append([_who(name, reader), str(reader["cases"]), *_cells(reader["metrics"])])
    for name, group in result["averages"].items():
        rows.append([f"**mean of {_group(name, group)}**", "", *_cells(group["metrics"])])
    rows.append(["**model**", str(result["cases"]), *_cells(result["model"])])
    title = f"Readers and model: {result['cases']} cases, {result['patients']} patients or groups; %, 95 % intervals"
    parts = [f"# {title}", _table(rows), "## Model against readers", _table(_against(result)),
             "\n".join(f"* {note}" for note in result["notes"]),
             f"* intervals: percentiles of {RESAMPLES:,} resamples; a difference is model minus reader, in percentage points; "
             "p: McNemar's exact test at the model's threshold 0.5, in brackets after Holm's correction over the readers"]
    return "\n\n".join(parts[:-1]) + "\n" + parts[-1] + "\n"


def _against(result: dict) -> list[list[str]]:
    rows = [["", *MATCHED_NAMES.values(), "Difference in accuracy", "Only model right", "Only reader right", "p (Holm)"]]
    for name, reader in result["readers"].items():
        test = reader["mcnemar"]
        matched = [f"{_cell(reader['model'][key])}; {_points(reader['difference'][key])}" for key in MATCHED_NAMES]
        p = f"{_p(test['p_value'])} ({_p(test['p_holm'])})"
        rows.append([_who(name, reader), *matched, _points(reader["difference"]["accuracy"]), str(test["model_only"]),
                     str(test["reader_only"]), p])
    for name, group in result["averages"].items():
        matched = [f"{_cell(group['model'][key])}; {_points(group['difference'][key])}" for key in MATCHED_NAMES]
        rows.append([f"**mean of {_group(name, group)}**", *matched, _points(group["difference"]["accuracy"]), "", "", ""])
    return rows


def _who(name: str, reader: dict) -> str:
    return f"{name} ({reader['experience']})" if reader["experience"] else name


def _group(name: str, group: dict) -> str:
    return f"all {group['readers']} readers" if name == ALL_READERS else f"{group['readers']} {name}"


def _cells(metrics: dict[str, Estimate]) -> list[str]:
    return [_cell(metrics[name]) for name in (*NAMES, "auc")]


def _cell(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "not defined"
    spread = "" if estimate.sd is None or math.isnan(estimate.sd) else f" ± {100 * estimate.sd:.1f}"
    return f"{100 * estimate.value:.1f}{spread}{_limits(estimate, '.1f')}"


def _points(estimate: Estimate) -> str:
    """A difference in percentage points."""
    return "not defined" if math.isnan(estimate.value) else f"{100 * estimate.value:+.1f}{_limits(estimate, '+.1f')}"


def _limits(estimate: Estimate, form: str) -> str:
    return "" if math.isnan(estimate.low) else f" ({100 * estimate.low:{form}} to {100 * estimate.high:{form}})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def as_csv(result: dict) -> str:
    """One row per reader, group, metric and what it is about: who, what, metric, value, low, high, sd, method."""
    rows = [("model", "model", name, value) for name, value in result["model"].items()]
    for kind in ("readers", "averages"):
        for who, entry in result[kind].items():
            for what in ("metrics", "model", "difference"):
                label = {"metrics": "reader", "model": "model on these cases", "difference": "model minus reader"}[what]
                rows += [(who, label, name, value) for name, value in entry[what].items()]
            if "mcnemar" in entry:
                rows += [(who, "McNemar", name, Estimate(float(value))) for name, value in entry["mcnemar"].items()]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("who", "what", "metric", "value", "low", "high", "sd", "method"))
    for who, what, name, value in rows:
        numbers = [value.value, value.low, value.high, math.nan if value.sd is None else value.sd]
        cells = ["" if math.isnan(number) else repr(float(number)) for number in numbers]
        writer.writerow((who, what, _metric_name(result, what, name), *cells, value.method))
    return file.getvalue()


def _metric_name(result: dict, what: str, name: str) -> str:
    """The AUC of yes/no reads under its right name."""
    yes_no = name == "auc" and result["scale"] != "ratings" and what == "reader"
    return "auc (yes/no reads: balanced accuracy)" if yes_no else name


@styled
def readers_plot(model: Predictions, reads: Reads, result: dict) -> Figure:
    """The model's ROC curve with its 95 % band, each reader as a point, and the mean of each group with its intervals."""
    read = model.take(np.unique(np.concatenate([reader.rows for reader in reads.readers])))
    figure = new_figure(6.2, 6.2)
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    band = roc_with_band(read)
    ax.fill_between(GRID, band.low, band.high, color=BLUE, alpha=0.16, linewidth=0)
    alarms, hits = roc_points(read.target == 1, read.probabilities[:, 1], np.ones((1, len(read)), int))
    area = result["model"]["auc"]
    ax.plot(alarms[0], hits[0], color=BLUE, label=f"model, AUC {area.value:.3f} ({area.low:.3f} to {area.high:.3f})")
    _point(ax, result["model"], marker="o", color=BLACK, markersize=9, label="model at 0.5")
    groups = dict.fromkeys(reader["experience"] for reader in result["readers"].values())
    for k, group in enumerate(groups):
        _group_points(ax, result, group, CYCLE[1 + k % (len(CYCLE) - 2)], MARKERS[1 + k % (len(MARKERS) - 1)])
    unit_axes(ax, "1 - specificity (false alarms)", "sensitivity")
    ax.legend(loc="lower right", frameon=True, framealpha=0.85, edgecolor="none")
    return figure


def _group_points(ax: Axes, result: dict, group: str, color: str, marker: str) -> None:
    label = f"{group} readers" if group else "readers"
    for reader in result["readers"].values():
        if reader["experience"] == group:
            _point(ax, reader["metrics"], marker=marker, color=color, markersize=7, alpha=0.75, linestyle="none", label=label)
            label = None
    mean = result["averages"].get(group or "unknown", result["averages"][ALL_READERS])
    x, y = mean["metrics"]["specificity"], mean["metrics"]["recall"]
    across, along = [[x.high - x.value], [x.value - x.low]], [[y.value - y.low], [y.high - y.value]]
    ax.errorbar(1 - x.value, y.value, xerr=np.maximum(across, 0), yerr=np.maximum(along, 0), color=color, marker="+",
                markersize=13, markeredgewidth=2.2, linewidth=1.2, label=f"mean of {group or 'all'} readers, 95 %")


def _point(ax: Axes, metrics: dict[str, Estimate], **style) -> None:
    ax.plot(1 - metrics["specificity"].value, metrics["recall"].value, **{"linestyle": "none", **style})
