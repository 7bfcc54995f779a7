"""A published checkpoint as a folder that jaxmed reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.registry import create_model
from jaxmed.tree import flatten, tree_of
from jaxmed.weights import manifest
from jaxmed.weights.converted import sha256, write_folder
from jaxmed.weights.families import need_family
from jaxmed.weights.family import Family, Naming
from jaxmed.weights.match import Report, match
from jaxmed.weights.mismatch import complaint


@dataclass(frozen=True)
class Converted:
    """Weights under our paths and in our layouts; `num_classes` is None for a checkpoint without classifier."""

    leaves: dict[str, np.ndarray]
    num_classes: int | None
    report: Report


def convert(arrays: Mapping[str, np.ndarray], model: str, source: str, name: str | Path = "the state dict") -> Converted:
    """Published arrays -> the leaves of the registered network `model`, with as many classes as the arrays have.

    Raises the UserError of `load_weights` where they do not fit; `name` is for its message.
    """
    family = need_family(abstract(model), source)
    naming = family.naming(source)
    num_classes = _num_classes(arrays, family, naming)
    target = abstract(model, num_classes)
    leaves = flatten(tree_of(target))
    result = match(arrays, leaves, family, naming)
    result.check_finite()
    if not result.fits:
        raise UserError(complaint(result, arrays, target, source, str(name)))
    values = {path: result.values[path].astype(leaves[path].dtype) for path in leaves}
    return Converted(values, num_classes, result.report())


def save(folder: str | Path, weights: Converted, entry: Mapping[str, Any], source: str, file: Path) -> Path:
    """Writes weights.safetensors and weights.json; `entry` is the manifest's, `file` the checkpoint it came from."""
    return write_folder(
        folder,
        weights.leaves,
        {
            "name": entry["name"],
            "model": entry["model"],
            "tag": entry["name"].partition(".")[2],
            "num_classes": weights.num_classes,
            "licence": entry["licence"],
            "preprocessing": manifest.recipe(entry),
            "source": source,
            "source_file": file.name,
            "source_sha256": sha256(file),
            "source_url": entry.get("url") or entry.get("hub") or "",
            "leaves": len(weights.leaves),
            "jaxmed": jaxmed.__version__,
        },
    )


def abstract(model: str, num_classes: int | None = 2) -> nnx.Module:
    """The registered network with shapes instead of arrays."""
    return nnx.eval_shape(lambda: create_model(model, num_classes=num_classes))


def _num_classes(arrays: Mapping[str, np.ndarray], family: Family, naming: Naming) -> int | None:
    path = f"{family.head}.kernel"
    kernel = next((array for key, array in arrays.items() if naming.spell(key) == naming.key(path)), None)
    return None if kernel is None or kernel.ndim < 2 else int(naming.layout(path).to_jax(kernel).shape[-1])
