"""TransUNet's own names, and Google's for the hybrid encoder that it starts from (R50+ViT-B_16.npz)."""

import re

import numpy as np

from jaxmed.weights.family import Family, Naming
from jaxmed.weights.layouts import AS_IS, Layout

_HEAD_DIM = 64  # of every Vision Transformer that Google published


def _unit(match: re.Match) -> str:
    return f"block{int(match[1]) + 1}.unit{int(match[2]) + 1}."


def _npz_unit(match: re.Match) -> str:
    layer = {"downsample": "conv_proj"}.get(match[3], match[3])
    return f"block{int(match[1]) + 1}/unit{int(match[2]) + 1}/{layer}/"


_BLOCK = r"blocks\.(\d+)\."
_NPZ_BLOCK = r"Transformer/encoderblock_\1/"
_LAYER = "transformer.encoder.layer."

TRANS_UNET = Family(
    name="trans_unet",
    model="TransUNet",
    models=("trans_unet",),
    top=("head",),
    sign=r"transformer\.embeddings\.position_embeddings|encoder\.resnet\.root\.conv\.kernel",
    namings={
        "official": Naming(
            rules=(
                (r"encoder\.resnet\.root\.", "transformer.embeddings.hybrid_model.root."),
                (
                    r"encoder\.resnet\.stages\.(\d)\.(\d+)\.",
                    lambda m: f"transformer.embeddings.hybrid_model.body.{_unit(m)}",
                ),
                (r"encoder\.patch_embed\.", "transformer.embeddings.patch_embeddings."),
                (r"encoder\.pos_embed", "transformer.embeddings.position_embeddings"),
                (rf"encoder\.{_BLOCK}norm1\.", rf"{_LAYER}\1.attention_norm."),
                (rf"encoder\.{_BLOCK}norm2\.", rf"{_LAYER}\1.ffn_norm."),
                (rf"encoder\.{_BLOCK}mlp\.", rf"{_LAYER}\1.ffn."),
                (rf"encoder\.{_BLOCK}attn\.", rf"{_LAYER}\1.attn."),
                (r"encoder\.norm\.", "transformer.encoder.encoder_norm."),
                (r"conv_more\.conv\.", "decoder.conv_more.0."),
                (r"conv_more\.bn\.", "decoder.conv_more.1."),
                (r"blocks\.(\d)\.conv([12])\.conv\.", r"decoder.blocks.\1.conv\2.0."),
                (r"blocks\.(\d)\.conv([12])\.bn\.", r"decoder.blocks.\1.conv\2.1."),
                (r"mask_head\.", "segmentation_head.0."),
            ),
        ),
    },
)

# heads are an axis of their own in the .npz
_INTO_HEADS = Layout(lambda a: a.reshape(a.shape[0], -1), lambda a: a.reshape(a.shape[0], -1, _HEAD_DIM))
_OUT_OF_HEADS = Layout(lambda a: a.reshape(-1, a.shape[-1]), lambda a: a.reshape(-1, _HEAD_DIM, a.shape[-1]))
_HEAD_BIAS = Layout(lambda a: a.reshape(-1), lambda a: a.reshape(-1, _HEAD_DIM))
_VECTOR = Layout(lambda a: a.reshape(-1), lambda a: a)  # group norms are stored as [1, 1, 1, channels] in some files
_POSITIONS = Layout(lambda a: a[:, 1:], lambda a: np.pad(a, ((0, 0), (1, 0), (0, 0))))  # the first one is the class token's

HYBRID_VIT = Family(
    name="hybrid_vit",
    model="HybridViT",
    models=(),
    top=(),
    sign=r"Transformer/posembed_input/pos_embedding|resnet\.root\.conv\.kernel",
    namings={
        "official": Naming(
            rules=(
                (r"resnet\.root\.(conv|gn)\.", r"\1_root/"),
                (r"resnet\.stages\.(\d)\.(\d+)\.(\w+)\.", _npz_unit),
                (r"patch_embed\.", "embedding/"),
                (r"pos_embed", "Transformer/posembed_input/pos_embedding"),
                (rf"{_BLOCK}norm1\.", rf"{_NPZ_BLOCK}LayerNorm_0/"),
                (rf"{_BLOCK}norm2\.", rf"{_NPZ_BLOCK}LayerNorm_2/"),
                (rf"{_BLOCK}attn\.(\w+)\.", rf"{_NPZ_BLOCK}MultiHeadDotProductAttention_1/\2/"),
                (rf"{_BLOCK}mlp\.fc1\.", rf"{_NPZ_BLOCK}MlpBlock_3/Dense_0/"),
                (rf"{_BLOCK}mlp\.fc2\.", rf"{_NPZ_BLOCK}MlpBlock_3/Dense_1/"),
                (r"norm\.", "Transformer/encoder_norm/"),
            ),
            layouts=(
                (r".*\.(query|key|value)\.kernel", _INTO_HEADS),
                (r".*\.(query|key|value)\.bias", _HEAD_BIAS),
                (r".*\.out\.kernel", _OUT_OF_HEADS),
                (r".*\.gn\w*\.\w+", _VECTOR),
                (r"pos_embed", _POSITIONS),
                (r".*", AS_IS),
            ),
            ignore=(r"cls", r"(head|pre_logits)/(kernel|bias)"),  # the classifier of the pretraining
            leaves={},
        ),
    },
)
