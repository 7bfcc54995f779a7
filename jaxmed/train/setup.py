"""From a config to everything a run needs: data, split, network, state."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed import parallel
from jaxmed.data.cache import Cache, build_cache
from jaxmed.data.cases import Source
from jaxmed.data.pipeline import Pipeline
from jaxmed.data.similarity import similar_pairs
from jaxmed.data.sources import cache_root, make_source
from jaxmed.data.splits import Split, case_groups, check_split, make_split, read_split, write_split
from jaxmed.data.views import view_report, view_warnings
from jaxmed.errors import UserError
from jaxmed.evaluate.metrics import metric_values
from jaxmed.registry import create_model
from jaxmed.tasks.classification import Classification
from jaxmed.train.checkpoint import Checkpoints
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.state import new_state
from jaxmed.train.step import Steps
from jaxmed.tree import count

Log = Callable[[str], None]


def log(text: str) -> None:
    """Prints on process 0."""
    if parallel.is_main():
        print(text, flush=True)


@dataclass
class Data:
    """The cases of a run: where they come from, how they are split, and their decoded pixels."""

    source: Source
    cache: Cache
    split: Split | None
    groups: np.ndarray  # name of the patient or duplicate group of every case: what intervals resample
    warnings: list[str] = field(default_factory=list)


@dataclass
class Run:
    """One training run; `state` is replaced by the loop."""

    config: ConfigDict
    workdir: Path
    data: Data
    pipeline: Pipeline
    task: Classification
    steps: Steps
    state: dict
    mesh: Any
    checkpoints: Checkpoints
    parameters: int
    warnings: list[str]
    log: Log = log

    @property
    def source(self) -> Source:
        return self.data.source

    @property
    def steps_per_epoch(self) -> int:
        """ceil(cases / batch): the last batch of an epoch borrows what it lacks from the next shuffle."""
        return -(-len(self.indices("train")) // self.config.batch_size)

    def indices(self, split: str) -> np.ndarray:
        """Rows of the source that belong to a split; "all" is every readable case."""
        if split == "all":
            return np.array([i for i in range(len(self.source.cases)) if i not in self.data.cache.skipped])
        return self.data.split.indices(split)

    def train_batches(self, start: int) -> Iterator[dict]:
        """Endless global batches from number `start` on (this process's rows)."""
        return self.pipeline.train(self.indices("train"), self.config.batch_size, start=start)

    def eval_batches(self, cases: np.ndarray) -> Iterator[dict]:
        """Every case once, padded to whole batches."""
        return self.pipeline.evaluate(cases, self.config.batch_size)

    def validation_metrics(self, rows: dict[str, np.ndarray]) -> dict[str, float]:
        """Mean loss, accuracy, AUC and gate weights of evaluated cases."""
        labels = np.array([self.source.cases[i].label for i in rows["case_id"]])
        probabilities = np.stack([rows[f"prob_{name}"] for name in self.task.classes], 1)
        means = {k: float(np.mean(rows[k], dtype=np.float64)) for k in rows if k == "loss" or k.startswith("gate_")}
        metrics = metric_values(labels, probabilities)
        return means | {k: float(metrics[k]) for k in ("accuracy", "auc")}


def prepare_data(
    config: ConfigDict, workdir: Path | None, *, fold: int | None = None, divide: bool = True, predict: bool = False
) -> Data:
    """Opens the source, decodes into the cache and makes (or reads back) the split; prints what it finds.

    `divide=False` leaves the cases undivided, for a test on all of them; `predict=True` also does without labels.
    """
    source = open_source(config, predict=predict)
    log(f"data: {source.name}, {len(source.cases)} cases, classes {', '.join(source.classes)}")
    for note in source.notes:
        log(f"  {note}")
    cache = build_cache(source, config.data.size, cache_root(config.data), skip_bad=config.data.skip_bad, log=log)
    warnings = [f"left out, unreadable: {source.cases[i].case_id}: {why}" for i, why in cache.skipped.items()]
    split = _split(config, source, cache, workdir, fold) if divide and not predict else None
    groups = split.groups() if split else _groups(config, source, cache)
    if needs_mask(config):
        readable = [i for i in range(len(source.cases)) if i not in cache.skipped]
        found = view_report(cache, readable, [case.case_id for case in source.cases])
        warnings += view_warnings(found, len(readable))
    for text in warnings:
        log(f"  warning: {text}")
    return Data(source, cache, split, groups, warnings)


def open_source(config: ConfigDict, *, predict: bool = False) -> Source:
    """The configured source; UserError if it has no masks and the network looks at masked views."""
    needs = ("image", "mask") if needs_mask(config) else ("image",)
    return make_source(config.data, needs=needs, predict=predict)


def needs_mask(config: ConfigDict) -> bool:
    """Whether the network looks at masked views."""
    return bool({"core", "boundary"} & set(input_names(config)))


def input_names(config: ConfigDict) -> tuple[str, ...]:
    """The batch keys that the configured network takes, found without making its weights."""
    return tuple(nnx.eval_shape(lambda: build_model(config, 2)).input_names)


def build_model(config: ConfigDict, num_classes: int) -> nnx.Module:
    """The configured network, randomly initialised by `config.seeds.init`."""
    options = dict(config.model.options)
    return create_model(
        config.model.name, num_classes=num_classes, rngs=nnx.Rngs(config.seeds.init), dtype=config.dtype, **options
    )


def prepare(config: ConfigDict, workdir: Path, data: Data, *, quiet: bool = False) -> Run:
    """Network, pretrained weights, optimiser and pipeline on top of prepared data."""
    mesh = parallel.make_mesh(config.fsdp)
    parallel.check_batch_size(config.batch_size, mesh)
    model = build_model(config, len(data.source.classes))
    warnings, recipe = _pretrain(model, config)
    task = make_task(model, data.source.classes)
    optimizer = make_optimizer(config.optimizer)
    state = parallel.put_state(new_state(model, optimizer, task.meters), mesh)
    layout = parallel.state_shardings(state, mesh)
    steps = Steps(model, task, optimizer, recipe["mean"], recipe["std"], config.seeds.dropout, layout)
    labels = np.array([case.label for case in data.source.cases], np.int32)
    pipeline = Pipeline(
        data.cache, labels, model.input_names, seed=config.seeds.order, augment=dict(config.data.augment),
        workers=config.data.workers, process=parallel.process(),
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    run = Run(config, workdir, data, pipeline, task, steps, state, mesh, checkpoints, count(model), warnings)
    if not quiet:
        log(f"model: {config.model.name}, {run.parameters:,} parameters, {config.dtype}, {mesh.size} device(s)")
        for text in warnings:
            log(f"  warning: {text}")
    return run


def make_task(model: nnx.Module, classes: Sequence[str]) -> Classification:
    """What the network learns; its gate, if it has one, weighs one expert per input."""
    return Classification(tuple(classes), tuple(model.input_names) if len(model.input_names) > 1 else ())


def claim_workdir(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json, or checks that the run which is there had the same config.

    Keys that do not change the result (workers, cache folder, checkpoint interval) may differ. Raises UserError otherwise.
    """
    path = Path(workdir) / "config.json"
    now = json.loads(config.to_json_best_effort())
    if path.exists():
        before, free = json.loads(path.read_text()), ("data.workers", "data.cache_dir", "checkpoint_minutes", "distributed")
        a, b = _flat(before), _flat(now)
        differ = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k) and k not in free]
        if differ:
            lines = "\n  ".join(f"{k}: {a.get(k)!r} there, {b.get(k)!r} now" for k in differ)
            raise UserError(f"{workdir} holds a run of another config:\n  {lines}\nUse another --workdir, or delete it.")
    if parallel.is_main():
        Path(workdir).mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(now, indent=2))
    parallel.barrier("workdir")


def _groups(config: ConfigDict, source: Source, cache: Cache) -> np.ndarray:
    numbers = case_groups(source, similar_pairs(cache.thumbnails, config.data.duplicate_threshold))
    return np.array([f"group {number}" for number in numbers])


def _split(config: ConfigDict, source: Source, cache: Cache, workdir: Path | None, fold: int | None) -> Split:
    path = Path(workdir) / "splits.csv" if workdir else None
    there = bool(path and path.exists())
    parallel.barrier("splits.csv")  # no process may find a file that process 0 is just writing
    if there:
        split = read_split(path, source)
    else:
        split = make_split(
            source, cache.thumbnails, config.data, seed=config.seeds.split, fold=fold,
            num_folds=config.cv.folds if fold is not None else None, skipped=cache.skipped,
        )
    check_split(split, source.classes)
    if path and not there and parallel.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_split(path, split)
    log(f"split ({split.kind}): " + ", ".join(f"{name} {len(split.indices(name))}" for name in ("train", "val", "test")))
    for note in split.notes:
        log(f"  {note}")
    return split


def _pretrain(model: nnx.Module, config: ConfigDict) -> tuple[list[str], dict]:
    from jaxmed.weights import load_weights, preprocessing

    given = {role: path for role, path in dict(config.pretrained).items() if path}
    recipe = preprocessing(next(iter(given.values()), ""))
    for role, path in given.items():
        into = role if role in model.roles else None
        report = load_weights(model, path, source=config.pretrained_source, into=into, new_head=into is None)
        log(f"pretrained {role}: {path}\n  " + str(report).replace("\n", "\n  "))
    if given:
        return [], recipe
    return ["random start: no pretrained weights (--config.pretrained.encoder=DIR; see tools/convert_timm.py)"], recipe


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
