"""PyTorch checkpoint files, the zip format (torch >= 1.6) and the older plain one, read without torch."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxmed.errors import UserError
from jaxmed.weights.unpickle import Storage, load

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_torch(path: Path) -> Any:
    """The object that `torch.save` wrote, tensors as numpy arrays.

    Raises UserError for a truncated or damaged file, a TorchScript archive, and anything but tensors in plain containers.
    """
    with path.open("rb") as file:
        start = file.peek(4)
        if start[:2] == b"PK":
            return _read_zip(path)
        if start[:1] == b"\x80":
            return _read_legacy(file, path)
    raise UserError(f"{path}: not a PyTorch checkpoint (neither a zip archive nor a pickle); an empty file or an error page?")


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path)
    except (zipfile.BadZipFile, EOFError, KeyError) as error:
        raise UserError(f"{path}: truncated or damaged ({error}); fetch it again") from error


def _read_archive(archive: zipfile.ZipFile, path: Path) -> Any:
    names = set(archive.namelist())
    main = next((n for n in names if n == "data.pkl" or n.endswith("/data.pkl")), None)
    if main is None:
        raise UserError(f"{path}: a zip file, but not a PyTorch checkpoint (no data.pkl inside)")
    root = main.removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise UserError(f"{path}: a TorchScript archive, a program and not a table of weights; save its state_dict() instead")
    order = archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in names else "little"
    storages: dict[str, Storage] = {}

    def storage(pid: tuple) -> Storage:
        _, kind, key, _, count = pid[:5]
        if key not in storages:
            data = np.frombuffer(archive.read(f"{root}data/{key}"), _ordered(kind.dtype, order))
            if data.size != count:
                raise UserError(f"{path}: damaged: storage {key} holds {data.size} elements instead of {count}")
            storages[key] = Storage(data)
        return storages[key]

    return load(io.BytesIO(archive.read(main)), path, storage)


def _read_legacy(file: io.BufferedReader, path: Path) -> Any:
    """Pickles of magic number, protocol, system, the object and the order of its storages; then the bytes of each storage."""
    if load(file, path) != _LEGACY_MAGIC:
        raise UserError(f"{path}: a pickle, but not a PyTorch checkpoint")
    _, system = load(file, path), load(file, path)
    order = "big" if isinstance(system, dict) and system.get("little_endian") is False else "little"
    budget = path.stat().st_size  # a file cannot ask for more memory than it has bytes
    storages: dict[str, Storage] = {}

    def storage(pid: tuple) -> Storage:
        nonlocal budget
        _, kind, key, _, count = pid[:5]
        if key not in storages:
            dtype = _ordered(kind.dtype, order)
            budget -= count * dtype.itemsize
            if budget < 0 or count < 0:
                raise UserError(f"{path}: the file ends too early (its tensors need more bytes than it has); fetch it again")
            storages[key] = Storage(np.empty(count, dtype))
        part = pid[5] if len(pid) > 5 else None
        return storages[key] if part is None else Storage(storages[key].data[part[1] : part[1] + part[2]])

    found = load(file, path, storage)
    for key in load(file, path):
        _fill(storages[key].data, file, path)  # the tensors made above are views of these storages
    return found


def _fill(data: np.ndarray, file: io.BufferedReader, path: Path) -> None:
    count = int.from_bytes(file.read(8), "little")
    if count != data.size or file.readinto(data.view(np.uint8)) != data.nbytes:
        raise UserError(f"{path}: the file ends too early or is damaged (a storage of {data.size} elements); fetch it again")


def _ordered(dtype: Any, order: str) -> np.dtype:
    dtype = np.dtype(dtype)
    return dtype.newbyteorder(">") if order == "big" and dtype.itemsize > 1 else dtype
