"""The one error message for weights that do not fit: the most likely fix, then everything that is wrong."""

import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from jaxmed.registry import create_model, list_models
from jaxmed.tree import flatten, tree_of
from jaxmed.weights.families import FAMILIES, family_of
from jaxmed.weights.family import OWN, Family, Naming
from jaxmed.weights.match import Match, match

_CLOSE = 0.9  # a suggestion must account for this share of the arrays; below it silence is better


def complaint(result: Match, arrays: Mapping[str, np.ndarray], model: nnx.Module, source: str, name: str) -> str:
    """The text of the error: a hint first, then all unused keys, missing leaves and wrong shapes."""
    lines = [f"{name} (source={source!r}) does not fit {type(model).__name__}; nothing was changed"]
    hint = suggest(result, arrays, model, source)
    lines += [f"hint: {hint}"] if hint else []
    shapes = [f"{key} is {list(got)} where the model needs {list(want)}" for key, (got, want) in result.wrong.items()]
    for title, items in (
        ("keys that nothing uses", result.unused), ("leaves that no key fills", result.missing), ("wrong shapes", shapes),
        ("keys given twice, in two spellings", result.repeated), ("keys with NaN or infinite values", result.broken),
    ):  # fmt: skip
        if items:
            lines.append(f"{title} ({len(items)}): {', '.join(items)}")
    return "\n  ".join(lines)


def suggest(result: Match, arrays: Mapping[str, np.ndarray], model: nnx.Module, source: str) -> str:
    """The likely mistake in words, or ""."""
    family = family_of(model)
    if result.broken or result.repeated:
        return ""
    if family is None:
        return " or ".join(f"into={role!r} fills that part of the model" for role in getattr(model, "roles", {}))
    leaves = flatten(tree_of(model))
    if match(arrays, leaves, family, family.naming(source), new_head=True).fits:
        return "only the classifier differs: new_head=True keeps the model's own"
    for other, naming in _namings(family).items():
        if other != source and match(arrays, leaves, family, naming, new_head=True).fits:
            return f"the keys are named as source={other!r} names them"
    return _architecture(arrays)


def _architecture(arrays: Mapping[str, np.ndarray]) -> str:
    found = closest(arrays)
    if found is not None:
        name, source, part = found
        return f"the weights look like {name!r} (source={source!r}): {part:.0%} of their arrays fit it"
    family = next((family for family in FAMILIES if _signed(family, arrays)), None)
    return f"the keys look like a {family.name}, but of no variant that is registered" if family else ""


def closest(arrays: Mapping[str, np.ndarray]) -> tuple[str, str, float] | None:
    """(registry name, source, share of arrays that fit) of the architecture these arrays belong to, or None."""
    scores = [
        (name, source, share(arrays, network_leaves(name), family, naming))
        for family in FAMILIES if _signed(family, arrays)
        for name in _names(family)
        for source, naming in _namings(family).items()
        if not family.refuse(network(name), source)
    ]  # fmt: skip
    best = max(scores, key=lambda row: row[2], default=None)
    return best if best and best[2] >= _CLOSE else None


def share(arrays: Mapping[str, np.ndarray], leaves: Mapping[str, Any], family: Family, naming: Naming) -> float:
    """Arrays that fit, over all arrays and leaves that should; the last linear layer does not count."""
    result = match(arrays, leaves, family, naming, new_head=True)
    total = len(result.mapped) + len(result.unused) + len(result.missing)
    return (len(result.mapped) - len(result.wrong)) / max(total, 1)


@functools.cache
def network(name: str) -> nnx.Module:
    """A registered network with shapes instead of arrays."""
    return nnx.eval_shape(lambda: create_model(name, num_classes=1000))


@functools.cache
def network_leaves(name: str) -> dict[str, Any]:
    """Our path -> shape and dtype, for a registered network; no array is made."""
    return flatten(tree_of(network(name)))


def _namings(family: Family) -> dict[str, Naming]:
    return {**family.namings, "jaxmed": OWN}


def _signed(family: Family, arrays: Mapping[str, np.ndarray]) -> bool:
    return any(re.fullmatch(family.sign, key) for key in arrays)


def _names(family: Family) -> list[str]:
    return sorted({name for pattern in family.models for name in list_models(pattern)})
