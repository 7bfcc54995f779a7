"""What systems with a mask and a class return."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

EXTRAS = ("features",)  # given with aux=True alone


def mask_outputs(out: Mapping[str, Array], aux: bool) -> Array | dict[str, Array]:
    """`out` in float32: a dict, or, without `aux`, the mask logits alone where nothing else but `side_*` stands beside them.

    Without `aux` EXTRAS are left out.
    """
    out = {name: value.astype(jnp.float32) for name, value in out.items() if aux or name not in EXTRAS}
    alone = [name for name in out if not name.startswith("side_")] == ["mask_logits"]
    return out["mask_logits"] if alone and not aux else out
