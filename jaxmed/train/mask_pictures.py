"""Predicted masks as picture files: beside the true ones for a report, and at the input's own size for a prediction."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from jaxmed.evaluate.mask_files import FOLDER, CaseMasks, write_mask_files
from jaxmed.evaluate.predictions import PREFIX
from jaxmed.tasks.segmentation import HALF, mask_columns
from jaxmed.train.setup import Run

Cases = Mapping[str, np.ndarray]


def save_case_masks(run: Run, cases: Cases, split: str, workdir: Path | None = None) -> None:
    """Writes masks/ of one split below `workdir` (the run's); nothing for runs without masks."""
    if "true_mask" in cases:
        write_mask_files(workdir or run.workdir, case_masks(run, cases, split))


def case_masks(run: Run, cases: Cases, split: str) -> Iterator[CaseMasks]:
    """The evaluated cases with their pictures, at the network's size."""
    for i, predicted, true in zip(cases["case_id"], cases["mask_bytes"] >= HALF, cases["true_mask"], strict=True):
        picture, _ = run.data.cache.load(int(i))
        yield CaseMasks(run.source.cases[i].case_id, split, picture, predicted, true)


def native_mask(bytes_: UInt8[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """The mask at another size (height, width): probabilities bilinear, then the threshold, which leaves no steps."""
    return cv2.resize(bytes_, size[::-1], interpolation=cv2.INTER_LINEAR) >= HALF


def write_native_masks(folder: Path, run: Run, cases: Cases, rows: Sequence[dict]) -> list[dict]:
    """Writes masks/<n>.png, 0 and 255, of the size of each input, anew.

    Returns the rows with the file, the decision, and the mask's columns at that size, scored where the input has a mask.
    Predictions without masks stay as they are.
    """
    if "mask_bytes" not in cases:
        return list(rows)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / FOLDER).mkdir(parents=True)
    found = []
    for number, (i, bytes_, row) in enumerate(zip(cases["case_id"], cases["mask_bytes"], rows, strict=True), start=1):
        case, name = run.source.read(int(i)), f"{FOLDER}/{number:04d}.png"
        mask = native_mask(bytes_, case["image"].shape)
        cv2.imwrite(str(folder / name), 255 * mask.astype(np.uint8))
        true = case["mask"] > 0 if run.source.has_masks else None
        found.append(row | mask_columns(mask, true) | _decision(row, run.task.classes) | {"mask_file": name})
    return found


def _decision(row: Mapping, classes: Sequence[str]) -> dict[str, str]:
    """The class with the largest probability; nothing for a network without classes."""
    probabilities = {name: row[f"{PREFIX}{name}"] for name in classes if f"{PREFIX}{name}" in row}
    return {"predicted_class": max(probabilities, key=probabilities.get)} if probabilities else {}
