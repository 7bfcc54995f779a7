"""Human readers beside the model on the same cases, as in Table 3 and Fig. 3 of the liver-ultrasound paper.

    python -m jaxmed.evaluate.readers --workdir=runs/liver --readers=readers.csv

readers.csv: see `jaxmed.evaluate.reads`. Writes readers.json, readers.md, readers_table.csv and figures/readers_roc.png
into the workdir. The model's probabilities are averaged over networks where several have read a case; its threshold is 0.5.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.intervals import Estimate, independent, metric_intervals, plain
from jaxmed.evaluate.mcnemar import holm, mcnemar
from jaxmed.evaluate.metrics import predicted_class
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.reader_bootstrap import MATCHED, METRICS, Comparison
from jaxmed.evaluate.reader_tables import ALL_READERS, as_csv, as_markdown, readers_plot
from jaxmed.evaluate.reads import Reader, Reads, read_readers
from jaxmed.evaluate.resample import RESAMPLES, SEED
from jaxmed.evaluate.style import to_png
from jaxmed.evaluate.workdir import headline_split, read_workdir


def compare_readers(model: Predictions, reads: Reads, resamples: int = RESAMPLES, seed: int = SEED) -> dict:
    """Everything the tables and the figure show.

    Args:
        model: one row per case, targets known, two classes; the rows that `reads` refers to.

    Returns:
        {"cases", "patients", "scale", "notes",
         "model": {metric: Estimate} on the cases that any reader has read,
         "readers": {name: {"experience", "cases", "metrics": {metric: Estimate},
                            "model": {metric or matched point: Estimate}, "difference": likewise (model minus reader),
                            "mcnemar": {"model_only", "reader_only", "p_value", "p_holm"}}},
         "averages": {group: {"readers": count, "metrics": ..., "difference": ...}}}
        Metrics are those of METRICS and, for the model, of MATCHED; the AUC of yes/no reads has no difference, since it is
        no area under a curve (see the notes). The groups are the experiences and all readers.
    """
    rows = np.unique(np.concatenate([reader.rows for reader in reads.readers]))
    read = model.take(rows)
    readers = tuple(replace(reader, rows=np.searchsorted(rows, reader.rows)) for reader in reads.readers)
    comparison = Comparison(read, readers, resamples, seed)
    tests = [_mcnemar(read, reader) for reader in readers]
    compared = (*(METRICS if reads.rated else METRICS[:-1]), *MATCHED)
    adjusted = holm(np.array([test["p_value"] for test in tests]))
    found = {
        reader.name: _reader(reader, comparison, number, resamples, seed, compared) | {"mcnemar": test | {"p_holm": float(p)}}
        for number, (reader, test, p) in enumerate(zip(readers, tests, adjusted, strict=True))
    }
    return {
        "cases": len(read),
        "patients": len(np.unique(read.clusters())),
        "scale": "ratings" if reads.rated else "yes/no",
        "notes": _notes(read, reads),
        "model": _main(metric_intervals(read, resamples, seed)),
        "readers": found,
        "averages": {name: _average(comparison, members, compared) for name, members in _groups(readers).items()},
    }


def _main(estimates: dict[str, Estimate]) -> dict[str, Estimate]:
    return {name: estimates[name] for name in METRICS}


def _reader(reader: Reader, comparison: Comparison, number: int, resamples: int, seed: int, compared: tuple) -> dict:
    pairs = {name: comparison.of_reader(number, name) for name in (*METRICS, *MATCHED)}
    return {
        "experience": reader.experience,
        "cases": len(reader.rows),
        "metrics": _main(metric_intervals(reader.table, resamples, seed)),
        "model": {name: pair[0] for name, pair in pairs.items()},
        "difference": {name: pairs[name][1] for name in compared},
    }


def _mcnemar(model: Predictions, reader: Reader) -> dict:
    target = reader.table.target
    machine, human = predicted_class(model.probabilities[reader.rows]), predicted_class(reader.table.probabilities)
    test = mcnemar(machine == target, human == target)
    return {"model_only": test.first_only, "reader_only": test.second_only, "p_value": test.p_value}


def _groups(readers: tuple[Reader, ...]) -> dict[str, list[int]]:
    """Readers by number: each experience, if there are several, and all."""
    names = list(dict.fromkeys(reader.experience for reader in readers))
    groups = {name or "unknown": [k for k, reader in enumerate(readers) if reader.experience == name] for name in names}
    return (groups if len(names) > 1 else {}) | {ALL_READERS: list(range(len(readers)))}


def _average(comparison: Comparison, members: list[int], compared: tuple) -> dict:
    pairs = {name: comparison.average(name, members) for name in (*METRICS, *MATCHED)}
    return {
        "readers": len(members),
        "metrics": {name: pairs[name][0] for name in METRICS},
        "model": {name: pairs[name][0] for name in MATCHED},
        "difference": {name: pairs[name][1] for name in compared},
    }


def _notes(read: Predictions, reads: Reads) -> list[str]:
    auc = ("AUC of readers: area under their ratings" if reads.rated else
           "AUC of readers: yes/no reads have one operating point, so this is the balanced accuracy, (sensitivity + "
           "specificity) / 2, and cannot be compared with the AUC of the model's probabilities")
    notes = [auc, "matched points: the best of the model's thresholds that is at least as specific (or sensitive) as the "
             "reader; the empirical curve without interpolation, chosen on these very cases",
             "averages: mean over readers ± SD; their intervals resample readers and patients together"]
    if not independent(read):
        notes.append("several cases of a patient are not independent: intervals resample patients, but McNemar's test takes "
                     "cases as independent: its p values may be too small")
    if len({len(reader.rows) for reader in reads.readers}) > 1 or len(reads.readers[0].rows) < len(read):
        notes.append("readers have read different cases; each is compared with the model on the reader's own")
    return notes


def write_readers(workdir: str | Path, readers: str | Path, split: str = "", positive_from: int = 4) -> dict:
    """Compares, writes the files that this module's page names, and returns what `compare_readers` does.

    Args:
        split: of predictions.csv; by default test, or the only one there is.
        positive_from: the lowest rating that means the positive class.

    Raises:
        UserError: see `read_workdir` and `read_readers`; a split without cases.
    """
    workdir = Path(workdir)
    run = read_workdir(workdir)
    run.require_classes()
    table = run.table
    model = table.select(split=split or headline_split(table)).known()
    if not len(model):
        raise UserError(f"{workdir / 'predictions.csv'}: no case of split {split!r} has a known target")
    networks = len(model.parts())
    model = model.average_repeats()
    reads = read_readers(readers, model, positive_from)
    result = compare_readers(model, reads)
    if networks > 1:
        result["notes"].append(f"model: probabilities averaged over the networks that have read a case, {networks} in all")
    if reads.rated:
        result["notes"].append(f"ratings from {positive_from} on count as {model.classes[1]}")
    (workdir / "figures").mkdir(exist_ok=True)
    (workdir / "readers.json").write_text(json.dumps(plain(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (workdir / "readers.md").write_text(as_markdown(result), encoding="utf-8")
    (workdir / "readers_table.csv").write_text(as_csv(result), encoding="utf-8")
    to_png(readers_plot(model, reads, result), workdir / "figures" / "readers_roc.png")
    return result


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a run with predictions.csv")
    parser.add_argument("--readers", required=True, help="CSV with case_id, reader, read and perhaps experience")
    parser.add_argument("--split", default="", help="split of predictions.csv; default: test")
    parser.add_argument("--positive_from", type=int, default=4, help="lowest rating that means the positive class")
    args = parser.parse_args(arguments)
    result = write_readers(args.workdir, args.readers, args.split, args.positive_from)
    print(as_markdown(result))
    print(f"written: {args.workdir}/readers.md, readers_table.csv, readers.json, figures/readers_roc.png")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
