"""Folders of converted weights: our own names and layouts, with the facts that must travel with them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmed.errors import UserError
from jaxmed.weights import manifest

WEIGHTS, FACTS = "weights.safetensors", "weights.json"


def write_folder(folder: str | Path, leaves: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Path:
    """Writes `leaves` (our dotted paths) and `facts` (name, licence, preprocessing, ...); a reader sees all or nothing."""
    from safetensors.numpy import save

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS).unlink(missing_ok=True)  # the facts come last: a folder without them is unfinished
    _replace(folder / WEIGHTS, save({path: np.ascontiguousarray(leaf) for path, leaf in leaves.items()}))
    _replace(folder / FACTS, (json.dumps(facts, indent=2) + "\n").encode())
    return folder


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def read_folder(folder: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a converted folder under our dotted paths. Raises UserError naming what is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    facts, file = read_facts(folder), Path(folder) / WEIGHTS
    try:
        arrays = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file}: missing, truncated or damaged ({error}); convert it again") from error
    if len(arrays) != facts.get("leaves", len(arrays)):
        raise UserError(f"{file}: {len(arrays)} arrays, but {FACTS} speaks of {facts['leaves']}; convert it again")
    return arrays


def read_facts(folder: str | Path) -> dict[str, Any]:
    """What weights.json says. Raises UserError where the folder was not made by tools/convert_timm.py."""
    file = Path(folder) / FACTS
    if not file.is_file():
        raise UserError(f"{folder}: not a folder of converted weights (no {FACTS}); make one with tools/convert_timm.py")
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        return {**facts, "preprocessing": manifest.recipe(facts["preprocessing"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged ({type(error).__name__}: {error}); convert the weights again") from error


def locate(path_or_name: str | Path) -> Path:
    """A path as it is; a pretrained name ("resnet18.tv_in1k") as the folder it was converted into.

    Names are looked for in ./weights and in the cache ($JAXMED_CACHE or ~/.cache/jaxmed). Raises UserError with the command.
    """
    path = Path(path_or_name)
    if path.exists():
        return path
    name = str(path_or_name)
    for folder in (Path("weights") / name, cache_dir() / "weights" / name):
        if folder.is_dir():
            return folder
    if name in manifest.pretrained():
        raise UserError(f"{name}: not converted yet; run: python tools/convert_timm.py --model {name} --out weights/{name}")
    near = manifest.nearest(name)
    raise UserError(f"{name}: no such file or folder, and no pretrained name" + (f"; did you mean {near}?" if near else ""))


def preprocessing(path_or_name: str | Path = "") -> dict[str, Any]:
    """How images were prepared for pretrained weights: {"mean": 3 floats, "std": 3 floats, "size": pixels, "interpolation"}.

    From the converted folder, else from the manifest by name or by the name of the checkpoint file; ImageNet's mean and std,
    224 and bilinear for "" and for files nobody knows. Images are in [0, 1] before (x - mean) / std.
    Raises UserError for a name or path that does not exist.
    """
    if not str(path_or_name):
        return manifest.recipe({})
    path = Path(path_or_name)
    known = None if path.is_dir() else manifest.pretrained().get(str(path_or_name)) or manifest.by_file(path.name)
    if known is None and (path := locate(path_or_name)).is_dir():
        known = read_facts(path)["preprocessing"]
    return manifest.recipe(known or {})


def sha256(path: str | Path) -> str:
    """Hex digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """Where things that can be made again are kept."""
    return Path(os.environ.get("JAXMED_CACHE") or Path.home() / ".cache" / "jaxmed")
