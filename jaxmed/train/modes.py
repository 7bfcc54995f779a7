"""What each `--mode` of the command line does."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxmed import parallel
from jaxmed.config import preset_text
from jaxmed.errors import UserError
from jaxmed.evaluate.predictions import PREFIX
from jaxmed.evaluate.report import write_report
from jaxmed.evaluate.summary import format_table, write_metrics
from jaxmed.evaluate.table import write_predictions
from jaxmed.evaluate.variants import write_variants
from jaxmed.evaluate.wrong import save_case_pictures
from jaxmed.train.ensemble import add_members
from jaxmed.train.finish import finish, load_best, picture_of, prediction_rows, write_run_json
from jaxmed.train.kinds import kind_of
from jaxmed.train.loop import evaluate, fit
from jaxmed.train.mask_pictures import save_case_masks, write_native_masks
from jaxmed.train.setup import Data, claim_workdir, log, prepare, prepare_data, stored_config


def train(config: ConfigDict, workdir: Path, *, data: Data | None = None, fold: int | None = None, repeat: int = 0) -> Any:
    """`--mode=train`: one run from start (or where it was cut off) to report. Returns its metrics."""
    if config.cv.variants:
        raise UserError(f"{config.name} is {len(config.cv.variants)} variants on the same folds: run it with --mode=cv")
    log(f"{config.name}: {config.paper}" if config.paper else config.name)
    if config.preset:
        log(f"  {preset_text(config)}")
    claim_workdir(config, workdir)
    run = prepare(config, workdir, data or prepare_data(config, workdir, fold=fold))
    fit(run)
    return finish(run, fold=fold or 0, repeat=repeat)


def cross_validate(config: ConfigDict, workdir: Path) -> dict:
    """`--mode=cv`: config.cv.folds held-out folds, or, with folds=0, config.cv.repeats repeats of one split.

    Repeat r adds r to the seeds of initialisation, order and dropout; the split stays unless `new_split_per_repeat`.
    config.cv.variants: each of them in turn, on the same folds, below workdir/<variant>; then a table of all.
    Returns the metrics of all parts together, of variants by name.
    """
    claim_workdir(config, workdir)
    if config.cv.variants:
        return _cross_validate_variants(config, workdir)
    parts = config.cv.folds or config.cv.repeats
    kind = "fold" if config.cv.folds else "repeat"
    for k in range(parts):
        part = workdir / f"{kind}_{k:02d}"
        log(f"\n=== {kind} {k + 1} of {parts}: {part}")
        if kind == "fold":
            train(config, part, fold=k)
        else:
            train(_reseeded(config, k), part, repeat=k)
    return _join(workdir, kind, parts) if parallel.is_main() else {}


def _cross_validate_variants(config: ConfigDict, workdir: Path) -> dict[str, dict]:
    metrics = {}
    for number, (name, changes) in enumerate(config.cv.variants.to_dict().items(), start=1):
        log(f"\n##### variant {number} of {len(config.cv.variants)}: {name}")
        variant = ConfigDict(config.to_dict())
        variant.update(changes)
        variant.name, variant.cv.variants = f"{config.name}-{name}", ConfigDict()
        metrics[name] = cross_validate(variant, workdir / name)
    if parallel.is_main():
        log(f"\n{write_variants(workdir, metrics)}\ntable: {workdir / 'variants.csv'}")
    return metrics


def evaluate_checkpoint(
    config: ConfigDict, workdir: Path, split: str, output: str | None, ensemble: Sequence[str] = ()
) -> None:
    """`--mode=eval`: the workdir's best epoch on a split, or with "all" on every case of `config.data`.

    `config.test_time_flips`, here and in `predict`, replaces that of the run. `ensemble`, likewise: workdirs of further runs,
    whose outputs are averaged with this one's.
    """
    trained = stored_config(workdir, data=config.data if split == "all" else None, flips=config.test_time_flips)
    data = prepare_data(trained, workdir, divide=split != "all")
    target = Path(output) if output else workdir / f"eval_{split}{'_ensemble' if ensemble else ''}"
    _test_elsewhere(trained, workdir, data, split, target, ensemble)


def predict(
    config: ConfigDict, workdir: Path, source: str | None, output: str | None, ensemble: Sequence[str] = ()
) -> None:
    """`--mode=predict`: the workdir's best epoch on a folder of images or a CSV; writes predictions.csv."""
    if not source:
        raise UserError("--mode=predict needs --input: a folder of images, or a CSV that names them")
    trained = stored_config(workdir, source=source, flips=config.test_time_flips)
    data = prepare_data(trained, None, predict=True)
    run = prepare(trained, workdir, data, quiet=True)
    load_best(run)
    add_members(run, ensemble)
    target = Path(output) if output else workdir / ("predict_ensemble" if ensemble else "predict")
    target.mkdir(parents=True, exist_ok=True)
    cases = evaluate(run, "all")
    rows = write_native_masks(target, run, cases, prediction_rows(run, cases, "predict"))
    write_predictions(target / "predictions.csv", rows)
    _print_predictions(rows)
    origin = run.kind.mask_origin(data.source)
    masks = f"; masks: {origin} (results hold for masks of this kind)" if origin else ""
    log(f"{len(rows)} cases: {target / 'predictions.csv'}{masks}")


