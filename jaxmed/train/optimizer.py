"""Optimisers from a config. The learning rate stays outside: the step multiplies by it, so a schedule never recompiles."""

import optax
from ml_collections import ConfigDict

from jaxmed.errors import UserError
from jaxmed.tree import Tree, flatten, unflatten


def make_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """`config.name` "adam" (torch's defaults: betas 0.9, 0.999, `config.eps` 1e-8) or "sgd" (momentum 0.9).

    Adam's `update` takes b1 as an extra argument, which may change from step to step. `config.weight_decay` is decoupled
    (AdamW) and acts on everything, or with `config.decay_all=False` as `decayed` says; `config.clip_norm` > 0 clips the global
    gradient norm first. The result is a direction; the train step applies `-learning_rate` to it.
    """
    rules = {
        "adam": lambda: _adam(config.b1, config.b2, config.eps),
        "sgd": lambda: optax.trace(decay=config.b1),
    }
    if config.name not in rules:
        raise UserError(f"config.optimizer.name={config.name!r} is unknown; choose one of {sorted(rules)}")
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    mask = None if config.decay_all else decayed
    decay = [optax.add_decayed_weights(config.weight_decay, mask)] if config.weight_decay > 0 else []
    return optax.with_extra_args_support(optax.chain(*clip, rules[config.name](), *decay))


def decayed(params: Tree) -> Tree:
    """True for matrices and convolution kernels; False for biases, norms, tables of positions and learned tokens."""
    return unflatten({path: path.split(".")[-1].endswith(("kernel", "weight")) for path in flatten(params)})


def _adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    def update(grads, state, params=None, *, b1=b1, **_):
        return optax.scale_by_adam(b1, b2, eps=eps).update(grads, state, params)

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam(b1, b2).init, update)
