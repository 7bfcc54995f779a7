"""Intermediate maps of a network, caught while it runs; the network does not know of it.

For the time of a `with` block the methods of the network's module classes are wrapped. What a module returns is known by the
module's path, found through the identity of the instance, and so the same for every network built or merged the same way.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

Slot = tuple[Array, Array]  # two arrays of a map's shape; see `tap`


@jax.custom_vjp
def tap(x: Array, slot: Slot) -> Array:
    """`x` itself. The gradient with respect to `slot` is (gradient with respect to x, x).

    Both leave through the backward pass, so that nothing is added to the forward one (its bits stay), and a map inside
    `jax.checkpoint`, which may not leave it as a value, is found as well.
    """
    return x


tap.defvjp(lambda x, slot: (x, x), lambda x, gradient: (gradient, (gradient, x)))


@dataclass(frozen=True)
class Seen:
    """An array [b, h, w, c] or [b, n, c] that a module returned.

    name: "layer4.1" where a call of the module at that path returned it, "encoder.features[3]" where it is the fourth array
    that a method returned; the second time the same name comes up it gets "#2".
    """

    name: str
    module: str
    call: int
    shape: tuple[int, ...]
    dtype: jnp.dtype

    @property
    def label(self) -> str:
        """The name without the number of the call."""
        return self.name.split("#")[0]


@contextlib.contextmanager
def catching(model: nnx.Module, slots: Mapping[str, Slot] | None = None) -> Iterator[list[Seen]]:
    """Calls of `model` inside the block append what they see to the list, in the order of execution, inner modules first.

    An array that several modules hand on appears once, under its first name. Those with a slot are tapped. Not for threads:
    the classes are wrapped for everybody as long as the block lasts.
    """
    watcher = _Watcher(model, slots or {})
    methods = _methods({type(module) for module in watcher.modules})
    try:
        for owner, name, method in methods:
            setattr(owner, name, watcher.wrap(name, method))
        yield watcher.found
    finally:
        for owner, name, method in methods:
            setattr(owner, name, method)
        watcher.arrays.clear()


class _Watcher:
    def __init__(self, model: nnx.Module, slots: Mapping[str, Slot]):
        named = [(".".join(map(str, path)), module) for path, module in nnx.iter_modules(model)]
        self.modules, self.slots = [module for _, module in named], slots
        self.paths = {id(module): path for path, module in named}
        self.found: list[Seen] = []
        self.calls: dict[str, int] = {}
        self.arrays: dict[int, Array] = {}  # kept, so that no other array gets the id

    def wrap(self, name: str, method: Callable) -> Callable:
        @functools.wraps(method)
        def call(module, *args, **kwargs):
            out = method(module, *args, **kwargs)
            path = self.paths.get(id(module))
            return out if path is None else self.see(path, name, out)

        return call

    def see(self, path: str, method: str, out: Any) -> Any:
        label = path if method == "__call__" else f"{path}.{method}".lstrip(".")
        self.calls[label] = call = self.calls.get(label, 0) + 1
        if type(out) in (list, tuple):
            return type(out)(self.one(path, f"{label}[{i}]", call, x) for i, x in enumerate(out))
        return self.one(path, label, call, out)

    def one(self, path: str, label: str, call: int, x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.ndim not in (3, 4) or id(x) in self.arrays:
            return x
        name = label if call == 1 else f"{label}#{call}"
        self.found.append(Seen(name, path, call, tuple(x.shape), x.dtype))
        self.arrays[id(x)] = x
        if name in self.slots:
            x = tap(x, self.slots[name])
            self.arrays[id(x)] = x
        return x


def _methods(classes: set[type]) -> list[tuple[type, str, Callable]]:
    """(class, name, function) of every method that the classes or their own bases define."""
    outside = set(nnx.Module.__mro__)
    owners = {owner for kind in classes for owner in kind.__mro__ if issubclass(owner, nnx.Module) and owner not in outside}
    return [
        (owner, name, method)
        for owner in owners
        for name, method in vars(owner).items()
        if isinstance(method, FunctionType) and (name == "__call__" or not name.startswith("__"))
    ]
