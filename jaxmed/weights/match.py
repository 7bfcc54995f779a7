"""Published arrays against the leaves of one network: every key and every leaf is accounted for."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from jaxmed.tree import is_under
from jaxmed.weights.family import Family, Naming
from jaxmed.weights.layouts import Layout

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Report:
    """What `load_weights` did. mapped: our path -> published key; ignored: published keys; initialised: paths left alone.

    A leaf that stacks several published arrays (`Naming.stacked`) has one path per array."""

    mapped: dict[str, str]
    ignored: tuple[str, ...] = ()
    initialised: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"mapped {len(set(self.mapped.values()))} arrays onto {len(self.mapped)} leaves"]
        if self.ignored:
            lines.append(f"ignored {len(self.ignored)} keys: {_summary(self.ignored)}")
        if self.initialised:
            lines.append(f"left as initialised {len(self.initialised)} leaves: {_summary(self.initialised)}")
        return "\n".join(lines)


@dataclass
class Match:
    """The outcome for one network. values: our path -> array in our layout; parts: the same before the arrays of a stacked leaf
    (`Naming.stacked`) were put together; the rest is empty where everything fits."""

    parts: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    wrong: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)  # published key -> (its shape, the shape wanted)
    repeated: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Nothing is left over, missing or of another shape."""
        return not (self.unused or self.missing or self.wrong or self.repeated or self.broken)

    def check_finite(self) -> None:
        """Notes the keys that hold NaN or infinite values (a training that blew up, or a damaged file)."""
        self.broken = [self.mapped[path] for path, value in self.parts.items() if not np.isfinite(value).all()]

    def report(self) -> Report:
        """The public summary."""
        return Report(dict(self.mapped), tuple(self.ignored), tuple(self.initialised))


def match(
    arrays: Mapping[str, np.ndarray], leaves: Mapping[str, Any], family: Family | None, naming: Naming, new_head: bool = False
) -> Match:
    """Sorts every published key and every leaf (our path -> anything with a shape); changes nothing.

    With `new_head` the last linear layer is left alone on both sides.
    """
    result = Match()
    table = naming.parts(leaves)
    whole, leaves = leaves, {part: _shape(leaves[path], index) for part, (path, index) in table.items()}
    head = (family.head,) if family and new_head else ()
    wanted = naming.keys(path for path in leaves if not is_under(path, head))
    result.initialised = [path for path in leaves if is_under(path, head)]
    absent, cut_off = _absent_keys(leaves, family, naming, head), _absent_stages(leaves, family)
    copies = naming.copies(wanted)
    ranks = {key: rank for rank, key in enumerate(copies, 1)}
    for name in sorted(arrays, key=lambda name: ranks.get(naming.spell(name), 0)):  # as in torch, the last copy counts
        key = naming.spell(name)
        if key in copies:
            path = wanted[copies[key]]
            result.ignored += [result.mapped[path]] if path in result.mapped else []
            result.mapped.pop(path, None)
            key = copies[key]
        if key not in wanted:
            known = naming.ignores(key) or key in absent or is_under(key, cut_off)
            (result.ignored if known else result.unused).append(name)
        elif wanted[key] in result.mapped:
            result.repeated.append(name)
        else:
            _place(result, wanted[key], name, arrays[name], leaves[wanted[key]], naming.layout(wanted[key]))
    result.missing = [path for path in wanted.values() if path not in result.mapped]
    result.values = _together(result.parts, table, whole)
    return result


def _shape(leaf: Any, index: int | None) -> Shape:
    """The shape of a leaf, or of one part of it."""
    return tuple(leaf.shape) if index is None else tuple(leaf.shape[1:])


def _together(
    values: Mapping[str, np.ndarray], table: Mapping[str, tuple[str, int | None]], leaves: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The parts of each leaf stacked again; a leaf that lacks some is left out."""
    parts: dict[str, list[np.ndarray]] = {}
    for part, value in values.items():
        parts.setdefault(table[part][0], []).append((table[part][1], value))
    return {
        path: found[0][1] if found[0][0] is None else np.stack([value for _, value in sorted(found, key=lambda p: p[0])])
        for path, found in parts.items()
        if found[0][0] is None or len(found) == leaves[path].shape[0]
    }


def _absent_keys(leaves: Iterable[str], family: Family | None, naming: Naming, head: tuple[str, ...]) -> set[str]:
    """Keys of classifier layers that this network does not have, or that a new head replaces."""
    if family is None:
        return set()
    gone = [module for module in family.top if module in head or not any(is_under(path, (module,)) for path in leaves)]
    return family.top_keys(naming, gone)


def _absent_stages(leaves: Iterable[str], family: Family | None) -> tuple[str, ...]:
    """The last stages of the family, where the network is cut short before them."""
    stages = family.stages if family else ()
    there = [any(is_under(path, (stage,)) for path in leaves) for stage in stages]
    return stages[sum(there) :] if there == sorted(there, reverse=True) else ()


def _place(result: Match, path: str, name: str, array: np.ndarray, shape: Shape, layout: Layout) -> None:
    result.mapped[path] = name
    try:
        value = layout.to_jax(array)
    except ValueError:  # another rank than this layout knows
        value = None
    if value is None or value.shape != shape:
        wanted = layout.to_torch(np.empty(shape, np.int8)).shape
        result.wrong[name] = (array.shape, wanted)
    else:
        result.parts[path] = value


def _summary(names: Iterable[str], most: int = 3) -> str:
    """"num_batches_tracked (20), fc.weight, fc.bias": names that end alike are counted where there are many."""
    names = list(names)
    ends = Counter(name.rpartition(".")[2] for name in names)
    many = [f"*.{end} ({count})" for end, count in ends.items() if count > most]
    few = [name for name in names if ends[name.rpartition(".")[2]] <= most]
    return ", ".join(many + few)
