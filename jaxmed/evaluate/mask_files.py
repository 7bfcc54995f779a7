"""Predicted and true masks of tested cases as pictures below a workdir, for the report's overlays.

    masks/0001.png         0 outside, 85 true only (missed), 170 predicted only (too much), 255 both
    masks/0001_image.png   the gray picture of the same size, as the network got it
    masks/index.csv        case_id,split,file,picture
"""

import csv
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from matplotlib.image import imread, imsave

from jaxmed.errors import UserError

FOLDER, INDEX = "masks", "index.csv"
COLUMNS = ("case_id", "split", "file", "picture")
TRUE, PREDICTED = 85, 170


@dataclass(frozen=True)
class CaseMasks:
    """One tested case: its picture and the two masks, all [h, w]."""

    case_id: str
    split: str
    picture: UInt8[np.ndarray, "h w"]
    predicted: Bool[np.ndarray, "h w"]
    true: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class MaskFile:
    """Where the masks of one case are."""

    case_id: str
    split: str
    file: Path
    picture: Path

    def load(self) -> CaseMasks:
        """Reads both files; UserError where one is missing or broken."""
        levels, picture = _gray(self.file), _gray(self.picture)
        return CaseMasks(self.case_id, self.split, picture, levels >= PREDICTED, np.isin(levels, (TRUE, TRUE + PREDICTED)))


def write_mask_files(workdir: str | Path, cases: Iterable[CaseMasks]) -> None:
    """Writes the folder anew, so that no mask of an older evaluation stays; the index comes last."""
    folder = Path(workdir) / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    for number, case in enumerate(cases, start=1):
        files = f"{number:04d}.png", f"{number:04d}_image.png"
        imsave(folder / files[0], _rgb(TRUE * case.true.astype(np.uint8) + PREDICTED * case.predicted.astype(np.uint8)))
        imsave(folder / files[1], _rgb(case.picture))
        rows.append((case.case_id, case.split, *files))
    with open(folder / INDEX, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def read_mask_files(workdir: str | Path) -> list[MaskFile]:
    """The cases of the index in its order; none where there is no index (a run without masks, a workdir of folds)."""
    folder = Path(workdir) / FOLDER
    if not (folder / INDEX).exists():
        return []
    with open(folder / INDEX, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [MaskFile(row["case_id"], row["split"], folder / row["file"], folder / row["picture"]) for row in rows]


def _rgb(levels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.repeat(levels[..., None], 3, axis=-1)


def _gray(path: Path) -> UInt8[np.ndarray, "h w"]:
    try:
        pixels = imread(path)
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read ({error}): evaluate again, or remove the folder {FOLDER}") from None
    return np.round(255 * pixels[..., 0]).astype(np.uint8)
