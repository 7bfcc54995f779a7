"""Sources for tests: small pictures in memory that count how often they are read, and labels without pixels."""

import functools

import cv2
import numpy as np

from jaxmed.data.cases import Case, Source
from jaxmed.data.similarity import thumbnail
from jaxmed.errors import UserError


class FakeSource(Source):
    """n pictures of h x w random low-frequency texture with an elliptic lesion; classes alternate."""

    name, classes, has_masks, mask_origin = "fake", ("benign", "malignant"), True, "made up"

    def __init__(self, count=12, patients=None, splits=None, labels=None, size=(40, 56)):
        super().__init__()
        labels = [row % 2 for row in range(count)] if labels is None else labels
        self.cases = [
            Case(f"case {row}", label, patients[row] if patients else "", splits[row] if splits else "")
            for row, label in enumerate(labels)
        ]
        self.images = [_texture(row, size) for row in range(count)]
        self.masks = [_lesion(row, size) for row in range(count)]
        self.bad = {}  # row -> message
        self.reads = 0

    def read(self, index):
        self.reads += 1
        if index in self.bad:
            raise UserError(self.bad[index])
        case = {"image": self.images[index]}
        return case | {"mask": self.masks[index]} if self.has_masks else case

    def fingerprint(self, index):
        return f"fake {self.bad.get(index, '')} {self.images[index].sum()} {self.masks[index].sum()}"


def _texture(row, size):
    small = np.random.default_rng(row).integers(0, 255, (6, 6), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def _lesion(row, size):
    mask = np.zeros(size, np.uint8)
    center = (size[1] // 2, size[0] // 2)
    return cv2.ellipse(mask, center, (size[1] // 4, size[0] // 4 + row % 3), 0, 0, 360, 1, -1)


class LabelSource(Source):
    """Labels without pixels, for splits; `thumbnails` are random, so nothing resembles anything."""

    name, classes = "labels", ("benign", "malignant")

    def __init__(self, labels, patients=None, splits=None):
        super().__init__()
        self.cases = [
            Case(f"case {row}", int(label), patients[row] if patients else "", splits[row] if splits else "")
            for row, label in enumerate(labels)
        ]
        self.thumbnails = np.random.default_rng(0).integers(0, 255, (len(labels), 32, 32), np.uint8)

    def copy_image(self, row, onto):
        """Makes the image of case `onto` a copy of `row`'s."""
        self.thumbnails[onto] = self.thumbnails[row]


@functools.cache
def load_busi(folder):
    """The published images of all three classes: (source of labels, thumbnails)."""
    classes = ("benign", "malignant", "normal")
    files = [file for name in classes for file in sorted(folder.glob(f"{name}/*.png")) if "_mask" not in file.name]
    source = LabelSource([classes.index(file.parent.name) for file in files])
    source.classes = classes
    source.cases = [Case(file.stem, case.label) for file, case in zip(files, source.cases, strict=True)]
    source.thumbnails = np.stack([thumbnail(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)) for file in files])
    return source


def only_tumours(source):
    """The same source without its normal cases."""
    keep = [row for row, case in enumerate(source.cases) if case.label < 2]
    part = LabelSource([source.cases[row].label for row in keep])
    part.cases, part.thumbnails = [source.cases[row] for row in keep], source.thumbnails[keep]
    return part
