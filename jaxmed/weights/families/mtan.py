"""MTAN: torch numbers the layers of its sequences; a level of one convolution is not nested, one of two is."""

import re

from jaxmed.weights.family import Family, Naming

_PLACES = {"conv": 0, "bn": 1, "conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4}  # 2 and 5 are ReLU and sigmoid


def _layer(match: re.Match) -> str:
    return f"{match[1]}{_PLACES[match[2]]}."


def _head(match: re.Match) -> str:
    return f"pred_task{int(match[1]) + 1}.{int(match[2]) - 1}."


MTAN = Family(
    name="mtan",
    model="MTAN",
    models=("mtan",),
    top=("class_att", "fc"),
    sign=r"encoder_block_att\.0\.(0|conv)\.(weight|kernel)",
    namings={
        "official": Naming(
            rules=(
                (r"heads\.(\d+)\.conv(\d)\.", _head),
                (r"(conv_block_(?:enc|dec)\.[01]\.)0\.(conv|bn)\.", _layer),
                (r"(.*\.)(conv\d?|bn\d?)\.", _layer),
            ),
        ),
    },
)
