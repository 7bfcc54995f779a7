"""Keras HDF5 weights as a flat table {"layer/kernel": array}."""

from pathlib import Path

import numpy as np

from jaxmed.errors import UserError


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """The variables of a Keras .h5 file under their own names ("conv1/kernel"), in the file's order.

    Files of `model.save_weights` / `model.save` (HDF5) name each variable; Keras 3 `.weights.h5` files number them
    ("layers/dense/vars/0"). Raises UserError for a damaged file, or without the optional package h5py.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f'{path}: reading Keras .h5 files needs h5py: pip install "jaxmed[keras]"') from error
    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            return _named(root) if "layer_names" in root.attrs else _numbered(root, h5py)
    except OSError as error:
        raise UserError(f"{path}: truncated, damaged or not an HDF5 file ({error}); fetch it again") from error


def _named(root) -> dict[str, np.ndarray]:
    variables = {}
    for layer in map(_text, root.attrs["layer_names"]):
        for name in map(_text, root[layer].attrs["weight_names"]):
            variables[name.split(":")[0]] = np.asarray(root[layer][name])
    return variables


def _numbered(root, h5py) -> dict[str, np.ndarray]:
    variables = {}
    root.visititems(lambda name, item: variables.update({name: np.asarray(item)}) if isinstance(item, h5py.Dataset) else None)
    return variables


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
