"""MedMamba: a layer's order in the published convolution branch, norm or not, is part of its name."""

import re

from jaxmed.weights.family import Family, Naming

_PLACES = {"norm1": 0, "conv1": 1, "norm2": 2, "conv2": 4, "norm3": 5, "conv3": 7}  # 3, 6 and 8 are the ReLUs


def _branch(match: re.Match) -> str:
    return f"{match[1]}conv33conv33conv11.{_PLACES[match[2]]}."


MEDMAMBA = Family(
    name="medmamba",
    model="MedMamba",
    models=("medmamba_*",),
    top=("head",),
    sign=r"layers\.0\.blocks\.0\.(self_attention|ss2d)\.A_logs",
    namings={
        "official": Naming(
            rules=(
                (r"(layers\.\d\.blocks\.\d+\.)conv_branch\.(\w+)\.", _branch),
                (r"(layers\.\d\.blocks\.\d+\.)ss2d\.", r"\1self_attention."),
                (r"(layers\.\d\.blocks\.\d+\.)norm\.", r"\1ln_1."),
            ),
        ),
    },
)
