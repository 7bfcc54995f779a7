"""Published weights into a model, and a model's weights under their published names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmed.errors import UserError
from jaxmed.tree import flatten, set_tree, tree_of, unflatten
from jaxmed.weights.families import family_of, need_family
from jaxmed.weights.family import OWN, Family, Naming
from jaxmed.weights.match import Match, Report, match
from jaxmed.weights.mismatch import complaint
from jaxmed.weights.reader import as_arrays, open_weights


def load_weights(
    model: nnx.Module, weights: Mapping[str, Any] | str | Path, source: str = "timm", into: str | None = None,
    new_head: bool = False,
) -> Report:
    """Fills `model` in place with published weights, strictly; returns what went where.

    weights: a state dict, a checkpoint file, a folder made by tools/convert_timm.py, or the pretrained name of such a folder.
    source: who named the parameters: "timm", "torchvision", "official", "keras", or "jaxmed" (folders say so themselves).
    into: fills every submodule of this role instead (`model.roles`), each with all of the weights; classifier keys are ignored.
    new_head: leaves the last linear layer as it is, for another number of classes.

    Every key is used or on the family's ignore list and every leaf is filled; otherwise one UserError lists all unused keys,
    missing leaves and wrong shapes, and nothing is changed.
    """
    arrays, source, name = _open(weights, source)
    parts = _parts(model, into)
    done = {}
    for prefix, part in parts.items():
        family, naming = _rules(part, source)
        done[prefix] = match(arrays, flatten(tree_of(part)), family, naming, new_head)
        done[prefix].check_finite()
        if not done[prefix].fits:
            raise UserError(complaint(done[prefix], arrays, part, source, name))
    for prefix, part in parts.items():
        _write(part, done[prefix].values)
    return _joined(done)


def to_state_dict(model: nnx.Module, target: str = "timm") -> dict[str, np.ndarray]:
    """The weights of `model` under published names and in published layouts: the inverse of `load_weights`.

    Sources also hold counters that nothing here needs (num_batches_tracked); they are not made up.
    """
    family, naming = _rules(model, target)
    leaves = flatten(tree_of(model))
    parts = {
        part: np.asarray(leaves[path] if index is None else leaves[path][index])
        for part, (path, index) in naming.parts(leaves).items()
    }
    table = {
        key: np.array(naming.layout(path).to_torch(parts[path]), order="C") for key, path in naming.keys(parts).items()
    }
    return table | {copy: table[key] for copy, key in naming.copies(table).items()}


def _open(weights: Mapping[str, Any] | str | Path, source: str) -> tuple[dict[str, np.ndarray], str, str]:
    """(arrays, who named them, a name for messages)."""
    if isinstance(weights, Mapping):
        return as_arrays(weights, "the state dict"), source, "the state dict"
    arrays, converted = open_weights(weights)
    return arrays, "jaxmed" if converted else source, str(weights)


def _rules(part: nnx.Module, source: str) -> tuple[Family | None, Naming]:
    family = family_of(part) if source == "jaxmed" else need_family(part, source)
    return family, family.naming(source) if family else OWN


def _parts(model: nnx.Module, into: str | None) -> dict[str, nnx.Module]:
    """{path prefix: submodule} to fill."""
    if into is None:
        return {"": model}
    roles = getattr(model, "roles", {})
    if into not in roles:
        known = ", ".join(map(repr, roles)) or "none"
        raise UserError(f"{type(model).__name__} has no part named into={into!r}; its parts: {known}")
    return {path: _submodule(model, path) for path in roles[into]}


def _submodule(model: nnx.Module, path: str) -> nnx.Module:
    node: Any = model
    for name in path.split("."):
        if isinstance(node, nnx.List | nnx.Dict):
            node = node[int(name) if isinstance(node, nnx.List) else name]
        else:
            node = getattr(node, name)
    return node


def _write(part: nnx.Module, values: Mapping[str, np.ndarray]) -> None:
    leaves = flatten(tree_of(part))  # array() copies: the trainer donates its buffers, and parts must not share any
    set_tree(part, unflatten({path: jnp.array(value, leaves[path].dtype) for path, value in values.items()}))


def _joined(done: Mapping[str, Match]) -> Report:
    """One report for all parts; what is ignored is the same for each."""
    under = {prefix: f"{prefix}." if prefix else "" for prefix in done}
    mapped = {under[p] + path: key for p, result in done.items() for path, key in result.mapped.items()}
    initialised = tuple(under[p] + path for p, result in done.items() for path in result.initialised)
    ignored = dict.fromkeys(key for result in done.values() for key in result.ignored)
    return Report(mapped, tuple(ignored), initialised)
