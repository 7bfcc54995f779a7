"""CSWin Transformer: our names are those of microsoft/CSWin-Transformer."""

from jaxmed.weights.family import Family, Naming

CSWIN = Family(
    name="cswin",
    model="CSWinTransformer",
    models=("cswin_*",),
    top=("head",),
    sign=r"stage1_conv_embed\.0\.(weight|kernel)",
    namings={"official": Naming(ignore=())},
)
