"""Hiera: our names are timm's; officially the final norm lies outside the head, whose linear layer is `projection`."""

from jaxmed.weights.family import Family, Naming

HIERA = Family(
    name="hiera",
    model="Hiera",
    models=("hiera_*",),
    top=("head.fc",),
    sign=r"blocks\.\d+\.proj\.(weight|kernel)",
    namings={
        "timm": Naming(),
        "official": Naming(
            rules=((r"head\.norm\.", "norm."), (r"head\.fc\.", "head.projection.")),
            # files of the masked pretraining alone: another name of the norm, and a decoder
            spellings=((r"^encoder_norm\.", "norm."),),
            ignore=(r"decoder_.*", r"mask_token", r"multi_scale_fusion_heads\..*"),
        ),
    },
)
