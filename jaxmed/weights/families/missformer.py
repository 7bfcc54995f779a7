"""MISSFormer: PVTv2's names in the encoder; the layers of bridge and decoder have numbers in their names."""

import re

from jaxmed.weights.families.pvt_v2 import PVT_V2
from jaxmed.weights.family import Family, Naming, moved_under


def _bridge(match: re.Match) -> str:
    layer, part, number, depthwise = match.groups()
    inside = f"{part}{int(number) + (part == 'mixffn')}." if part else ""  # one counts from 1, the other from 0
    return f"bridge.bridge_layer{int(layer) + 1}.{inside}{'dwconv.dwconv.' if depthwise else ''}"


def _level(match: re.Match) -> str:
    return f"decoder_{match[1]}.layer_former_{int(match[2]) + 1}.{'mlp.dwconv.dwconv.' if match[3] else ''}"


MISSFORMER = Family(
    name="missformer",
    model="MISSFormer",
    models=("missformer",),
    top=("head",),
    sign=r"bridge\.(bridge_layer1|layers\.0)\.attn\.q\.(weight|kernel)",
    namings={
        "official": Naming(
            rules=(
                *moved_under("backbone.", PVT_V2.naming("official")),
                (r"bridge\.layers\.(\d)\.(?:(attn\.scale_reduce\.sr|mixffn)\.(\d)\.(dwconv\.)?)?", _bridge),
                (r"decoder\.(\d)\.layer_former\.(\d)\.(mlp\.dwconv\.)?", _level),
                (r"decoder\.(\d)\.", r"decoder_\1."),
                (r"mask_head\.", "decoder_0.last_layer."),
            ),
        ),
    },
)
