"""What an evaluation reads from a workdir: predictions.csv is needed, everything else is used where it exists."""

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.breasts import FIRST_TASK, unit_of
from jaxmed.evaluate.predictions import STUDY, Predictions
from jaxmed.evaluate.table import read_predictions

TRAINED_ON = ("train", "val")
NOT_TESTED = (*TRAINED_ON, "dropped", "")  # splits that are no test sets


@dataclass
class Workdir:
    """One finished run.

    Attributes:
        table: all rows of predictions.csv.
        run, config: run.json and config.json; empty where missing.
        history: metrics.jsonl, the last line of each epoch (a resumed run repeats some), in order; in a cv workdir the
            lines of repeat_*/metrics.jsonl or fold_*/metrics.jsonl, with "repeat" or "fold" added.
        cases: rows of splits.csv.
        features: {"case_id": [n], "features": [n, d]} of features.npz; empty where missing.
    """

    path: Path
    table: Predictions
    run: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    cases: list[dict] = field(default_factory=list)
    features: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def data(self) -> dict:
        """What run.json says about the data."""
        return self.run.get("data", {})

    @property
    def split(self) -> str:
        """The split the report is about: test, else the first test set, else what there is."""
        return headline_split(self.table)

    @property
    def test_sets(self) -> list[str]:
        """The test sets with known targets ("test", or sets of other hospitals), in the order of the file."""
        return [name for name in known_splits(self.table) if name not in NOT_TESTED]

    @cached_property
    def headline(self) -> Predictions:
        """The rows of that split whose truth is known."""
        return self.table.select(split=self.split).known()

    @cached_property
    def masked(self) -> Predictions:
        """The rows of that split whose true mask is known; none of a network without masks."""
        return self.table.select(split=self.split).with_mask()

    @cached_property
    def parts(self) -> list[Predictions]:
        """One table per trained network: more than one in a cv workdir."""
        return self.headline.parts()

    @property
    def leaky(self) -> bool:
        """An image-level split: copies were not looked for, so that nobody knows which cases are independent."""
        return str(self.data.get("split_kind") or "").startswith("leaky")

    @property
    def unit(self) -> str:
        """What a row of the table is about: a "breast" where the table has sides, else a "case"."""
        return unit_of(self.table)

    @property
    def split_unit(self) -> str:
        """What was divided into training, validation and test: a "study", where splits.csv does not list breasts, or `unit`."""
        whole = STUDY in self.table.extras and not {row.get("case_id") for row in self.cases} & set(self.table.case_id.tolist())
        return "study" if whole else self.unit

    @property
    def task(self) -> str:
        """Name of the task of the columns target and prob_<class>: the first of run.json's `tasks`."""
        return str((self.run.get("tasks") or [FIRST_TASK])[0])

    @property
    def priors(self) -> dict[str, list[float]]:
        """Class shares {"learned": among the training draws, "true": among the training cases}; empty without a sampler, and
        where there are no probabilities to correct."""
        return {} if self.table.masks_only else self.run.get("priors") or {}

    def require_classes(self) -> None:
        """UserError where predictions.csv holds masks alone."""
        if self.table.masks_only:
            raise UserError(f"{self.path / 'predictions.csv'} holds masks and no columns prob_<class>: "
                            "choose the run of a network with a class head")

    @property
    def positive(self) -> str:
        """The class whose detection sensitivity is about."""
        return self.table.classes[-1]


def headline_split(table: Predictions) -> str:
    """test if there is one, else the first split with known targets that training did not see, else the first."""
    splits = known_splits(table)
    if not splits:
        raise UserError("predictions.csv holds no case whose truth is known: there is nothing to evaluate")
    return next((name for name in ["test", *splits] if name in splits and name not in TRAINED_ON), splits[0])


def known_splits(table: Predictions) -> list[str]:
    """The splits with known targets, in the order of the file."""
    return list(dict.fromkeys(table.known().split.tolist()))


def read_workdir(path: str | Path) -> Workdir:
    """Reads all files.

    Raises:
        UserError: predictions.csv is missing or broken, or another file exists and cannot be read.
    """
    path = Path(path)
    features_path = path / "features.npz"
    return Workdir(
        path=path,
        table=read_predictions(path / "predictions.csv"),
        run=_read_json(path / "run.json"),
        config=_read_json(path / "config.json"),
        history=_histories(path),
        cases=_read_csv(path / "splits.csv"),
        features=_read_features(features_path) if features_path.exists() else {},
    )


def _read_json(path: Path) -> dict:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it, or remove it to do without it") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one JSON object, found a {type(content).__name__}")
    return content


def _read_csv(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read_features(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            features = {"case_id": file["case_id"].astype(str), "features": file["features"].astype(np.float64)}
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): it needs case_id [n] and features [n, d]; "
                        "evaluate again, or remove it to do without the t-SNE figure") from None
    if len(features["case_id"]) != len(features["features"]) or features["features"].ndim != 2:
        raise UserError(f"{path}: case_id {features['case_id'].shape} and features {features['features'].shape} "
                        "do not fit: needs [n] and [n, d]")
    return features


def _histories(path: Path) -> list[dict]:
    if (path / "metrics.jsonl").exists():
        return read_history(path / "metrics.jsonl")
    rows = []
    for kind in ("repeat", "fold"):
        for file in sorted(path.glob(f"{kind}_*/metrics.jsonl")):
            rows += [{**row, kind: file.parent.name} for row in read_history(file)]
    return rows


def read_history(path: Path) -> list[dict]:
    """The rows of metrics.jsonl, one per (repeat, fold, epoch): the last one written counts.

    A last line that is cut off (the run was killed while writing) is dropped; a broken line elsewhere is an error.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: dict[tuple, dict] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key = (row.get("repeat", 0), row.get("fold", 0), row["epoch"])
        except (ValueError, KeyError, AttributeError) as error:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not a JSON object with a key 'epoch' ({error}); "
                            "restore the line or delete it") from None
        rows[key] = row
    return [rows[key] for key in sorted(rows)]
