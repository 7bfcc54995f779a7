"""U-Net and Attention U-Net: the names of the PyTorch releases that are mostly used."""

import re
from collections.abc import Callable

from jaxmed.weights.family import Family, Naming, Rule
from jaxmed.weights.layouts import TRANSPOSED

# two times convolution, norm, ReLU in one torch Sequential
_SEQUENCE = {("1", "conv"): 0, ("1", "bn"): 1, ("2", "conv"): 3, ("2", "bn"): 4}
_PAIR = {"conv": 0, "bn": 1}


def _double(module: str, name: Callable[[int], str]) -> Rule:
    """The DoubleConv at `module` (with one group, its number) under name(number)."""
    return rf"{module}\.conv([12])\.(conv|bn)\.", lambda m: f"{name(int(m[1]))}.{_SEQUENCE[m[2], m[3]]}."


def _gate(match: re.Match) -> str:
    """levels.0.gate.x.conv. -> Att5.W_x.0."""
    part = "psi" if match[2] == "psi" else f"W_{match[2]}"
    return f"Att{5 - int(match[1])}.{part}.{_PAIR[match[3]]}."


UNET = Family(
    name="unet",
    model="UNet",
    models=("unet",),
    top=("head",),
    sign=r"inc\.double_conv\.0\.weight|ups\.0\.conv\.conv1\.conv\.kernel",
    namings={
        "official": Naming(
            rules=(
                _double(r"encoder\.(\d)", lambda k: f"down{k}.maxpool_conv.1.double_conv" if k else "inc.double_conv"),
                _double(r"ups\.(\d)\.conv", lambda k: f"up{k + 1}.conv.double_conv"),
                (r"ups\.(\d)\.up\.", lambda m: f"up{int(m[1]) + 1}.up."),
                (r"mask_head\.", "outc.conv."),
            ),
            layouts=((r"ups\.\d\.up\.kernel", TRANSPOSED),),
        ),
    },
)

ATTENTION_UNET = Family(
    name="attention_unet",
    model="AttentionUNet",
    models=("attention_unet",),
    top=("head",),
    sign=r"Att5\.psi\.0\.weight|levels\.0\.gate\.psi\.conv\.kernel",
    namings={
        "official": Naming(
            rules=(
                _double(r"encoder\.(\d)", lambda k: f"Conv{k + 1}.conv"),
                _double(r"levels\.(\d)\.conv", lambda k: f"Up_conv{5 - k}.conv"),
                (r"levels\.(\d)\.up\.(conv|bn)\.", lambda m: f"Up{5 - int(m[1])}.up.{1 + _PAIR[m[2]]}."),
                (r"levels\.(\d)\.gate\.(x|g|psi)\.(conv|bn)\.", _gate),
                (r"mask_head\.", "Conv_1x1."),
            ),
        ),
    },
)
