"""`--mode=explain`: heat maps of chosen cases of a trained run."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxmed import parallel
from jaxmed.errors import UserError
from jaxmed.evaluate.metrics import from_positive
from jaxmed.explain.choose import asked, choose
from jaxmed.explain.cross_attention import parse_window
from jaxmed.explain.grad_cam import relative
from jaxmed.explain.notes import notes_for
from jaxmed.explain.overlay import GRAD_CAM, Explained, HeatMap
from jaxmed.explain.page import write_page
from jaxmed.train.explain_beside import gate_of, own_boxes, own_facts, own_maps
from jaxmed.train.explain_cases import Cases, cases_of, indices_of
from jaxmed.train.explain_step import Explainer
from jaxmed.train.finish import load_best, prediction_rows
from jaxmed.train.loop import evaluate
from jaxmed.train.setup import Run, log, prepare, prepare_data, stored_config

Host = Mapping[str, np.ndarray]


def explain(
    config: ConfigDict, workdir: Path, split: str = "test", *, source: str | None = None, cases: str | None = None,
    count: int = 8, layer: str | None = None, target: str | None = None, window: str | None = None,
    output: str | None = None,
) -> Path:
    """Writes <case>.png, cases.csv and index.html; returns the path of index.html.

    Args:
        split: train, val, test, or all: every case of `config.data`.
        source: a folder or CSV instead, as --mode=predict reads it.
        cases: ids, separated by commas, of any split; without them `count` cases, see `jaxmed.explain.choose.choose`.
        layer: where to look; without it the last map of each encoder.
        target: the class to explain; without it the predicted one (two and four views: the last class).
        window: "row,column" of the window that looks at the other view; without it see `look_across`.

    Raises:
        UserError: no trained run, unknown cases, layer, class or window.
    """
    if count < 1:
        raise UserError(f"--count={count} must be 1 or more")
    run = _trained_run(config, workdir, split, source)
    kind = cases_of(run)
    classes = [answer.index(target, kind.default_class) for answer in kind.answers]
    explainer = Explainer(run, kind, classes, layer, parse_window(window))
    chosen = _chosen(run, kind, "predict" if source else split, cases, count)
    found = list(_explained(run, kind, explainer, chosen))
    for look, layer in explainer.reached:
        log(f"looked at {look.encoder or run.config.model.name}: {layer.name}, {layer.grid[0]} x {layer.grid[1]} cells")
    folder = Path(output) if output else Path(workdir) / "explain"
    if not parallel.is_main():
        return folder / "index.html"
    notes = notes_for(heat.kind for case in found for heat in case.maps)
    about = {"title": run.config.name, "subtitle": f"{run.config.model.name} · data: {run.source.name}", "notes": notes}
    page = write_page(folder, found, about, log)
    log(f"{len(found)} cases: {page}")
    return page


def _trained_run(config: ConfigDict, workdir: Path, split: str, source: str | None) -> Run:
    """The workdir's best epoch, with the data to look at."""
    trained = stored_config(workdir, source=source, data=config.data if split == "all" and not source else None)
    if source:
        data = prepare_data(trained, None, predict=True)
    else:
        data = prepare_data(trained, workdir, divide=split != "all")
    run = prepare(trained, workdir, data, quiet=True)
    load_best(run)
    return run


def _chosen(run: Run, kind: Cases, split: str, cases: str | None, count: int) -> dict[str, str]:
    """{case or study: why it is looked at}."""
    if cases:
        return asked([name.strip() for name in cases.split(",") if name.strip()], kind.known())
    log(f"choosing {count} cases of {split!r} by their predictions")
    rows = prediction_rows(run, evaluate(run, "all" if split == "predict" else split), split)
    return choose(rows, run.task.classes, kind.unit, count)


def _explained(run: Run, kind: Cases, explainer: Explainer, chosen: Mapping[str, str]) -> Iterator[Explained]:
    units, indices = list(chosen), indices_of(run, list(chosen))
    size = min(run.config.batch_size, -(-len(units) // run.mesh.size) * run.mesh.size)
    rows = zip(units, indices, strict=True)
    with run.pipeline.evaluate(indices, size) as batches:
        for batch in batches:
            host, batch = explainer(batch), parallel.to_host(parallel.put_batch(batch, run.mesh))
            for k in np.flatnonzero(batch["weight"] > 0):
                unit, index = next(rows)
                case = jax.tree.map(lambda x, k=k: x[k], host)
                yield _case(kind, (unit, index, chosen[unit]), {key: x[k] for key, x in batch.items()}, case, explainer)


def _case(
    kind: Cases, who: tuple[str, int, str], element: Host, case: Mapping, explainer: Explainer
) -> Explained:
    unit, index, why = who
    pictures = kind.pictures(element)
    probabilities = from_positive(case["probabilities"])
    classes = [int(np.argmax(p)) if k < 0 else k for p, k in zip(probabilities, explainer.classes, strict=True)]
    maps = []
    for number, (look, layer) in enumerate(explainer.reached):
        for m in range(layer.maps):
            name, picture, answer = kind.place(number, len(explainer.reached), look.encoder, m)
            asked_of = kind.answers[answer]
            heat, peak = (np.asarray(x) for x in relative(case["heat"][layer.name][answer, m]))
            explains = f"{asked_of.name} {asked_of.classes[classes[answer]]}".strip()
            gate = gate_of(case, pictures, picture)
            if not kind.there(element, picture):
                name, heat, peak, explains = f"{name} (no picture)", np.zeros_like(heat), 0.0, ""
            maps.append(HeatMap(name, picture, heat, float(peak), layer.name, GRAD_CAM, explains, gate))
    maps = sorted(maps, key=lambda heat: list(pictures).index(heat.picture))
    maps += own_maps(explainer.model, case, pictures, kind.answers[0].classes)
    boxes = own_boxes(explainer.model, case, pictures)
    headings, facts = _words(kind, index, probabilities)
    facts |= {"split": _split_of(kind.run, index)} | own_facts(case, pictures, boxes)
    return Explained(unit, pictures, tuple(maps), headings, why, kind.mask(index), facts, boxes)


def _words(kind: Cases, index: int, probabilities: np.ndarray) -> tuple[tuple[str, ...], dict[str, object]]:
    """(headings, columns of cases.csv): truth, predicted class and its probability."""
    headings, facts = [], {}
    for answer, truth, probs in zip(kind.answers, kind.truth(index), probabilities, strict=True):
        said, prefix = int(np.argmax(probs)), f"{answer.name}_" if answer.name else ""
        true = answer.classes[truth] if truth >= 0 else ""
        whose = f"{answer.name}: " if answer.name else ""
        headings.append(f"{whose}truth {true or 'not known'}, network says {answer.classes[said]} ({probs[said]:.1%})")
        facts |= {f"{prefix}target": true, f"{prefix}predicted": answer.classes[said],
                  f"{prefix}probability": round(float(probs[said]), 6)}  # fmt: skip
    return tuple(headings), facts


def _split_of(run: Run, index: int) -> str:
    if run.data.split is None:
        return ""
    return next((name for name in ("train", "val", *run.data.split.test_sets) if index in run.data.split.indices(name)), "")


