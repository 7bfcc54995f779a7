"""Networks that prune windows prune fewer of them in the first epochs (X-Pruning, "Pruned transformer block")."""

import numpy as np
from ml_collections import ConfigDict

from jaxmed.nn.prune_ratio import warm_up_factors
from jaxmed.train.step import Steps


def warm_up(steps: Steps, config: ConfigDict, epoch: int) -> str:
    """Makes `steps.train` prune as epoch number `epoch` (from 0) does, r min(1, epoch / config.prune_warmup_epochs).

    The number of kept windows is a part of the compiled program: where an epoch changes it, the next step compiles again, five
    times at most. It depends on the epoch alone, so a resumed run goes on with the right one. Returns what to tell, or "".
    """
    if not config.prune_warmup_epochs:
        return ""
    factors = warm_up_factors(epoch, config.prune_warmup_epochs)
    size = tuple(np.broadcast_to(config.data.size, 2).tolist())
    if not steps.set_warm_up(factors, size):
        return ""
    return f"epoch {epoch + 1}: training prunes {factors[0]:.0%} of its final share of windows; the step is compiled for it"
