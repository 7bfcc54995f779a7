"""A running mean of the parameters (exponential moving average), one update per training step.

Batch statistics are no part of it: they are running means already. HSQformer-L evaluates with decay 0.9999.
"""

from typing import Any

import jax
import jax.numpy as jnp


def start(params: Any) -> Any:
    """The mean at step 0: the parameters. Copies, because the train step gives the buffers of its state away."""
    return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)


def update(ema: Any, params: Any, decay: float) -> Any:
    """decay * ema + (1 - decay) * params, as ema + (1 - decay) * (params - ema): exact where they are equal.

    `decay` is a number of the program, not an argument of the jitted step: in float32, 1 - 0.9999 would be wrong by 2e-4.
    """
    return jax.tree.map(lambda mean, leaf: mean + (1.0 - decay) * (leaf - mean), ema, params)
