"""EfficientNet: our names are timm's; Keras and the PyTorch ports of the original release have their own."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxmed.weights.family import Family, Naming
from jaxmed.weights.layouts import AS_IS, Layout

# our layer -> Keras' layer, "official" layer; the first stage does not widen, so its layers have other places
_ENDS = {
    "conv_stem": ("stem_conv", "_conv_stem"),
    "bn1": ("stem_bn", "_bn0"),
    "conv_head": ("top_conv", "_conv_head"),
    "bn2": ("top_bn", "_bn1"),
    "classifier": ("predictions", "_fc"),
}
_SQUEEZE = {"se.conv_reduce": ("se_reduce", "_se_reduce"), "se.conv_expand": ("se_expand", "_se_expand")}
_PLAIN = _SQUEEZE | {
    "conv_dw": ("dwconv", "_depthwise_conv"),
    "bn1": ("bn", "_bn1"),
    "conv_pw": ("project_conv", "_project_conv"),
    "bn2": ("project_bn", "_bn2"),
}
_WIDENING = _SQUEEZE | {
    "conv_pw": ("expand_conv", "_expand_conv"),
    "bn1": ("expand_bn", "_bn0"),
    "conv_dw": ("dwconv", "_depthwise_conv"),
    "bn2": ("bn", "_bn1"),
    "conv_pwl": ("project_conv", "_project_conv"),
    "bn3": ("project_bn", "_bn2"),
}
_BLOCK, _END = r"blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)$", r"(\w+)\.(\w+)$"


def _keras_leaf(layer: str, leaf: str) -> str:
    if layer.endswith("bn"):
        return {"bias": "beta"}.get(leaf, leaf)
    return "depthwise_kernel" if (layer, leaf) == ("dwconv", "kernel") else leaf


def _keras_block(match: re.Match) -> str:
    """blocks.1.0.conv_dw.kernel -> block2a_dwconv/depthwise_kernel."""
    stage, block = int(match[1]), int(match[2])
    layer = (_WIDENING if stage else _PLAIN)[match[3]][0]
    return f"block{stage + 1}{chr(ord('a') + block)}_{layer}/{_keras_leaf(layer, match[4])}"


def _keras_end(match: re.Match) -> str:
    layer = _ENDS[match[1]][0]
    return f"{layer}/{_keras_leaf(layer, match[2])}"


def _official_block(match: re.Match) -> str:
    return f"_blocks.{match[1]}.{match[2]}.{(_WIDENING if int(match[1]) else _PLAIN)[match[3]][1]}.{match[4]}"


class Consecutive(Naming):
    """Numbers the blocks through all stages: where a stage starts depends on the depths of the network at hand."""

    def keys(self, paths: Iterable[str]) -> dict[str, str]:
        """{published key: our path}."""
        table, place = super().keys(paths), re.compile(r"^_blocks\.(\d+)\.(\d+)(?=\.)")
        found = {(int(m[1]), int(m[2])) for m in map(place.match, table) if m}
        numbers = {spot: number for number, spot in enumerate(sorted(found))}
        return {place.sub(lambda m: f"_blocks.{numbers[int(m[1]), int(m[2])]}", key): path for key, path in table.items()}


def _refuse(model: Any, source: str) -> str:
    """Keys and shapes cannot tell the two paddings apart."""
    if source not in ("keras", "official") or model.kind.same_padding:
        return ""
    return (
        f"weights from source={source!r} were trained with TensorFlow's padding and epsilon: "
        "they belong into tf_efficientnet_*, not into efficientnet_*"
    )


_LAST_TWO = Layout(lambda array: np.swapaxes(array, 2, 3), lambda array: np.swapaxes(array, 2, 3))

EFFICIENTNET = Family(
    name="efficientnet",
    model="EfficientNet",
    models=("efficientnet_b*", "tf_efficientnet_*"),
    top=("classifier",),
    # stage 5 has at least four blocks here and three in MobileNetV2, whose timm names are otherwise the same
    refuse=_refuse,
    sign=r"blocks\.5\.3\.conv_pwl\.(weight|kernel)|block2a_dwconv/depthwise_kernel|_blocks\.0\._depthwise_conv\.weight",
    namings={
        "timm": Naming(),
        "keras": Naming(
            rules=((_BLOCK, _keras_block), (_END, _keras_end)),
            layouts=((r".*\.conv_dw\.kernel", _LAST_TWO), (r".*", AS_IS)),  # depthwise kernels are [kh, kw, channels, 1]
            # the layer in front of the network that normalises pixels: here the data pipeline does it
            ignore=(r"normalization(_\d+)?/(mean|variance|count)",),
            leaves={"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"},
        ),
        # the names of efficientnet_pytorch and efficientnet_lite_pytorch, ports of the TensorFlow release
        "official": Consecutive(
            rules=((_BLOCK, _official_block), (_END, lambda match: f"{_ENDS[match[1]][1]}.{match[2]}")),
        ),
    },
)
