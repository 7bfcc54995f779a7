"""MTANet: PVTv2's official names in the encoder; blocks and levels carry their number and part in one name."""

import re

from jaxmed.weights.families.pvt_v2 import PVT_V2
from jaxmed.weights.family import Family, Naming, moved_under


def _block(match: re.Match) -> str:
    return f"rfb{int(match[1]) + 2}_1."


def _branch(match: re.Match) -> str:
    return f"rfb{int(match[1]) + 2}_1.branch{match[2]}."


MTANET = Family(
    name="mtanet",
    model="MTANet",
    models=("mtanet",),
    top=("fusion.fc1", "fusion.fc2", "fusion.fc3", "fusion.fc4", "fc_out1"),
    sign=r"agg\.conv_concat2\.conv\.(weight|kernel)",
    namings={
        "official": Naming(
            rules=(
                *moved_under("backbone.", PVT_V2.naming("official")),
                (r"rfb\.(\d)\.branches\.(\d)\.", _branch),
                (r"rfb\.(\d)\.", _block),
                (r"agg\.conv_upsample\.(\d)\.", lambda match: f"agg.conv_upsample{int(match[1]) + 1}."),
                (r"levels\.(\d)\.", lambda match: f"de{4 - int(match[1])}_"),
                (r"fusion\.", ""),
            ),
        ),
    },
)
