"""A model as a plain nested dict with string keys: what checkpoints, optimisers, converters and exports use."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

Tree = dict[str, Any]


def tree_of(model: nnx.Module) -> Tree:
    """Parameters and batch statistics of `model` as nested dicts; list indices become the keys "0", "1", ..."""
    return _string_keys(nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))))


def set_tree(model: nnx.Module, tree: Mapping) -> None:
    """Writes a tree (or a part of one) into `model` in place; an unknown path raises KeyError."""
    state = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    leaves = {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(state)}
    for path, value in flatten(tree).items():
        leaves[path].set_value(value)
    nnx.update(model, state)


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """{"a": {"0": x}} -> {"a.0": x}, in the order of the tree."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat.update(flatten(value, path + ".") if isinstance(value, Mapping) else {path: value})
    return flat


def unflatten(flat: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`."""
    tree: Tree = {}
    for path, value in flat.items():
        *folders, leaf = path.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def is_under(path: str, prefixes: tuple[str, ...]) -> bool:
    """Whether the dotted path lies at or below one of the prefixes ("layer1" covers "layer1.0.conv1", not "layer10")."""
    return any(path == p or path.startswith(p + ".") for p in prefixes)


def count(model: nnx.Module, trainable: bool | None = None) -> int:
    """Number of parameters without batch statistics; `trainable=True` leaves `model.frozen` out, False counts it alone."""
    flat = flatten(_string_keys(nnx.to_pure_dict(nnx.state(model, nnx.Param))))
    frozen = tuple(getattr(model, "frozen", ()))
    keep = [v for k, v in flat.items() if trainable is None or is_under(k, frozen) != trainable]
    return sum(int(leaf.size) for leaf in jax.tree.leaves(keep))


def _string_keys(tree: Any) -> Any:
    return {str(k): _string_keys(v) for k, v in tree.items()} if isinstance(tree, Mapping) else tree
