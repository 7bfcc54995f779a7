"""What mixture-of-experts layers did in an epoch, as numbers of metrics.jsonl.

router_load_<part><layer>_<expert>: share of the routed token slots that an expert got; router_entropy_<part><layer>: of the
router's softmax, in nats, 0 to log(experts). No layer drops tokens: there is no capacity limit, so the drop rate is 0.
"""

from collections.abc import Mapping, Sequence

from jaxtyping import Array

Routers = Sequence[tuple[str, int, int]]  # part, layers, experts


def router_meters(routers: Routers) -> tuple[str, ...]:
    """Names of the numbers."""
    loads = (f"router_load_{part}{k}_{e}" for part, layers, experts in routers for k in range(layers) for e in range(experts))
    return (*loads, *(f"router_entropy_{part}{k}" for part, layers, _ in routers for k in range(layers)))


def router_values(out: Mapping[str, Mapping[str, Array]], routers: Routers) -> dict[str, Array]:
    """The numbers of one batch, from router_load {part: [layers, experts]} and router_entropy {part: [layers]}."""
    values = {}
    for part, layers, experts in routers:
        load, entropy = out["router_load"][part], out["router_entropy"][part]
        values |= {f"router_load_{part}{k}_{e}": load[k, e] for k in range(layers) for e in range(experts)}
        values |= {f"router_entropy_{part}{k}": entropy[k] for k in range(layers)}
    return values
