"""FocalNet: our names are timm's, nearly; the official release halves the map at the end of a stage instead of at the start.

Both store some linear layers as 1x1 convolutions: timm all of those inside the blocks, the official release only `h`.
"""

import re

from jaxmed.weights.family import Family, Naming
from jaxmed.weights.layouts import Layout

# [out, in, 1, 1] <-> [in, out]; another window fails the check of shapes
POINTWISE = Layout(
    lambda array: array.reshape(array.shape[0], -1).T,
    lambda array: array.T[:, :, None, None],
)

_FOCAL_LAYERS = (r"(layers\.\d\.blocks\.\d+\.modulation\.focal_layers\.\d+)\.", r"\1.0.")  # 1 is the GELU


def _stage_before(match: re.Match) -> str:
    return f"layers.{int(match[1]) - 1}.downsample."


FOCALNET = Family(
    name="focalnet",
    model="FocalNet",
    models=("focalnet*",),
    top=("head",),
    sign=r"layers\.0\.blocks\.0\.modulation\.f\.(weight|kernel)",
    namings={
        "timm": Naming(
            rules=(_FOCAL_LAYERS, (r"head\.", "head.fc.")),
            layouts=((r".*\.(modulation\.(f|h|proj)|mlp\.fc[12])\.kernel", POINTWISE),),
        ),
        "official": Naming(
            rules=(_FOCAL_LAYERS, (r"stem\.", "patch_embed."), (r"layers\.(\d)\.downsample\.", _stage_before)),
            layouts=((r".*\.modulation\.h\.kernel", POINTWISE),),
        ),
    },
)
