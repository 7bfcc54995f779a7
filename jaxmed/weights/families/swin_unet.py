"""Swin-Unet: the original Swin's names for the encoder, its own for the way up."""

from jaxmed.weights.families.swin import SWIN
from jaxmed.weights.family import Family, Naming

_ENCODER = SWIN.naming("official")

SWIN_UNET = Family(
    name="swin_unet",
    model="SwinUNet",
    models=("swin_unet",),
    top=("head",),
    sign=r"swin_unet\.layers_up\.0\.expand\.weight|decoder\.0\.concat\.kernel",
    namings={
        "official": Naming(
            rules=(
                (r"encoder\.(.+)$", lambda m: f"swin_unet.{_ENCODER.key(m[1])}"),
                (r"expand\.", "swin_unet.layers_up.0."),
                (r"decoder\.(\d)\.concat\.", lambda m: f"swin_unet.concat_back_dim.{int(m[1]) + 1}."),
                (r"decoder\.(\d)\.", lambda m: f"swin_unet.layers_up.{int(m[1]) + 1}."),
                (r"mask_head\.", "swin_unet.output."),
                (r"(norm_up|up)\.", r"swin_unet.\1."),
            ),
            ignore=_ENCODER.ignore,  # the released decoder stores the same tables
        ),
    },
)
