"""The most wrong cases as pictures: those whose true class got the lowest probability."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave
from scipy.ndimage import binary_erosion

from jaxmed.evaluate.metrics import from_positive, predicted_class
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.style import RED, new_figure, styled
from jaxmed.evaluate.table import read_predictions
from jaxmed.evaluate.workdir import headline_split

MANIFEST = "cases.csv"
YELLOW = (255, 215, 0)


@dataclass(frozen=True)
class WrongCase:
    """A case of the report's last section; picture is None where it was not saved."""

    case_id: str
    truth: str
    said: str
    probability: float
    wrong: bool
    picture: Path | None = None

    @property
    def caption(self) -> str:
        """Truth and probability in words."""
        verdict = f"network says {self.said}" if self.wrong else "right, but barely sure"
        return f"truth {self.truth}, {verdict}; probability of {self.truth} {100 * self.probability:.1f} %"


def most_wrong(table: Predictions, count: int = 10) -> list[WrongCase]:
    """The cases whose true class got the lowest probability, worst first.

    Repeats are averaged per case. Two classes: the true class's probability is taken from the positive one. A network
    without classes has none.
    """
    if table.masks_only:
        return []
    table = table.known().average_repeats()
    of_truth = from_positive(table.probabilities)[np.arange(len(table)), table.target]
    decided = predicted_class(table.probabilities)
    return [
        WrongCase(str(table.case_id[i]), table.classes[table.target[i]], table.classes[decided[i]],
                  float(of_truth[i]), bool(decided[i] != table.target[i]))
        for i in np.argsort(of_truth, kind="stable")[:count]
    ]


def outlined(image: UInt8[np.ndarray, "h w"], mask: np.ndarray | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """The gray image in colour, with the mask's inner border drawn in yellow, wide enough to see it in a thumbnail."""
    picture = np.repeat(image[..., None], 3, axis=-1)
    if mask is not None:
        inside = mask > 0
        picture[inside & ~binary_erosion(inside, iterations=max(1, round(max(image.shape) / 150)))] = YELLOW
    return picture


def save_case_pictures(workdir: str | Path, picture: Callable[[str], np.ndarray], count: int = 10) -> list[WrongCase]:
    """Writes figures/cases/<rank>.png for the most wrong cases, and cases.csv, which says whose picture each is.

    Args:
        picture: case id -> uint8 [h, w] or [h, w, 3] (`outlined` draws a mask's border).
    """
    workdir = Path(workdir)
    folder = workdir / "figures" / "cases"
    folder.mkdir(parents=True, exist_ok=True)
    table = read_predictions(workdir / "predictions.csv")
    cases = most_wrong(table.select(split=headline_split(table)), count)
    for rank, case in enumerate(cases, start=1):
        pixels = np.asarray(picture(case.case_id), np.uint8)
        pixels = outlined(pixels) if pixels.ndim == 2 else pixels
        imsave(folder / f"{rank}.png", np.ascontiguousarray(pixels))
    with open(folder / MANIFEST, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "case_id"])
        writer.writerows([f"{rank}.png", case.case_id] for rank, case in enumerate(cases, start=1))
    return cases


def wrong_cases(workdir: Path, table: Predictions, count: int = 10) -> list[WrongCase]:
    """The most wrong cases with their pictures, matched by case id: a picture of an older evaluation cannot slip in."""
    folder = workdir / "figures" / "cases"
    files: dict[str, Path] = {}
    if (folder / MANIFEST).exists():
        with open(folder / MANIFEST, newline="", encoding="utf-8") as file:
            files = {row["case_id"]: folder / row["file"] for row in csv.DictReader(file)}
    found = []
    for case in most_wrong(table, count):
        path = files.get(case.case_id)
        picture = path if path is not None and path.exists() else None
        found.append(WrongCase(case.case_id, case.truth, case.said, case.probability, case.wrong, picture))
    return found


@styled
def wrong_strip(cases: list[WrongCase]) -> Figure:
    """The pictures side by side, five to a row, with case id, truth and probability."""
    shown = [case for case in cases if case.picture is not None]
    columns = min(5, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(2.4 * columns, 2.9 * rows)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, case in zip(axes, shown, strict=False):
        ax.imshow(_square(imread(case.picture)))
        text = f"{case.case_id}\ntruth: {case.truth}\np({case.truth}) = {case.probability:.3f}"
        ax.set_title(text, fontsize=9, fontweight="normal", color=RED if case.wrong else "black")
    return figure


def _square(picture: np.ndarray) -> np.ndarray:
    """The picture in the middle of a black square, so that the strip's captions line up."""
    height, width = picture.shape[:2]
    side = max(height, width)
    square = np.zeros((side, side, 3), picture.dtype)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture[..., :3]
    return square