def check_data(config: ConfigDict) -> int:
    """`--mode=check_data`: prints what is wrong with the data; returns 1 if it cannot be trained on, else 0."""
    report = kind_of(config).check(log)
    log(report.text())
    return report.exit_status


def _reseeded(config: ConfigDict, repeat: int) -> ConfigDict:
    copy = ConfigDict(config.to_dict())
    for name in ("init", "order", "dropout", *(("split",) if config.cv.new_split_per_repeat else ())):
        copy.seeds[name] = config.seeds[name] + repeat
    return copy


def _join(workdir: Path, kind: str, parts: int) -> dict:
    """Pools the parts' predictions, and reports mean, SD and intervals."""
    header, lines = "", []
    for k in range(parts):
        head, *rows = (workdir / f"{kind}_{k:02d}/predictions.csv").read_text().splitlines()
        header, lines = head, lines + rows
    (workdir / "predictions.csv").write_text("\n".join([header, *lines]) + "\n")
    first = workdir / f"{kind}_00"
    info = json.loads((first / "run.json").read_text())
    info |= {"cv": {"kind": kind, "parts": parts}}
    info["seconds"] = sum(json.loads(p.read_text())["seconds"] for p in workdir.glob(f"{kind}_*/run.json"))
    (workdir / "run.json").write_text(json.dumps(info, indent=2))
    (workdir / "splits.csv").write_text((first / "splits.csv").read_text())
    metrics = write_metrics(workdir)
    log(f"\n{parts} {kind}s\n{format_table(metrics)}")
    log(f"report: {write_report(workdir)}")
    return metrics


def _test_elsewhere(config: ConfigDict, workdir: Path, data: Data, split: str, target: Path, ensemble: Sequence[str]) -> None:
    run = prepare(config, workdir, data, quiet=True)
    progress = load_best(run)
    others = add_members(run, ensemble, "" if split == "all" else split)
    progress = dataclasses.replace(progress, seconds=sum(p.seconds for p in (progress, *others)))
    name = "test" if split == "all" else split
    cases = evaluate(run, split)
    rows = prediction_rows(run, cases, name)
    target.mkdir(parents=True, exist_ok=True)
    write_predictions(target / "predictions.csv", rows)
    epochs = [p.best_epoch for p in (progress, *others)]
    write_run_json(dataclasses.replace(run, workdir=target), progress, **({"ensemble": epochs} if others else {}))
    save_case_pictures(target, picture_of(run))
    save_case_masks(run, cases, name, target)
    (target / "config.json").write_text(config.to_json_best_effort(indent=2))
    metrics = write_metrics(target)
    log(f"\nbest epoch {', '.join(map(str, epochs))}, {len(rows)} cases of {split!r}\n{format_table(metrics)}")
    log(f"report: {write_report(target)}")


def _print_predictions(rows: list[dict]) -> None:
    """Class probabilities, and the lesion's pixels where there are masks."""
    width = max(len(row["case_id"]) for row in rows)
    shown = {key: key.removeprefix(PREFIX) for key in rows[0] if key.startswith(PREFIX)}
    shown |= {"predicted_pixels": "lesion px"} if "predicted_pixels" in rows[0] else {}
    log("  ".join([f"{'case':<{width}}", *(f"{name:>10}" for name in shown.values())]))
    for row in rows[:20]:
        log("  ".join([f"{row['case_id']:<{width}}", *(f"{row[key]:>10.{0 if 'pixels' in key else 3}f}" for key in shown)]))
    if len(rows) > 20:
        log(f"... and {len(rows) - 20} more")
