"""The predictions table in memory: one row per case (and trained network), as numpy columns."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxmed.errors import UserError

TEXT_COLUMNS = ("case_id", "patient_id", "group", "split")
COUNT_COLUMNS = ("fold", "repeat")
PREFIX = "prob_"
STUDY = "study_id"  # an extra: the study a breast belongs to
MASK = "iou"  # an extra: the table has the columns of `mask_scores`; nan where the true mask is not known


@dataclass
class Predictions:
    """The rows of predictions.csv as numpy columns of length n.

    Attributes:
        classes: class names; the last one is the positive class of binary metrics. Of masks alone: the names in `target`.
        case_id, patient_id, group, split: text; "" where not known.
        fold, repeat: int; 0 where a run has one fold or one repeat.
        target: int, index into `classes`; -1 where the truth is not known.
        probabilities: float64 [n, classes]. Rows need not sum to 1 (independent sigmoids). [n, 0]: masks and no classes.
        extras: further columns by name (gate weights, mask scores): float64 where every cell is a number or empty.
    """

    classes: tuple[str, ...]
    case_id: np.ndarray
    patient_id: np.ndarray
    group: np.ndarray
    split: np.ndarray
    fold: np.ndarray
    repeat: np.ndarray
    target: np.ndarray
    probabilities: np.ndarray
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.case_id)

    def take(self, index: np.ndarray) -> "Predictions":
        """The rows of an integer or boolean index."""
        columns = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name not in ("classes", "extras")}
        return Predictions(self.classes, **columns, extras={name: v[index] for name, v in self.extras.items()})

    def select(self, split: str | None = None, fold: int | None = None, repeat: int | None = None) -> "Predictions":
        """The rows of one split, fold and / or repeat."""
        keep = np.ones(len(self), bool)
        for column, wanted in ((self.split, split), (self.fold, fold), (self.repeat, repeat)):
            if wanted is not None:
                keep &= column == wanted
        return self.take(keep)

    @property
    def masks_only(self) -> bool:
        """Whether the network decides about masks and not about classes."""
        return self.probabilities.shape[1] == 0

    def known(self) -> "Predictions":
        """The rows whose truth is known: the class, or where there are masks only the mask."""
        return self.with_mask() if self.masks_only else self.take(self.target >= 0)

    def with_mask(self) -> "Predictions":
        """The rows whose true mask is known; none without mask scores."""
        return self.take(~np.isnan(self.extras[MASK]) if MASK in self.extras else np.zeros(len(self), bool))

    def parts(self) -> list["Predictions"]:
        """One table per trained network, by repeat and then fold."""
        pairs = sorted(set(zip(self.repeat.tolist(), self.fold.tolist(), strict=True)))
        return [self.select(repeat=repeat, fold=fold) for repeat, fold in pairs]

    def clusters(self) -> np.ndarray:
        """Which rows depend on each other: int [n], equal for rows that share a case, a study, a patient or a group."""
        names = []
        study = self.extras.get(STUDY, np.full(len(self), ""))
        for row, values in enumerate(zip(self.case_id, self.patient_id, self.group, study, strict=True)):
            names += [(row, (kind, value)) for kind, value in enumerate(values) if value]
        key_of = {key: number for number, key in enumerate(dict.fromkeys(key for _, key in names))}
        row = [r for r, _ in names]
        node = [len(self) + key_of[key] for _, key in names]
        size = len(self) + len(key_of)
        graph = coo_array((np.ones(len(row)), (row, node)), shape=(size, size))
        labels = connected_components(graph, directed=False)[1][: len(self)]
        return np.unique(labels, return_inverse=True)[1]

    def average_repeats(self) -> "Predictions":
        """One row per case: probabilities and numeric extras averaged over repeats; other columns from the first."""
        _, first, inverse = np.unique(self.case_id, return_index=True, return_inverse=True)
        order = np.sort(first)
        if len(order) == len(self):
            return self
        position = np.searchsorted(order, first)[inverse]
        mean = self.take(order)
        mean.probabilities = _mean_by(position, self.probabilities)
        mean.extras = {
            name: _mean_by(position, value[:, None])[:, 0] if value.dtype.kind == "f" else mean.extras[name]
            for name, value in self.extras.items()
        }
        return mean

    def rows(self) -> Iterator[dict[str, object]]:
        """The rows as `write_predictions` takes them."""
        for i in range(len(self)):
            yield {
                **{name: str(getattr(self, name)[i]) for name in TEXT_COLUMNS},
                **{name: int(getattr(self, name)[i]) for name in COUNT_COLUMNS},
                "target": self.classes[self.target[i]] if self.target[i] >= 0 else "",
                **{PREFIX + self.classes[k]: float(p) for k, p in enumerate(self.probabilities[i])},
                **{name: value[i].item() for name, value in self.extras.items()},
            }


def _mean_by(position: np.ndarray, values: np.ndarray) -> np.ndarray:
    total = np.zeros((position.max() + 1, values.shape[1]))
    np.add.at(total, position, values)
    return total / np.bincount(position)[:, None]


def concatenate(tables: Iterable[Predictions]) -> Predictions:
    """Tables of the same classes and extras, one below the other."""
    tables = list(tables)
    for table in tables[1:]:
        if table.classes != tables[0].classes or table.extras.keys() != tables[0].extras.keys():
            raise UserError(f"tables differ in their columns: {tables[0].classes, list(tables[0].extras)} against "
                            f"{table.classes, list(table.extras)}; only runs of one configuration can be joined")
    names = [f.name for f in fields(Predictions) if f.name not in ("classes", "extras")]
    columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in names}
    extras = {name: np.concatenate([t.extras[name] for t in tables]) for name in tables[0].extras}
    return Predictions(tables[0].classes, **columns, extras=extras)
