"""MobileNetV2: our names are torchvision's; timm groups the same blocks by stage and names their convolutions."""

import re

from jaxmed.weights.family import Family, Naming

_DEPTHS = (1, 2, 3, 4, 3, 3, 1)  # blocks per stage (Sandler et al. 2018, Table 2)
_BLOCKS = {i + 1: place for i, place in enumerate((s, b) for s, depth in enumerate(_DEPTHS) for b in range(depth))}

# place inside `features.N.conv` -> timm's name; the first block does not widen, so its depthwise convolution comes first
_PLAIN = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
_INVERTED = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}


def _block(match: re.Match) -> str:
    index = int(match[1])
    stage, block = _BLOCKS[index]
    return f"blocks.{stage}.{block}.{(_PLAIN if index == 1 else _INVERTED)[match[2]]}."


MOBILENETV2 = Family(
    name="mobilenetv2",
    model="MobileNetV2",
    models=("mobilenetv2*",),
    top=("classifier.1",),
    sign=r"blocks\.3\.3\.conv_pwl\.weight|features\.2\.conv\.0\.0\.(weight|kernel)",
    namings={
        "torchvision": Naming(),
        "timm": Naming(
            rules=(
                (r"features\.0\.0\.", "conv_stem."),
                (r"features\.0\.1\.", "bn1."),
                (r"features\.18\.0\.", "conv_head."),
                (r"features\.18\.1\.", "bn2."),
                (r"features\.(\d+)\.conv\.(0\.0|0\.1|1\.0|1\.1|1|2|3)\.", _block),
                (r"classifier\.1\.", "classifier."),
            ),
        ),
    },
)
