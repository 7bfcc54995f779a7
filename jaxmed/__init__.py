"""jaxmed: train, evaluate and explain diagnosis networks for medical images, in JAX.

The names below are loaded on first use, so that data workers can import `jaxmed.data` without starting a JAX backend.
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "create_model": "jaxmed.registry",
    "list_models": "jaxmed.registry",
    "load_weights": "jaxmed.weights",
    "tree_of": "jaxmed.tree",
    "count": "jaxmed.tree",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'jaxmed' has no attribute {name!r}")
