"""From a config to everything a run needs: data, split, network, state."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from jaxmed import parallel
from jaxmed.config import filled
from jaxmed.data.cache import Cache
from jaxmed.data.pipeline import Pipeline
from jaxmed.data.sampler import epoch_cases
from jaxmed.data.splits import Split, check_split, group_names, make_split, read_split, write_split
from jaxmed.errors import UserError
from jaxmed.registry import create_model
from jaxmed.train.checkpoint import Checkpoints
from jaxmed.train.flips import flip_axes
from jaxmed.train.kinds import Kind, kind_of
from jaxmed.train.mix import mix_options
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.start import wide_start
from jaxmed.train.state import new_state
from jaxmed.train.step import Recipe, Steps
from jaxmed.tree import count, flatten, is_under

Log = Callable[[str], None]


def log(text: str) -> None:
    """Prints on process 0."""
    if parallel.is_main():
        print(text, flush=True)


@dataclass
class Data:
    """The cases of a run: where they come from, how they are split, and their decoded pixels."""

    source: Any  # of cases or of studies
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
    kind: Kind
    pipeline: Pipeline
    task: Any  # of jaxmed.tasks
    steps: Steps
    state: dict
    mesh: Any
    checkpoints: Checkpoints
    parameters: int
    warnings: list[str]
    members: tuple[dict, ...] = ()  # states of further networks whose outputs are averaged with those of `state`
    log: Log = log

    @property
    def source(self) -> Any:
        return self.data.source

    @property
    def steps_per_epoch(self) -> int:
        """ceil(draws / batch): the last batch of an epoch borrows what it lacks from the next shuffle."""
        draws = epoch_cases(len(self.indices("train")), self.config.data.epoch_factor)
        return -(-draws // self.config.batch_size)

    def indices(self, split: str) -> np.ndarray:
        """Rows of the source that belong to a split; "all" is every readable case. UserError for another name."""
        if split == "all":
            return np.array([i for i in range(len(self.source.cases)) if i not in self.data.cache.skipped])
        known = ("train", "val", *self.data.split.test_sets)
        if split not in known:
            raise UserError(f"split {split!r} is unknown; this run has {', '.join(known)} (or all)")
        return self.data.split.indices(split)

    def train_batches(self, start: int) -> Iterator[dict]:
        """Endless global batches from number `start` on (this process's rows)."""
        return self.pipeline.train(self.indices("train"), self.config.batch_size, start=start)

    def eval_batches(self, cases: np.ndarray) -> Iterator[dict]:
        """Every case once, padded to whole batches."""
        return self.pipeline.evaluate(cases, self.config.batch_size)


def prepare_data(
    config: ConfigDict, workdir: Path | None, *, fold: int | None = None, divide: bool = True, predict: bool = False
) -> Data:
    """Opens the source, decodes into the cache and makes (or reads back) the split; prints what it finds.

    `divide=False` leaves the cases undivided, for a test on all of them; `predict=True` also does without labels.
    """
    kind = kind_of(config)
    source = kind.open(predict=predict)
    log(f"data: {source.name}, {len(source)} cases, classes {', '.join(source.classes)}")
    for note in source.notes:
        log(f"  {note}")
    cache = kind.cache(source, log)
    thumbnails = kind.thumbnails(cache)
    warnings = [f"left out, unreadable: {source.cases[i].case_id}: {why}" for i, why in cache.skipped.items()]
    split = _split(config, source, cache, thumbnails, workdir, fold) if divide and not predict else None
    groups = split.groups() if split else group_names(source, thumbnails, config.data.duplicate_threshold)
    warnings += kind.warnings(source, cache)
    if split and split.selects_on_test:
        warnings.append("data.paper_protocol=True: the test cases also chose the epoch, as in the paper: too good")
    for text in warnings:
        log(f"  warning: {text}")
    return Data(source, cache, split, groups, warnings)


def build_model(config: ConfigDict, num_classes: int) -> nnx.Module:
    """The configured network, randomly initialised by `config.seeds.init`."""
    kind = kind_of(config)
    options = {"num_classes": num_classes, "dtype": config.dtype} | kind.model_options() | dict(config.model.options)
    model = create_model(config.model.name, rngs=nnx.Rngs(config.seeds.init), **options)
    if config.model.wide_start:
        wide_start(model, config.seeds.init)
    return kind.fit(model)


def prepare(config: ConfigDict, workdir: Path, data: Data, *, quiet: bool = False) -> Run:
    """Network, pretrained weights, optimiser and pipeline on top of prepared data."""
    mesh = parallel.make_mesh(config.fsdp)
    parallel.check_batch_size(config.batch_size, mesh, config.accumulate)
    kind, model = kind_of(config), build_model(config, len(data.source.classes))
    warnings, recipe = _pretrain(model, config)
    task = kind.task(model, data.source, data.split.indices("train") if data.split else None)
    optimizer = make_optimizer(config.optimizer)
    state = parallel.put_state(new_state(model, optimizer, task.meters, averaged=config.ema > 0), mesh)
    layout = parallel.state_shardings(state, mesh)
    steps = Steps(model, task, optimizer, recipe["mean"], recipe["std"], config.seeds.dropout, layout, make_recipe(config))
    pipeline = Pipeline(
        kind.loader(data.source, data.cache, model), seed=config.seeds.order, workers=config.data.workers,
        process=parallel.process(), sampler=config.data.sampler,
    )
    checkpoints = Checkpoints(workdir / "checkpoints")
    run = Run(config, workdir, data, kind, pipeline, task, steps, state, mesh, checkpoints, count(model), warnings)
    if not quiet:
        log(f"model: {config.model.name}, {run.parameters:,} parameters, {config.dtype}, {mesh.size} device(s)")
        for text in warnings:
            log(f"  warning: {text}")
    return run


def make_recipe(config: ConfigDict) -> Recipe:
    """What the config asks of the steps."""
    mixing = mix_options(config.mix) if config.mix else None
    flips = flip_axes(config.test_time_flips, config.task)
    return Recipe(mixing, flatten(config.optimizer.factors.to_dict()), config.ema, config.accumulate, flips)


def claim_workdir(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json, or checks that the run which is there had the same config.

    Keys that do not change the result (workers, cache folder, checkpoint interval, what the report says of the paper and the
    preset) may differ, and keys that are younger than the run count as their defaults. Raises UserError otherwise.
    """
    path = Path(workdir) / "config.json"
    now = json.loads(config.to_json_best_effort())
    if path.exists():
        free = ("data.workers", "data.cache_dir", "checkpoint_minutes", "distributed", "paper", "preset", "published")
        before = json.dumps(filled(json.loads(path.read_text())))  # JSON has no tuples
        a, b = _flat(json.loads(before)), _flat(now)
        differ = [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k) and not is_under(k, free)]
        if differ:
            lines = "\n  ".join(f"{k}: {a.get(k)!r} there, {b.get(k)!r} now" for k in differ)
            raise UserError(f"{workdir} holds a run of another config:\n  {lines}\nUse another --workdir, or delete it.")
    if parallel.is_main():
        Path(workdir).mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(now, indent=2))
    parallel.barrier("workdir")


def stored_config(workdir: Path, *, source: str | None = None, data: ConfigDict | None = None, flips: str = "") -> ConfigDict:
    """The config of the run in `workdir`; keys that are younger than the run have their defaults.

    For other cases than the run's own: `source`, a folder or CSV to predict on, or `data`, another config's block, of which
    what belongs to the trained network (`Kind.fixed`) stays the run's. `flips`: a test_time_flips in place of the run's.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{path} is missing: give the --workdir of a trained run")
    config = ConfigDict(filled(json.loads(path.read_text())))
    for options in (config.model.options, config.data):  # JSON has no tuples
        for key, value in options.items():
            if isinstance(value, list | tuple):
                options[key] = tuple(value)
    config.test_time_flips = flips or config.test_time_flips
    kind = kind_of(config)
    if source:
        config.data.update(source=kind.predict_source, dir=source, test_sets="", patient_pattern="")
    if data is not None:
        config.data = ConfigDict(data.to_dict() | {key: config.data[key] for key in kind.fixed})
    return config


def _split(
    config: ConfigDict, source: Any, cache: Cache, thumbnails: np.ndarray | None, workdir: Path | None, fold: int | None
) -> Split:
    path = Path(workdir) / "splits.csv" if workdir else None
    there = bool(path and path.exists())
    parallel.barrier("splits.csv")  # no process may find a file that process 0 is just writing
    if there:
        split = read_split(path, source)
    else:
        split = make_split(
            source, thumbnails, config.data, seed=config.seeds.split, fold=fold,
            num_folds=config.cv.folds if fold is not None else None, skipped=cache.skipped,
        )
    check_split(split, source.classes)
    if path and not there and parallel.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_split(path, split)
    parts = ("train", "val", *split.test_sets)
    log(f"split ({split.kind}): " + ", ".join(f"{name} {len(split.indices(name))}" for name in parts))
    for note in split.notes:
        log(f"  {note}")
    return split


def _pretrain(model: nnx.Module, config: ConfigDict) -> tuple[list[str], dict]:
    from jaxmed.weights import load_weights, preprocessing

    given = {role: path for role, path in dict(config.pretrained).items() if path}
    recipe = preprocessing(next(iter(given.values()), ""))
    for role, path in given.items():
        into = role if role in model.roles else None
        report = load_weights(model, path, source=config.pretrained_source, into=into, new_head=True)
        log(f"pretrained {role}: {path}\n  " + str(report).replace("\n", "\n  "))
    if given:
        return [], recipe
    return ["random start: no pretrained weights (--config.pretrained.encoder=DIR; see tools/convert_timm.py)"], recipe


def _flat(tree: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
