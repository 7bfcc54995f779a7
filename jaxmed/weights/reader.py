"""Weight files of any supported kind as one flat table of arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmed.errors import UserError
from jaxmed.weights.converted import locate, read_folder
from jaxmed.weights.keras_file import read_keras
from jaxmed.weights.torch_file import read_torch

# where training scripts put the weights; averaged weights come first, they are what the authors evaluate
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state", "model_state_dict")
WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel and torch.compile put these before every name
TORCH_SUFFIXES = (".pth", ".pt", ".p", ".bin", ".ckpt", ".tar")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a weight file by name, in the source's own naming and layout.

    .safetensors, .npz, PyTorch .pth / .pt / .bin (read without torch, nothing in the file is run), Keras .h5, and folders made
    by tools/convert_timm.py (our own naming). Weights inside a container (`state_dict`, `model`, ...; averaged ones first) are
    taken out, and `module.` in front of every name is dropped.

    Raises UserError, naming the file, where it is missing, truncated, damaged, of another kind, or asks for code to be run.
    """
    path = Path(path)
    if path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return as_arrays(_read_safetensors(path), path)
    if suffix == ".npz":
        return as_arrays(_read_npz(path), path)
    if suffix in (".h5", ".hdf5", ".keras"):
        return read_keras(path)
    if suffix in TORCH_SUFFIXES:
        return as_arrays(read_torch(path), path)
    raise UserError(f"{path}: unknown kind of weight file; .safetensors, .npz, .h5 and {', '.join(TORCH_SUFFIXES)} are read")


def open_weights(path_or_name: str | Path) -> tuple[dict[str, np.ndarray], bool]:
    """(arrays, whether they are in our own naming), from a path or the pretrained name of a converted folder."""
    path = locate(path_or_name)
    return read_state_dict(path), path.is_dir()


def as_arrays(found: Any, name: str | Path) -> dict[str, np.ndarray]:
    """The table of arrays inside what a file holds. Raises UserError naming the first entry that is not an array."""
    table = _unwrap(found, name)
    arrays = {}
    for key, value in dict.items(table) if isinstance(table, dict) else table.items():
        arrays[_bare(key, table)] = _array(value, key, name)
    if not arrays:
        raise UserError(f"{name}: holds no weights")
    return arrays


def _unwrap(found: Any, name: str | Path) -> Mapping:
    if not isinstance(found, Mapping):
        raise UserError(f"{name}: holds a {type(found).__name__}, not a table of weights; save the model's state_dict()")
    for container in CONTAINERS:
        if isinstance(found.get(container), Mapping):
            return _unwrap(found[container], name)
    return found


def _bare(key: str, table: Mapping) -> str:
    for wrapper in WRAPPERS:
        if all(isinstance(k, str) and k.startswith(wrapper) for k in table):
            return key.removeprefix(wrapper)
    return key


def _array(value: Any, key: Any, name: str | Path) -> np.ndarray:
    if not isinstance(key, str) or isinstance(value, Mapping | str | bytes | list | tuple | type(None)):
        raise UserError(f"{name}: entry {key!r} is a {type(value).__name__}, not an array; save the model's state_dict() alone")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a torch tensor on a GPU, in bfloat16, ...
        raise UserError(f"{name}: entry {key!r} cannot become an array ({error})") from error
    if array.dtype == object:
        raise UserError(f"{name}: entry {key!r} is a {type(value).__name__}, not an array; save the model's state_dict() alone")
    return array


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: truncated or damaged ({error}); fetch it again") from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path}: truncated, damaged, or holds Python objects ({error})") from error
