"""Several finished runs on the same cases, in the form of Table 1 of the X-Pruning paper, with the differences tested.

    python -m jaxmed.evaluate.compare --runs=x=runs/x_pruning,dv=runs/dv_swin --reference=x --output=comparison

Each DIR is a workdir with predictions.csv: of one run, or of --mode=cv. Prints the tables and writes compare.csv,
compare.json, compare.html and figures/ into the output folder.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.compare_bootstrap import (
    P_VALUE_FORMULA,
    PAIRED_RESAMPLES,
    delong_check,
    difference,
    draw_shared,
    fold_averaged_auc,
    smallest_p,
)
from jaxmed.evaluate.compare_page import write_page
from jaxmed.evaluate.compare_runs import ComparedRun, parse_runs, read_runs, shared_clusters
from jaxmed.evaluate.compare_tables import METRICS, as_csv, as_text
from jaxmed.evaluate.intervals import plain
from jaxmed.evaluate.mcnemar import holm
from jaxmed.evaluate.metrics import area_under_curve
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.repeats import estimate
from jaxmed.evaluate.resample import SEED


def compare(runs: Sequence[ComparedRun], reference: str, resamples: int = PAIRED_RESAMPLES, seed: int = SEED) -> dict:
    """Everything the tables, the page and the figures show.

    Args:
        runs: as `read_runs` gives them, on the same cases.
        reference: the name of the run that every other one is compared with.

    Returns:
        {"split", "unit", "classes", "cases", "clusters", "folds", "reference", "bootstrap",
         "runs": {name: {"workdir", "model", "networks", "auc_per_fold": {fold: AUC}, "metrics": {metric: Estimate}}},
         "differences": {name: {"auc": Estimate (run minus reference), "p_value", "p_holm", "delong"}}}
        A fold's AUC is the mean over repeats. Metrics are those of METRICS, the same as in the run's own report. "delong" is
        None, or {"difference", "low", "high", "p_value"}: only for one fold of independent cases.
    """
    table = runs[0].table
    cluster_of = shared_clusters(list(runs))
    draws = draw_shared(table, cluster_of, resamples, seed)
    areas = {run.name: fold_averaged_auc(run.parts, cluster_of, draws) for run in runs}
    by_name = {run.name: run for run in runs}
    others = [run for run in runs if run.name != reference]
    pairs = {run.name: difference(areas[run.name], areas[reference], draws.shape[1]) for run in others}
    adjusted = holm(np.array([p for _, p in pairs.values()]))
    return {
        "split": str(table.split[0]), "unit": runs[0].workdir.unit, "classes": list(table.classes),
        "cases": len(set(table.case_id.tolist())), "clusters": draws.shape[1],
        "folds": len(np.unique(table.fold)), "reference": reference,
        "bootstrap": {"resamples": resamples, "seed": seed, "p_value": P_VALUE_FORMULA, "smallest_p": smallest_p(resamples)},
        "runs": {run.name: _run(run) for run in runs},
        "differences": {
            name: {"auc": found, "p_value": p, "p_holm": float(p_holm), "delong": _delong(by_name[name], by_name[reference])}
            for (name, (found, p)), p_holm in zip(pairs.items(), adjusted, strict=True)
        },
    }  # fmt: skip


def _run(run: ComparedRun) -> dict:
    found = estimate(run.table, linked=not run.workdir.leaky)
    return {
        "workdir": str(run.workdir.path), "model": str(run.workdir.run.get("model") or ""), "networks": len(run.parts),
        "auc_per_fold": auc_per_fold(run.parts), "metrics": {name: found[name] for name in METRICS},
    }  # fmt: skip


def auc_per_fold(parts: Sequence[Predictions]) -> dict[str, float]:
    """{fold: AUC}, the mean over the repeats of the fold."""
    folds = sorted({int(part.fold[0]) for part in parts})
    areas = [(part.fold[0], area_under_curve(part.target, part.probabilities)) for part in parts]
    return {str(fold): float(np.mean([area for k, area in areas if k == fold])) for fold in folds}


def _delong(run: ComparedRun, reference: ComparedRun) -> dict | None:
    test = None if run.workdir.leaky or reference.workdir.leaky else delong_check(run.parts, reference.parts)
    return test and {"difference": test.difference, "low": test.low, "high": test.high, "p_value": test.p_value}


def write_comparison(folders: dict[str, Path], output: Path, reference: str = "", split: str = "") -> dict:
    """Compares, writes the files that this module's page names, and returns what `compare` does.

    Args:
        folders: {name: workdir}.
        reference: by default the first run.
        split: of predictions.csv; by default the runs' test split.

    Raises:
        UserError: see `read_runs`; a reference that is none of the runs.
    """
    reference = reference or next(iter(folders))
    if reference not in folders:
        raise UserError(f"--reference={reference} is none of the runs {', '.join(folders)}")
    runs = read_runs(folders, split)
    result = compare(runs, reference)
    output.mkdir(parents=True, exist_ok=True)
    (output / "compare.json").write_text(json.dumps(plain(result), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (output / "compare.csv").write_text(as_csv(result), encoding="utf-8")
    write_page(output, runs, result)
    return result


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, help="NAME=DIR,NAME=DIR,...: finished workdirs on the same cases")
    parser.add_argument("--reference", default="", help="the run that the others are compared with; default: the first")
    parser.add_argument("--output", default="comparison", help="folder for the results; default: comparison")
    parser.add_argument("--split", default="", help="split of predictions.csv; default: test")
    args = parser.parse_args(arguments)
    result = write_comparison(parse_runs(args.runs), Path(args.output), args.reference, args.split)
    print(as_text(result))
    print(f"written: {args.output}/compare.html, compare.csv, compare.json, figures/")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
