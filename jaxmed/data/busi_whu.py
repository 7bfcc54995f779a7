"""BUSI-WHU (Huang et al., Mendeley Data, doi.org/10.17632/k6cpmwybk3): 927 images with masks, 560 of them benign.

Written from public descriptions of the set and tested on a synthetic tree only, never on the originals. Accepted:

    <split>/img/*.bmp with <split>/gt/*_anno.bmp      the Mendeley release (train, val or valid, test)
    <split>/images/* with <split>/masks/*             the authors' later release, class in the file name ("benign_0001")
    <class>/images/* with <class>/masks/*             one folder per class

The Mendeley release names no class. Then a file `labels.csv` (`image,label`, file names without folder) must lie in
data.dir. File names "12345-2.bmp" are taken as picture 2 of patient 12345. Published splits are not used.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxmed.data import records
from jaxmed.data.folder_rows import Problems, is_image
from jaxmed.data.sources import data_folder
from jaxmed.errors import UserError

CLASSES = ("benign", "malignant")
IMAGE_FOLDERS = ("img", "image", "images")
MASK_FOLDERS = ("gt", "mask", "masks", "label", "labels")
LABELS_FILE = "labels.csv"
WHERE = "download BUSI-WHU (doi.org/10.17632/k6cpmwybk3), unpack it and pass --config.data.dir=<its folder>"
_PATIENT = re.compile(r"^(\d+)-\d+$")


@dataclass(frozen=True)
class WhuFiles:
    """One image of the set, its mask, its class, and its patient where the file name tells."""

    case_id: str
    image: Path
    mask: Path
    label: str
    patient_id: str


def list_files(root: str | Path | None) -> list[WhuFiles]:
    """Every image under `root`, sorted by path.

    Raises:
        UserError: no folder, no images; and, all at once, images without a mask or without a class.
    """
    root = data_folder(root, WHERE)
    images = sorted(path for path in root.rglob("*") if _holder(path) in IMAGE_FOLDERS and is_image(path))
    if not images:
        raise UserError(f"{root}: no images in folders named {', '.join(IMAGE_FOLDERS)}; {WHERE}")
    given = _read_labels(root / LABELS_FILE)
    problems = Problems(root)
    files = [_describe(root, path, given, problems) for path in images]
    problems.raise_if_any()
    return files


def _holder(path: Path) -> str:
    """The name of the folder that says what a file is; "ori" below it is skipped."""
    parent = path.parent.parent if path.parent.name == "ori" else path.parent
    return parent.name.lower()


def _read_labels(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "label"} <= set(rows[0]):
        raise UserError(f"{path}: expected the columns image,label")
    return {Path(row["image"].strip()).name: row["label"].strip().lower() for row in rows}


def _describe(root: Path, image: Path, given: dict[str, str], problems: Problems) -> WhuFiles:
    name = image.relative_to(root).as_posix()
    mask = _find_mask(image)
    if mask is None:
        problems.add(name, f"no mask in a folder {', '.join(MASK_FOLDERS)} beside it ('<stem>' or '<stem>_anno')")
    label = given.get(image.name) or _label_of(root, image)
    if label not in CLASSES:
        problems.add(name, f"no class ({label or 'none named'})")
        problems.hint = f"the Mendeley release names no class: list every file in {root / LABELS_FILE} (image,label)"
    patient = _PATIENT.match(image.stem)
    return WhuFiles(name, image, mask or image, label, patient[1] if patient else "")


def _find_mask(image: Path) -> Path | None:
    nested = image.parent.name == "ori"
    base = image.parents[2] if nested else image.parents[1]
    for folder in (path for path in sorted(base.iterdir()) if path.name.lower() in MASK_FOLDERS):
        place = folder / "ori" if nested else folder
        for stem in (f"{image.stem}_anno", image.stem, f"{image.stem}_mask"):
            for path in sorted(place.glob(f"{stem}.*")):
                if is_image(path):
                    return path
    return None


def _label_of(root: Path, image: Path) -> str:
    for text in (image.stem, *image.relative_to(root).parts[:-1]):
        for label in CLASSES:
            if re.match(rf"^{label}(?![a-z])", text.lower()):
                return label
    return ""


class BusiWhu(records.ImageMaskBuilder):
    """Breast ultrasound images with lesion masks from Renmin Hospital of Wuhan University: benign, malignant."""

    name = "jaxmed_busi_whu"
    LABELS = CLASSES
    HOMEPAGE = "https://doi.org/10.17632/k6cpmwybk3"
    MANUAL_DOWNLOAD_INSTRUCTIONS = WHERE

    def _generate_examples(self, root: Path) -> Iterator[tuple[int, dict]]:
        for number, files in enumerate(list_files(root)):
            yield number, records.example(files.case_id, files.image, (files.mask,), files.label, files.patient_id)


class BusiWhuSource(records.RecordSource):
    """BUSI-WHU's cases; see the module's page for the layouts it takes."""

    name = "busi_whu"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("image",), predict: bool = False):
        list_files(data.get("dir"))  # complain about the folder before anything is written
        builder = records.prepare(BusiWhu, Path(data["dir"]).expanduser(), data)
        super().__init__(builder, data.get("classes") or CLASSES)
        self.notes.append("BUSI-WHU's layout was written from public descriptions: check these counts (560 / 367)")
