"""A pickle reader that can build tensors and plain containers, and nothing else; torch is not needed.

A pickle is a program: it names functions ("globals") and calls them, so loading a checkpoint from a stranger can run any code.
Here `find_class` answers for the handful of names below, with functions written here; every other name is refused before
anything is called.
"""

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxmed.errors import UserError

_DTYPES = {
    "Float": np.float32, "Double": np.float64, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_,
}  # fmt: skip
_TORCH_NAMES = (
    "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool float double half long int short "
    "preserve_format contiguous_format channels_last strided"
).split()


@dataclass(frozen=True)
class StorageKind:
    """The element type of a storage: what `torch.FloatStorage` and its kin stand for."""

    dtype: Any


@dataclass(frozen=True)
class Storage:
    """The elements of a storage, one flat array."""

    data: np.ndarray


class Inert:
    """Stands for an object nobody needs (the `argparse.Namespace` of a training script): takes any state, keeps none."""

    def __init__(self, *args: Any) -> None:
        del args

    def __setstate__(self, state: Any) -> None:
        del state


def load(stream: io.BufferedIOBase, name: str | Path, storage: Callable[[tuple], Storage] | None = None) -> Any:
    """Unpickles one object from `stream`; `storage` answers the file's persistent ids, `name` is for messages.

    Raises UserError for a refused global and for a damaged stream.
    """
    try:
        return _Unpickler(stream, name, storage).load()
    except UserError:
        raise
    except EOFError as error:
        raise UserError(f"{name}: the file ends too early (truncated download?); fetch it again") from error
    except Exception as error:  # a hostile or damaged stream can make the unpickler raise nearly anything
        raise UserError(f"{name}: damaged, or not a PyTorch checkpoint ({type(error).__name__}: {error})") from error


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream, name, storage) -> None:
        super().__init__(stream)
        self._name, self._storage = name, storage

    def find_class(self, module: str, name: str) -> Any:
        make = _ALLOWED.get(f"{module}.{name}")
        if make is None:
            raise UserError(
                f"{self._name}: refused: the file asks for the Python object {module}.{name}, and only tensors and plain "
                "containers are read from it. If you trust the file, save its state_dict alone as .safetensors and load that."
            )
        return make()

    def persistent_load(self, pid: Any) -> Storage:
        known = isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], StorageKind)
        if self._storage is None or not known:
            raise pickle.UnpicklingError("unknown kind of persistent id")
        return self._storage(pid)


def _rebuild_tensor(storage: Storage, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    """A strided view of a storage; one that leaves its storage is refused, since it would read foreign memory."""
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    elements, available = math.prod(size), storage.data.size
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or elements > available or (elements and last >= available):
        raise pickle.UnpicklingError(f"a tensor of shape {size} does not fit its storage of {available} elements")
    steps = tuple(s * storage.data.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(storage.data[offset:], size, steps, writeable=False)


def _first(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _function(function: Callable) -> Callable[[], Callable]:
    """A new wrapper for every file: a pickle may set attributes on what it is given, and must not reach the next file's."""
    return lambda: lambda *args: function(*args)


def _kind(dtype: Any) -> Callable[[], StorageKind]:
    return lambda: StorageKind(dtype)


_ALLOWED: dict[str, Callable[[], Any]] = {
    "collections.OrderedDict": _constant(OrderedDict),
    "torch.Size": _constant(tuple),
    "torch.device": _constant(Inert),
    "argparse.Namespace": _constant(Inert),
    "_codecs.encode": _function(_encode),
    "torch._utils._rebuild_tensor": _function(_rebuild_tensor),
    "torch._utils._rebuild_tensor_v2": _function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _function(_first),
    "torch._utils._rebuild_parameter_with_state": _function(_first),
    **{f"torch.{name}Storage": _kind(dtype) for name, dtype in _DTYPES.items()},
    **{f"torch.{name}": _constant(name) for name in _TORCH_NAMES},
}
