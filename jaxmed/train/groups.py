"""Parameter groups: other learning rates for parts of a network, named by path."""

from collections.abc import Mapping

from jaxmed.errors import UserError
from jaxmed.tree import Tree, flatten, is_under, unflatten


def rate_factors(params: Mapping, factors: Mapping[str, float]) -> Tree:
    """A factor of the learning rate for every leaf of `params`, as a tree of the same structure.

    Args:
        factors: {path prefix: factor}; "convnext" covers "convnext.stem.0.kernel", not "convnext2". The longest prefix
            wins; leaves under none have factor 1.

    Raises:
        UserError: a prefix that covers no parameter, or a negative factor.
    """
    paths = list(flatten(params))
    for prefix, factor in factors.items():
        if not any(is_under(path, (prefix,)) for path in paths):
            top = ", ".join(sorted({path.split(".")[0] for path in paths}))
            raise UserError(f"config.optimizer.factors: {prefix!r} covers no trained parameter; the network has {top}")
        if factor < 0:
            raise UserError(f"config.optimizer.factors: {prefix!r} has the negative factor {factor:g}")
    return unflatten({path: _factor(path, factors) for path in paths})


def _factor(path: str, factors: Mapping[str, float]) -> float:
    covering = [prefix for prefix in factors if is_under(path, (prefix,))]
    return float(factors[max(covering, key=len)]) if covering else 1.0
