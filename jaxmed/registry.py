"""Names -> models. A model file registers one line per variant; nothing is imported before the first question."""

import difflib
import fnmatch
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

from flax import nnx

from jaxmed.errors import UserError

_MODELS: dict[str, tuple[type[nnx.Module], dict[str, Any]]] = {}
_PACKAGES = ("jaxmed.backbones", "jaxmed.models")


def register(name: str, **preset: Any) -> Callable:
    """Class decorator: `name` builds the class with these constructor options, which a caller may override.

        @register("resnet18", block=BasicBlock, depths=(2, 2, 2, 2))
        class ResNet(Backbone): ...
    """

    def add(build: type[nnx.Module]) -> type[nnx.Module]:
        if name in _MODELS:
            raise ValueError(f"two models are registered as {name!r}")
        _MODELS[name] = (build, preset)
        return build

    return add


def create_model(name: str, num_classes: int | None = 2, rngs: nnx.Rngs | None = None, **overrides: Any) -> nnx.Module:
    """A randomly initialised network.

    `num_classes=None` leaves the classifier off. `rngs` defaults to nnx.Rngs(0). `overrides` are constructor options
    (`dtype`, `in_channels`, `experts`, ...). Raises UserError for an unknown name or option.
    """
    build, preset = _find(name)
    options, valid = {"num_classes": num_classes, **preset, **overrides}, model_options(name)
    unknown = sorted(options.keys() - valid.keys())
    if unknown:
        raise UserError(f"model {name!r} has no option {', '.join(map(repr, unknown))}; its options: {', '.join(valid)}")
    return build(**options, rngs=nnx.Rngs(0) if rngs is None else rngs)


def model_options(name: str) -> dict[str, Any]:
    """The constructor options of a registered network and their defaults. Raises UserError for an unknown name."""
    build, preset = _find(name)
    parameters = inspect.signature(build.__init__).parameters.values()
    return {p.name: preset.get(p.name, p.default) for p in parameters if p.name not in ("self", "rngs")}


def list_models(pattern: str | None = None) -> list[str]:
    """Registered names, sorted; `pattern` filters as in a shell: list_models("csa_*")."""
    _import_models()
    return sorted(fnmatch.filter(_MODELS, pattern) if pattern else _MODELS)


def _find(name: str) -> tuple[type[nnx.Module], dict[str, Any]]:
    _import_models()
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=5, cutoff=0.4) or sorted(_MODELS)
        raise UserError(f"no model is named {name!r}; nearest: {', '.join(near)} (jaxmed.list_models() shows all)")
    return _MODELS[name]


@functools.cache
def _import_models() -> None:
    for package in _PACKAGES:
        for file in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{file.name}")
