"""The table of published weights, third_party/weights.toml."""

import difflib
import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmed.errors import UserError

RECIPE = ("mean", "std", "size", "interpolation")
_HERE = Path(__file__).resolve()
_PLACES = (_HERE.with_name("weights.toml"), _HERE.parents[2] / "third_party" / "weights.toml")  # a wheel, a clone


@functools.cache
def _table() -> dict[str, Any]:
    path = next((path for path in _PLACES if path.is_file()), None)
    if path is None:
        raise UserError(f"weights.toml is missing; it belongs at {_PLACES[1]} (a clone) or {_PLACES[0]} (an installed package)")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def defaults() -> dict[str, Any]:
    """What holds unless an entry says otherwise: ImageNet's mean and std, 224 pixels, 1000 classes."""
    return dict(_table()["defaults"])


def pretrained() -> dict[str, dict[str, Any]]:
    """{"resnet18.tv_in1k": {model, licence, hub and / or file, ...}}, defaults filled in, in the file's order."""
    entries = _table()["weights"].items()
    return {name: {"name": name, "model": name.split(".")[0], **defaults(), **entry} for name, entry in entries}


def by_file(file: str) -> dict[str, Any] | None:
    """The entry whose original checkpoint has this file name."""
    return next((entry for entry in pretrained().values() if entry.get("file") == file), None)


def by_model(model: str) -> list[dict[str, Any]]:
    """The entries of one architecture, the recommended one first."""
    return [entry for entry in pretrained().values() if entry["model"] == model]


def nearest(name: str) -> str:
    """The pretrained name that begins with this one or looks most like it, or ""."""
    longer = [known for known in pretrained() if known.startswith(name)] if name else []
    return next(iter(longer or difflib.get_close_matches(name, pretrained(), n=1)), "")


def recipe(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, std, size and interpolation of an entry, defaults where it says nothing."""
    full = {**defaults(), **entry}
    return {key: full[key] for key in RECIPE}
