"""Networks with known weights, made without the cost of a random initialisation."""

import json
import zlib
from pathlib import Path

import numpy as np
from flax import nnx

import jaxmed
from jaxmed.tree import flatten, set_tree, tree_of, unflatten

FILES = Path(__file__).parent / "files"


def empty(name: str, num_classes: int | None = 3, **options) -> nnx.Module:
    """The network with shapes in place of arrays; load_weights fills it."""
    return nnx.eval_shape(lambda: jaxmed.create_model(name, num_classes=num_classes, **options))


def filled(name: str, num_classes: int | None = 3, seed: int = 0, **options) -> nnx.Module:
    """The network with different numbers in every leaf, the same in every call."""
    return fill(empty(name, num_classes, **options), seed)


def fill(model: nnx.Module, seed: int = 0) -> nnx.Module:
    """Numbers in every leaf, in place."""
    shapes = flatten(tree_of(model))
    set_tree(model, unflatten({path: _numbers(f"{seed}:{path}", leaf.shape) for path, leaf in shapes.items()}))
    return model


def leaves(model: nnx.Module) -> dict[str, np.ndarray]:
    """Path -> array."""
    return {path: np.asarray(leaf) for path, leaf in flatten(tree_of(model)).items()}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    """Same names, same bits."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def published_keys() -> dict[str, dict[str, list[int]]]:
    """{"timm/vgg16": {key: shape}, ...} of the live networks, as files/make.py found them."""
    return json.loads((FILES / "published_keys.json").read_text())


def _numbers(path: str, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    start = zlib.crc32(path.encode()) % 1000
    return ((np.arange(start, start + count, dtype=np.float32) % 8191) / 8191).reshape(shape)
