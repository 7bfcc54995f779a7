"""UNet++: the names of the common 2-D release (nested) and of the authors' network within nnU-Net."""

import re

from jaxmed.weights.family import Family, Naming
from jaxmed.weights.layouts import TRANSPOSED

_DEPTH = 5  # of the nnU-Net variant
_LAYER = {"conv": "conv", "bn": "instnorm"}  # called so whatever the norm is


def _node(match: re.Match) -> str:
    """X^(i,j) lies in the list of its diagonal, where the deepest comes first."""
    i, j, place, layer = int(match[1]), int(match[2]), int(match[3]) - 1, _LAYER[match[4]]
    if j:
        return f"loc{_DEPTH - i - j}.{j - 1}.{place}.blocks.0.{layer}."
    block = f"{i}.{place}.blocks.0" if i == _DEPTH else f"{i}.blocks.{place}"
    return f"conv_blocks_context.{block}.{layer}."


def _up(match: re.Match) -> str:
    i, j = int(match[1]), int(match[2])
    return f"up{_DEPTH - i - j}.{j - 1}."


UNET_PLUS_PLUS = Family(
    name="unet_plus_plus",
    model="UNetPlusPlus",
    models=("unet_plus_plus",),
    top=("head",),
    sign=r"conv0_1\.conv1\.weight|loc0\.0\.0\.blocks\.0\.conv\.weight|nodes\.(conv|node)0_1\.conv1\.conv\.kernel",
    namings={
        "official": Naming(
            rules=(
                (r"nodes\.(conv\d_\d)\.conv([12])\.conv\.", r"\1.conv\2."),
                (r"nodes\.(conv\d_\d)\.conv([12])\.bn\.", r"\1.bn\2."),
                (r"mask_heads\.(final\d?)\.", r"\1."),
                (r"nodes\.node(\d)_(\d)\.conv([12])\.(conv|bn)\.", _node),
                (r"ups\.(\d)_(\d)\.", _up),
                (r"mask_heads\.seg(\d)\.", lambda m: f"seg_outputs.{_DEPTH - int(m[1])}."),
            ),
            layouts=((r"ups\..*\.kernel", TRANSPOSED),),
        ),
    },
)
