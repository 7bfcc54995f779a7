"""ConvNeXt: our names are timm's; the official release lists all reductions before all stages."""

from jaxmed.weights.family import Family, Naming

_STAGE = r"stages\.(\d)\.blocks\.(\d+)\."

CONVNEXT = Family(
    name="convnext",
    model="ConvNeXt",
    models=("convnext_*",),
    top=("head.norm", "head.fc"),
    sign=r"stages\.0\.(blocks\.)?0\.(conv_dw|dwconv)\.(weight|kernel)",
    namings={
        "timm": Naming(),
        "official": Naming(
            rules=(
                (r"stem\.", "downsample_layers.0."),
                (r"stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
                (rf"{_STAGE}conv_dw\.", r"stages.\1.\2.dwconv."),
                (rf"{_STAGE}mlp\.fc([12])\.", r"stages.\1.\2.pwconv\3."),
                (_STAGE, r"stages.\1.\2."),
                (r"head\.norm\.", "norm."),
                (r"head\.fc\.", "head."),
            ),
        ),
    },
)
