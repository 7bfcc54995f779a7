"""A source of small pictures in memory, which counts how often it is read."""

import cv2
import numpy as np

from jaxmed.data.cases import Case, Source
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
