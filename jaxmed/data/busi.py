"""BUSI (Al-Dhabyani et al., Data in Brief 2020): its published folder layout as a tfds builder and as a source.

    Dataset_BUSI_with_GT/benign/benign (1).png, benign (1)_mask.png, and for 17 images benign (4)_mask_1.png, ...
                         malignant/..., normal/...

The builder needs no TensorFlow: it stores each file's bytes (array_record), which are read back with SkipDecoding and
decoded by `image_io`. Several masks of an image are united.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxmed.data import records
from jaxmed.data.sources import first_ten
from jaxmed.errors import UserError

FOLDERS = ("normal", "benign", "malignant")
DEFAULT_CLASSES = ("benign", "malignant")
WHERE = (
    "download BUSI (Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 2020, "
    "doi.org/10.1016/j.dib.2019.104863), unzip it and pass --config.data.dir=.../Dataset_BUSI_with_GT"
)
_NAME = re.compile(r"^(?P<case>(?:normal|benign|malignant) \(\d+\))(?P<mask>_mask(?:_\d+)?)?\.png$")


@dataclass(frozen=True)
class BusiFiles:
    """One image and its masks, as paths."""

    case_id: str
    image: Path
    masks: tuple[Path, ...]


def find_root(folder: str | Path | None) -> Path:
    """The folder that holds benign/ and malignant/: `folder` itself, or the published folder inside it."""
    if not folder:
        raise UserError(f"data.dir is not set; {WHERE}")
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.dir={str(folder)!r} is not a folder; {WHERE}")
    for root in (folder, folder / "Dataset_BUSI_with_GT"):
        if (root / "benign").is_dir() or (root / "malignant").is_dir():
            return root
    raise UserError(f"data.dir={str(folder)!r} has no subfolder benign/ or malignant/; {WHERE}")


def list_files(root: Path) -> list[BusiFiles]:
    """Every image with its masks, in the order normal, benign, malignant and by number.

    Raises:
        UserError: no image; images without a mask or masks without an image, all of them named.
    """
    images, masks = {}, {}
    for path in (p for name in FOLDERS for p in sorted((root / name).glob("*.png"))):
        match = _NAME.match(path.name)
        if match is None:
            raise UserError(f"{path}: not a name of BUSI's layout ('benign (1).png', 'benign (1)_mask.png'); remove it")
        if match["mask"]:
            masks.setdefault(match["case"], []).append(path)
        else:
            images[match["case"]] = path
    if not images:
        raise UserError(f"{root}: no images named like 'benign (1).png'; {WHERE}")
    _check_pairs(root, images, masks)
    order = sorted(images, key=lambda case: (FOLDERS.index(case.split()[0]), int(case.split("(")[1][:-1])))
    return [BusiFiles(case, images[case], tuple(masks[case])) for case in order]


def _check_pairs(root: Path, images: dict, masks: dict) -> None:
    bare = sorted(set(images) - set(masks))
    lone = sorted(set(masks) - set(images))
    if bare:
        raise UserError(
            f"{root}: {len(bare)} images have no mask file: {', '.join(bare)}; BUSI gives every image a '..._mask.png' "
            "(an all-black one for normal): the copy is incomplete, unzip it again"
        )
    if lone:
        raise UserError(f"{root}: {len(lone)} masks have no image: {first_ten(lone)}; the copy is incomplete")


class Busi(records.ImageMaskBuilder):
    """Breast ultrasound images with lesion masks: normal, benign, malignant."""

    name = "jaxmed_busi"
    LABELS = FOLDERS
    HOMEPAGE = "https://doi.org/10.1016/j.dib.2019.104863"
    MANUAL_DOWNLOAD_INSTRUCTIONS = WHERE

    def _generate_examples(self, root: Path) -> Iterator[tuple[int, dict]]:
        for number, files in enumerate(list_files(find_root(root))):
            yield number, records.example(files.case_id, files.image, files.masks, files.image.parent.name)


class BusiSource(records.RecordSource):
    """BUSI's cases of `data.classes` (default benign, malignant; add "normal", whose masks are empty)."""

    name = "busi"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("image",), predict: bool = False):
        root = find_root(data.get("dir"))
        list_files(root)  # complain about the folder before anything is written
        super().__init__(records.prepare(Busi, root, data), data.get("classes") or DEFAULT_CLASSES)
        self.notes.append(f"{self.num_united} images have several masks: united")
