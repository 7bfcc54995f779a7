"""A folder of decoded cases: every case of a source is read and resized once, then memory-mapped.

One folder per (source contents, size, transform version), under `<cache_dir>/decoded/`: one .npy file per array, whose first
axis is the case, and about.json, which says what it is and which cases were left out with the reason. The folder is written
under a temporary name and renamed, so a reader sees all of it or nothing. All processes of a machine share the pixels through
the page cache.
"""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from jaxmed.data.reading import Progress, parallel_map
from jaxmed.errors import UserError

_STALE_SECONDS = 24 * 3600.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Log = Callable[[str], None]


class Readable(Protocol):
    """What a cache needs of a source."""

    name: str
    cases: list

    def fingerprint(self, index: int) -> str: ...


@dataclass(frozen=True)
class Plan:
    """How the cases of a source become arrays.

    `arrays`: name -> shape of one case, all of `dtype`. `decode(index)`: these arrays of one case, in this order; a UserError
    where it cannot be read. `key`: what decides the arrays besides the fingerprints of the cases. `what`: for messages.
    """

    arrays: Mapping[str, tuple[int, ...]]
    decode: Callable[[int], tuple[np.ndarray, ...]]
    key: list
    about: Mapping
    what: str
    size: str
    dtype: str = "uint8"

    @property
    def bytes_per_case(self) -> int:
        """Size on disk of one case."""
        return np.dtype(self.dtype).itemsize * sum(int(np.prod(shape)) for shape in self.arrays.values())


def decoded_folder(source: Readable, plan: Plan, cache_dir: Path | str, skip_bad: bool, log: Log) -> tuple[Path, dict]:
    """(folder, about.json) of the cache of `source`, decoding every case first if there is none yet.

    about["skipped"] has row -> reason of the cases that cannot be read, if `skip_bad`.

    Raises:
        UserError: unreadable cases (all of them are listed), a full disk or an unwritable `cache_dir`.
    """
    key, broken = _key(source, plan)
    folder = Path(cache_dir).expanduser() / "decoded" / key
    about = open_folder(folder, plan.arrays, len(source.cases))
    if about is None:
        try:
            about = _build(source, plan, folder, broken, skip_bad, log)
        except OSError as error:
            raise _disk_error(error, folder, len(source.cases) * plan.bytes_per_case) from error
    skipped = about["skipped"]
    if skipped and not skip_bad:
        raise UserError(_bad_files(skipped.values(), len(source.cases)))
    for row, reason in skipped.items():
        log(f"left out: {source.cases[row].case_id}: {reason}")
    return folder, about


def open_folder(folder: Path, arrays: Mapping[str, tuple[int, ...]], count: int) -> dict | None:
    """about.json of a finished cache, or None if there is none or it is damaged (a crash, a copy cut short)."""
    try:
        about = json.loads((folder / "about.json").read_text())
        about["skipped"] = {int(row): reason for row, reason in about["skipped"].items()}
        shapes = {name: np.load(folder / f"{name}.npy", mmap_mode="r").shape for name in arrays}
    except (OSError, ValueError, KeyError):
        return None
    return about if shapes == {name: (count, *shape) for name, shape in arrays.items()} else None


def _key(source: Readable, plan: Plan) -> tuple[str, dict[int, str]]:
    """The folder's name, and the cases whose files are not even there."""

    def fingerprint(index: int) -> tuple[str, str]:
        try:
            return source.fingerprint(index), ""
        except (UserError, OSError) as error:
            return f"unreadable: {error}", str(error)

    prints = list(parallel_map(fingerprint, len(source.cases)))
    broken = {row: reason for row, (_, reason) in enumerate(prints) if reason}
    text = json.dumps([*plan.key, [text for text, _ in prints]])
    return hashlib.sha256(text.encode()).hexdigest()[:32], broken


def _build(source: Readable, plan: Plan, folder: Path, broken: dict[int, str], skip_bad: bool, log: Log) -> dict:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(folder)
    work = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    work.mkdir()
    try:
        skipped = _decode_all(source, plan, work, broken, log)
        if skipped and not skip_bad:
            raise UserError(_bad_files(skipped.values(), len(source.cases)))
        about = {"source": source.name, "cases": len(source.cases), **plan.about, "skipped": skipped}
        (work / "about.json").write_text(json.dumps(about, indent=1))
        _publish(work, folder, plan, len(source.cases))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return about


def _decode_all(source: Readable, plan: Plan, work: Path, broken: dict[int, str], log: Log) -> dict[int, str]:
    """Writes the arrays in order with plain writes: a memory map would meet a full disk as a bus error."""

    def one(index: int):
        try:
            return broken[index] if index in broken else plan.decode(index)
        except UserError as error:
            return str(error)

    skipped, count = {}, len(source.cases)
    title = f"decoding {count} {plan.what} of '{source.name}' to {plan.size}, once"
    progress = Progress(title, count, log, plan.what)
    empty = tuple(np.zeros(shape, plan.dtype) for shape in plan.arrays.values())
    descr = np.lib.format.dtype_to_descr(np.dtype(plan.dtype))
    files = [open(work / f"{name}.npy", "wb") for name in plan.arrays]
    try:
        for file, shape in zip(files, plan.arrays.values(), strict=True):
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": (count, *shape)})
        for index, result in enumerate(parallel_map(one, count)):
            if isinstance(result, str):
                skipped[index], result = result, empty
            for file, array in zip(files, result, strict=True):
                file.write(array.tobytes())
            progress.step()
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    finally:
        for file in files:
            file.close()
    progress.end(f", kept in {work.parent}")
    return skipped


def _publish(work: Path, folder: Path, plan: Plan, count: int) -> None:
    """Gives the finished folder its name; another process may have been faster, with the same contents."""
    if folder.exists() and open_folder(folder, plan.arrays, count) is None:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        work.rename(folder)
    except OSError:
        if open_folder(folder, plan.arrays, count) is None:
            raise


def _remove_stale(folder: Path) -> None:
    """Removes what a killed build of the same cache left behind, a day later."""
    for left in folder.parent.glob(f"{folder.name}.*.tmp"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _bad_files(reasons, count: int) -> str:
    lines = [f"  {reason}" for reason in reasons]
    head = f"{len(lines)} of {count} cases cannot be read:"
    return "\n".join([head, *lines, "repair or remove them, or leave them out with data.skip_bad=True"])


def _disk_error(error: OSError, folder: Path, needed: int) -> UserError:
    fix = f"it needs {needed / 1e6:.0f} MB; free some space or choose another place with data.cache_dir or JAXMED_CACHE"
    what = "no space left" if error.errno in _DISK_FULL else f"cannot write ({error.strerror or error})"
    return UserError(f"image cache {folder.parent}: {what}; {fix}")
