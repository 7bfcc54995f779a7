"""What a case is when it is explained: its pictures, the logits that are asked, and where each heat map lies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import nnx

from jaxmed.data.breast import to_uint8
from jaxmed.errors import UserError
from jaxmed.nn.cross_view import VIEWS as PAIR
from jaxmed.tasks.breast_task import SIDES, VIEWS
from jaxmed.train.setup import Run

Element = Mapping[str, np.ndarray]  # one case of a batch


@dataclass(frozen=True)
class Answer:
    """One diagnosis of a case: the network's logits are `output`; `name` says whose ("" the case's, or a breast's)."""

    output: str
    name: str
    classes: tuple[str, ...]

    def index(self, name: str | None, otherwise: int) -> int:
        """Of a class by name; UserError for a name that is none."""
        if name is None:
            return otherwise
        if name not in self.classes:
            raise UserError(f"--target={name!r} is no class of this network; it has {', '.join(self.classes)}")
        return self.classes.index(name)


class ImageCases:
    """One image per case, perhaps with views that a mask makes, and one class. Explained: the predicted class; of findings that
    do not exclude each other the last."""

    def __init__(self, run: Run):
        if not getattr(run.task, "classifies", True):
            raise UserError("--mode=explain shows what speaks for a class, and this network has none: see its report")
        self.run, self.inputs = run, run.steps.input_names
        self.default_class = -1 if getattr(run.task, "exclusive", True) else len(run.task.classes) - 1  # -1: the predicted one
        self.answers = (Answer("logits", "", tuple(run.task.classes)),)

    def unit(self, row: Mapping[str, Any]) -> str:
        """What gets a figure: the case itself."""
        return row["case_id"]

    def known(self) -> dict[str, str]:
        """{case id: unit}."""
        return {case.case_id: case.case_id for case in self.run.source.cases}

    def pictures(self, element: Element) -> dict[str, np.ndarray]:
        """The network's inputs, uint8 [h, w]."""
        return {name: element[name][..., 0] for name in self.inputs}

    def there(self, element: Element, picture: str) -> bool:
        """Whether the case has this picture."""
        return True

    def mask(self, index: int) -> np.ndarray | None:
        """The lesion's mask at the size of the pictures."""
        return self.run.data.cache.load(index)[1] if self.run.source.has_masks else None

    def truth(self, index: int) -> list[int]:
        """The class of each answer, -1 where not known."""
        return [self.run.source.cases[index].label]

    def place(self, look: int, looks: int, encoder: str, number: int) -> tuple[str, str, int]:
        """(name of the map, its picture, its answer): several inputs have an encoder each, one input may have several."""
        if len(self.inputs) == looks > 1:
            return self.inputs[look], self.inputs[look], 0
        return encoder or self.inputs[0], self.inputs[0], 0


class BreastCases:
    """Four views per study, two breasts. Explained: the last class (malignant) of the first task, each view's map from the
    logit of its own breast."""

    def __init__(self, run: Run):
        self.run, self.task = run, run.task.tasks[0]
        self.default_class = len(self.task.classes) - 1
        self.answers = tuple(Answer(f"{side}_{self.task.name}", side, tuple(self.task.classes)) for side in SIDES)
        self.views_of = views_of(run)

    def unit(self, row: Mapping[str, Any]) -> str:
        """The study of a breast."""
        return row["study_id"]

    def known(self) -> dict[str, str]:
        """Studies by their own ids and by those of their breasts."""
        studies = [study.study_id for study in self.run.source.studies]
        return {name: study for study in studies for name in (study, *(f"{study}:{side}" for side in SIDES))}

    def pictures(self, element: Element) -> dict[str, np.ndarray]:
        """The four views."""
        return {name: element["views"][k][..., 0] for k, name in enumerate(VIEWS)}

    def there(self, element: Element, picture: str) -> bool:
        """Views may be missing; the network then sees zeros."""
        return bool(element["present"][VIEWS.index(picture)])

    def mask(self, index: int) -> None:
        """Studies have no lesion masks."""
        return None

    def truth(self, index: int) -> list[int]:
        """The class of each breast."""
        targets = self.run.source.targets(index)
        return [targets[answer.output] for answer in self.answers]

    def place(self, look: int, looks: int, encoder: str, number: int) -> tuple[str, str, int]:
        """The view that is number `number` of those that this backbone reads."""
        view = self.views_of[look][number]
        return VIEWS[view], VIEWS[view], view // 2


class TwoViewCases:
    """The CC and the MLO view of one breast, and one class. Explained: the last class (malignant)."""

    def __init__(self, run: Run):
        classes = tuple(run.task.classes)
        self.run, self.default_class = run, len(classes) - 1
        self.answers = (Answer("logits", "", classes),)

    def unit(self, row: Mapping[str, Any]) -> str:
        """The breast."""
        return row["case_id"]

    def known(self) -> dict[str, str]:
        """{"<study>:left": itself}."""
        return {case.case_id: case.case_id for case in self.run.source.cases}

    def pictures(self, element: Element) -> dict[str, np.ndarray]:
        """Both views, uint8 [h, w]."""
        return {view: to_uint8(element[view][..., 0]) for view in PAIR}

    def there(self, element: Element, picture: str) -> bool:
        """Breasts that lack a view are no cases."""
        return True

    def mask(self, index: int) -> None:
        """Breasts have no lesion masks."""
        return None

    def truth(self, index: int) -> list[int]:
        """The class of the breast, -1 where not known."""
        return [self.run.source.cases[index].label]

    def place(self, look: int, looks: int, encoder: str, number: int) -> tuple[str, str, int]:
        """The view that an encoder is named after; one encoder for both has them side by side."""
        view = encoder.split(".")[0]
        view = view if view in PAIR else PAIR[number]
        return view, view, 0


def views_of(run: Run) -> list[list[int]]:
    """The views of each backbone, in its batch's order."""
    backbones = list(nnx.merge(run.steps.graph, run.steps.template).backbone_of)
    return [[view for view, its in enumerate(backbones) if its == k] for k in sorted(set(backbones))]


Cases = ImageCases | BreastCases | TwoViewCases


def cases_of(run: Run) -> Cases:
    """By the config's kind of run."""
    return {"two_views": TwoViewCases, "four_views": BreastCases}.get(run.config.task, ImageCases)(run)


def indices_of(run: Run, units: Sequence[str]) -> list[int]:
    """Rows of the source; UserError for cases that were left out of the cache."""
    rows = {case.case_id: index for index, case in enumerate(run.source.cases)}
    for unit in units:
        if rows[unit] in run.data.cache.skipped:
            raise UserError(f"case {unit!r} cannot be read: {run.data.cache.skipped[rows[unit]]}")
    return [rows[unit] for unit in units]
