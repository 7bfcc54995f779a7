"""The decoder interaction network: the Keras names of the released code around those of its EfficientNet."""

import re
from typing import Any

from jaxmed.weights.families.efficientnet import EFFICIENTNET
from jaxmed.weights.family import Family, Naming

_ENCODER = EFFICIENTNET.namings["keras"]
_MAPS = ("s1", "s2", "s3", "s4", "bridge")
_OWNERS = {"res": "hct_res", "gate": "att_gate", "tim": "task_interaction", "upa": "uncertainty_attention"}
# our layer inside a block -> Keras' layers on the way, each named after the one that holds it; numbers count in a Sequential
_INSIDE = {
    "hmsf.branches.0": ("multiscale", "sep_conv_1"), "hmsf.branches.1": ("multiscale", "sep_conv_2"),
    "hmsf.branches.2": ("multiscale", "sep_conv_4"), "hmsf.fc1": ("multiscale", "scale_attention/1"),
    "hmsf.fc2": ("multiscale", "scale_attention/2"), "hmsf.fusion": ("multiscale", "fusion"),
    "attention.fc1": ("attention", "channel_path/1"), "attention.fc2": ("attention", "channel_path/2"),
    "attention.spatial": ("attention", "spatial"),
    "x": ("x_transform",), "g": ("g_transform",), "sep1": ("context_attention/0",), "sep2": ("context_attention/1",),
    "psi": ("context_attention/2",),
    "s2c_conv": ("seg_to_clf/0",), "s2c_fc": ("seg_to_clf/2",), "s2c_bn": ("seg_to_clf/3",), "c2s_fc": ("clf_to_seg/0",),
    "fc1": ("weight_network/0",), "fc2": ("weight_network/1",),
}  # fmt: skip
_ENDS = {"seg_out": "segmentation_output", "cls_out": "classification_output"}


def _leaf(layer: str, leaf: str) -> str:
    """A separable convolution is one layer in Keras; norms call their bias beta."""
    if layer in ("conv_dw", "conv_pw") and leaf == "kernel":
        return {"conv_dw": "depthwise_kernel", "conv_pw": "pointwise_kernel"}[layer]
    return "beta" if re.search(r"bn\d?$", layer) and leaf == "bias" else leaf


def _encoder(match: re.Match) -> str:
    return _ENCODER.key(match[1])


def _inside(owner: str, path: str) -> str:
    """("hct_res_s1", "hmsf.fc1.kernel") -> hct_res_s1/hct_res_s1_multiscale/hct_res_s1_multiscale_scale_attention/1/kernel."""
    *modules, last, leaf = path.split(".")
    layer = ".".join(modules if last in ("conv_dw", "conv_pw") else (*modules, last))
    key = name = owner
    for part in _INSIDE.get(layer, (layer,)):
        name = f"{name}_{part}"
        key = f"{key}/{name}"
    return f"{key}/{_leaf(last, leaf)}"


def _refined(match: re.Match) -> str:
    return _inside(f"hct_res_{_MAPS[int(match[1])]}", match[2])


def _level(match: re.Match) -> str:
    return _inside(f"{_OWNERS[match[2]]}_d{int(match[1]) + 1}", match[3])


def _end(match: re.Match) -> str:
    return f"{_ENDS.get(match[1], match[1])}/{_leaf(match[1], match[2])}"


def _refuse(model: Any, source: str) -> str:
    """Keras files have no running means for the normaliser of UPA."""
    if source == "keras" and any(hasattr(getattr(level, "upa", None), "total") for level in model.levels):
        return (
            "weights of the released Keras code divide uncertainties by the mean of the batch and have no running mean: "
            "create the network with parity='official' (or upa_norm='batch')"
        )
    return EFFICIENTNET.refuse(model.encoder, source)


DECODER_INTERACTION = Family(
    name="decoder_interaction",
    model="DecoderInteraction",
    models=("decoder_interaction",),
    top=("cls_fc", "cls_bn", "cls_out"),
    refuse=_refuse,
    sign=r"task_interaction_d1/.*/kernel|levels\.0\.tim\.s2c_conv\.kernel",
    namings={
        "keras": Naming(
            rules=(
                (r"encoder\.(.+)$", _encoder),
                (r"refine\.(\d)\.(.+)$", _refined),
                (r"levels\.(\d)\.(res|gate|tim|upa)\.(.+)$", _level),
                (r"levels\.(\d)\.up\.(\w+)$", lambda match: f"up_d{int(match[1]) + 1}/{match[2]}"),
                (r"levels\.(\d)\.clf_fc\.(\w+)$", lambda match: f"clf_d{int(match[1]) + 1}_features/{match[2]}"),
                (r"(\w+)\.(\w+)$", _end),
            ),
            layouts=_ENCODER.layouts,  # depthwise kernels are [kh, kw, channels, 1], all other kernels as ours
            ignore=_ENCODER.ignore,
            leaves=_ENCODER.leaves,
        ),
    },
)
