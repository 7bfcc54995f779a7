"""Image + mask records: what the tfds builders of published sets share, and the source that reads them.

Records hold the files' own bytes in array_record; nothing here needs TensorFlow (decoding through tfds would).
"""

import contextlib
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxmed.data import image_io
from jaxmed.data.cases import Case, Source
from jaxmed.data.sources import cache_root, check_classes

SPLIT = "images"  # one tfds split: train / val / test are the run's own, and grouped


class ImageMaskBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A tfds builder of images with masks. A subclass names LABELS and yields (number, `example(...)`) pairs."""

    VERSION = tfds.core.Version("1.0.0")
    LABELS: tuple[str, ...] = ()
    HOMEPAGE = ""

    def _info(self) -> tfds.core.DatasetInfo:
        # shape and encoding only matter to readers who decode through tfds; jaxmed decodes the bytes itself
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            homepage=self.HOMEPAGE,
            disable_shuffling=True,  # records keep the order of the folder
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "mask": tfds.features.Image(shape=(None, None, 1)),
                    "label": tfds.features.ClassLabel(names=list(self.LABELS)),
                    "case_id": tfds.features.Text(),
                    "patient_id": tfds.features.Text(),
                    "split": tfds.features.Text(),
                    "num_masks": tfds.features.Scalar(np.int32),
                    "image_file": tfds.features.Text(),
                    "mask_file": tfds.features.Text(),
                    "sha256": tfds.features.Text(),
                }
            ),
        )

    def _split_generators(self, dl_manager) -> dict:
        return {SPLIT: self._generate_examples(Path(dl_manager.manual_dir))}

    def _generate_examples(self, root: Path) -> Iterable[tuple[int, dict]]:
        raise NotImplementedError


def example(
    case_id: str, image: Path, masks: Sequence[Path], label: str, patient_id: str = "", split: str = ""
) -> dict:
    """The record of one case: bytes of the image and of its mask; several masks are united into one PNG.

    Raises:
        UserError: a file cannot be read; masks of one image that differ in size.
    """
    picture, mask = image_io.read_file(image), image_io.read_file(masks[0])
    if len(masks) > 1:
        union = image_io.unite([image_io.decode_mask(path) for path in masks], [str(path) for path in masks])
        mask = cv2.imencode(".png", 255 * union)[1].tobytes()
    return {
        "image": io.BytesIO(picture),
        "mask": io.BytesIO(mask),
        "label": label,
        "case_id": case_id,
        "patient_id": patient_id,
        "split": split,
        "num_masks": len(masks),
        "image_file": str(image),
        "mask_file": str(masks[0]),
        "sha256": hashlib.sha256(picture + b"|" + mask).hexdigest(),
    }


def folder_fingerprint(root: Path) -> str:
    """Changes when a file of the folder is added, removed, renamed, resized or rewritten."""
    digest = hashlib.sha256(str(root.resolve()).encode())
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        state = path.stat()
        digest.update(f"{path.relative_to(root)}|{state.st_size}|{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def prepare(builder_class: type[ImageMaskBuilder], root: Path, data: Mapping) -> ImageMaskBuilder:
    """A builder whose records are up to date with the folder `root`; written once under the cache directory.

    Written into a private folder and renamed, so that a kill or a second process never leaves half a set behind.
    """
    kind = f"{builder_class.name}-{builder_class.VERSION}"
    home = cache_root(data) / "records" / f"{kind}-{folder_fingerprint(root)}"
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix="incomplete-", dir=home.parent)
        try:
            print(f"preparing {builder_class.name} records from {root} (once)", flush=True)
            config = tfds.download.DownloadConfig(manual_dir=root)
            with _quiet():
                _open(builder_class, scratch).download_and_prepare(download_config=config)
            _publish(scratch, home)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return _open(builder_class, home)


def _publish(scratch: str, home: Path) -> None:
    try:
        os.rename(scratch, home)
    except OSError:
        if not home.is_dir():  # else another process was faster, and its folder is as good
            raise


def _open(builder_class: type[ImageMaskBuilder], folder: str | Path) -> ImageMaskBuilder:
    return builder_class(data_dir=str(folder), file_format="array_record")


@contextlib.contextmanager
def _quiet():
    """tfds' own progress bars and banners say 'Downloading', which worries people whose data never left the machine."""
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        yield


class RecordSource(Source):
    """A source that reads the records of an `ImageMaskBuilder`; keeps the cases whose label is in `classes`."""

    has_masks = True
    mask_origin = "expert (published with the data set)"

    def __init__(self, builder: ImageMaskBuilder, classes: Sequence[str]):
        super().__init__()
        self.classes = check_classes(classes, builder.LABELS)
        self.num_united = 0
        skip = tfds.decode.SkipDecoding()
        self._records = builder.as_data_source(split=SPLIT, decoders={"image": skip, "mask": skip})
        self._rows: list[int] = []
        self._sha256: list[str] = []
        for row in range(len(self._records)):
            self._add(row, self._records[row], builder.LABELS)
        self.notes = [f"{self.name}: " + ", ".join(f"{n} {name}" for name, n in self._counts().items())]

    def _add(self, row: int, record: dict, labels: tuple[str, ...]) -> None:
        label = labels[record["label"]]
        if label not in self.classes:
            return
        text = {key: record[key].decode() for key in ("case_id", "patient_id", "split", "sha256")}
        self.cases.append(Case(text["case_id"], self.classes.index(label), text["patient_id"], text["split"]))
        self._rows.append(row)
        self._sha256.append(text["sha256"])
        self.num_united += record["num_masks"] > 1

    def _counts(self) -> dict[str, int]:
        return {name: sum(case.label == k for case in self.cases) for k, name in enumerate(self.classes)}

    def read(self, index: int) -> dict[str, np.ndarray]:
        record = self._records[self._rows[index]]
        image_name, mask_name = record["image_file"].decode(), record["mask_file"].decode()
        image = image_io.decode_gray(record["image"], image_name)
        mask = image_io.decode_mask(record["mask"], mask_name)
        image_io.check_same_size(image, mask, image_name, mask_name)
        return {"image": image, "mask": mask}

    def fingerprint(self, index: int) -> str:
        return self._sha256[index]
