"""What a family's table says: how the published checkpoints spell the parameters of one of our network classes.

The rules go from our path to the published key. Loading applies them to every leaf of the model at hand and inverts the
resulting table, so one set of rules serves both directions and a round trip is exact by construction.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxmed.errors import UserError
from jaxmed.weights.layouts import AS_IS, Layout, default_layout

Rule = tuple[str, str | Callable[[re.Match], str]]

TORCH_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
BATCH_COUNTER = r"(.*\.)?num_batches_tracked"  # torch counts batches for a momentum of None, which nothing here uses


@dataclass(frozen=True)
class Naming:
    """How one source ("timm", "torchvision", ...) names a family.

    rules: (pattern, replacement) on the start of our path, whose leaf already has its published name; the first match wins,
    and a path that no rule matches keeps its name. layouts: (pattern of our whole path, Layout), the first match wins.
    spellings: rewrites of older published keys into today's. ignore: patterns of published keys that hold no parameter.
    copies: for networks that list one shared parameter several times: published keys -> {further key: the key it repeats},
    in the order in which torch loads them. stacked: pattern of our paths that hold one array per expert where the source has a
    module for each; its two groups are what stands before and after the expert's number in the source.
    """

    rules: tuple[Rule, ...] = ()
    layouts: tuple[tuple[str, Layout], ...] = ()
    spellings: tuple[Rule, ...] = ()
    ignore: tuple[str, ...] = (BATCH_COUNTER,)
    copies: Callable[[Iterable[str]], dict[str, str]] = lambda keys: {}
    leaves: Mapping[str, str] = field(default_factory=lambda: TORCH_LEAVES)
    stacked: str = ""

    def key(self, path: str) -> str:
        """Our path -> published key."""
        module, dot, leaf = path.rpartition(".")
        key = module + dot + self.leaves.get(leaf, leaf)
        for pattern, replacement in self.rules:
            renamed, count = re.subn(rf"^(?:{pattern})", replacement, key)
            if count:
                return renamed
        return key

    def keys(self, paths: Iterable[str]) -> dict[str, str]:
        """{published key: our path}; two paths under one key would be a mistake in the rules."""
        table: dict[str, str] = {}
        for path in paths:
            if table.setdefault(key := self.key(path), path) != path:
                raise AssertionError(f"the rules give {path} and {table[key]} the same key {key}")
        return table

    def parts(self, leaves: Mapping[str, Any]) -> dict[str, tuple[str, int | None]]:
        """{path of each array that the source has: (our path, which part of that leaf, None = all of it)}."""
        table: dict[str, tuple[str, int | None]] = {}
        for path, leaf in leaves.items():
            if self.stacked and (found := re.fullmatch(self.stacked, path)):
                table |= {f"{found[1]}.{e}.{found[2]}": (path, e) for e in range(leaf.shape[0])}
            else:
                table[path] = (path, None)
        return table

    def spell(self, key: str) -> str:
        """A published key in today's spelling."""
        for pattern, replacement in self.spellings:
            key = re.sub(pattern, replacement, key)
        return key

    def ignores(self, key: str) -> bool:
        """Whether the written ignore list names this key."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignore)

    def layout(self, path: str) -> Layout:
        """The array layout of a leaf."""
        return next((how for pattern, how in self.layouts if re.fullmatch(pattern, path)), default_layout(path))


OWN = Naming(layouts=((r".*", AS_IS),), ignore=(), leaves={})  # our own paths and layouts: what converted folders hold


@dataclass(frozen=True)
class Family:
    """One network class and its namings.

    model: name of the class. models: shell patterns of its registry names. top: our modules above the last feature map,
    absent where num_classes=None; the last of them is the linear layer that a new task replaces. sign: a pattern that every
    checkpoint of this family has a key for, and no other family's. refuse: why weights of a source do not belong into a network
    although every key and shape fits, or "". stages: modules that a network cut short lacks from some point on; every source
    names them as we do.
    """

    name: str
    model: str
    models: tuple[str, ...]
    top: tuple[str, ...]
    sign: str
    namings: Mapping[str, Naming]
    refuse: Callable[[Any, str], str] = lambda model, source: ""
    stages: tuple[str, ...] = ()

    @property
    def head(self) -> str:
        """The linear layer that a new task replaces."""
        return self.top[-1]

    def naming(self, source: str) -> Naming:
        """The rules for a source; "jaxmed" is our own naming. Raises UserError for one that publishes no such network."""
        if source == "jaxmed":
            return OWN
        if source not in self.namings:
            known = ", ".join(map(repr, self.namings))
            raise UserError(f"no key rules for {self.name} checkpoints from source={source!r}; there are rules for {known}")
        return self.namings[source]

    def top_keys(self, naming: Naming, modules: Iterable[str] | None = None) -> set[str]:
        """Published keys of the modules above the last feature map (or of some of them), whether the model has them or not."""
        modules = self.top if modules is None else modules
        return {naming.key(f"{module}.{leaf}") for module in modules for leaf in ("kernel", "scale", "bias")}


def moved_under(prefix: str, naming: Naming) -> tuple[Rule, ...]:
    """An encoder's rules for where it is a part of something larger, under the same name on both sides ("backbone.")."""

    def moved(replacement: str | Callable[[re.Match], str]) -> Callable[[re.Match], str]:
        return lambda match: prefix + (match.expand(replacement) if isinstance(replacement, str) else replacement(match))

    return tuple((re.escape(prefix) + pattern, moved(replacement)) for pattern, replacement in naming.rules)
