"""MPViT: our names are the published ones. Those list the position encodings that all layers of a path share once per use."""

import re
from collections.abc import Iterable

from jaxmed.weights.family import Family, Naming


def _copies(keys: Iterable[str]) -> dict[str, str]:
    """Each layer repeats its path's cpe and crpe, and the layer's attention the crpe once more; torch goes layer by layer."""
    keys = list(keys)
    layers = {match[0]: match for key in keys if (match := re.match(r"(.*\.mhca_blks\.\d+\.)MHCA_layers\.(\d+)\.", key))}
    table = {}
    for layer in sorted(layers.values(), key=lambda match: int(match[2])):
        for key in keys:
            if shared := re.fullmatch(re.escape(layer[1]) + r"(cpe|crpe)(\..*)", key):
                table[layer[0] + shared[1] + shared[2]] = key
                if shared[1] == "crpe":
                    table[f"{layer[0]}factoratt_crpe.crpe{shared[2]}"] = key
    return table


MPVIT = Family(
    name="mpvit",
    model="MPViT",
    models=("mpvit_*",),
    top=("cls_head.cls",),
    sign=r"mhca_stages\.0\.mhca_blks\.0\..*",
    namings={"official": Naming(copies=_copies)},
)
