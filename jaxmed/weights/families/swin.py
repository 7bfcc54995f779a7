"""Swin Transformer: our names are timm's; the original release keeps a merging at the end of the stage before."""

from jaxmed.weights.family import BATCH_COUNTER, Family, Naming

_TABLES = (BATCH_COUNTER, r".*\.relative_position_index", r".*\.attn_mask")  # constants that every program can make itself

SWIN = Family(
    name="swin",
    model="Swin",
    models=("swin_*_window*",),
    top=("norm", "head.fc"),
    sign=r"(layers\.0\.|features\.1\.)(blocks\.)?0\.attn\.relative_position_bias_table",
    namings={
        "timm": Naming(ignore=_TABLES),
        "official": Naming(
            rules=(
                (r"layers\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample."),
                (r"head\.fc\.", "head."),
            ),
            ignore=_TABLES,
        ),
        "torchvision": Naming(
            rules=(
                (r"patch_embed\.proj\.", "features.0.0."),
                (r"patch_embed\.norm\.", "features.0.2."),
                (r"layers\.(\d)\.downsample\.", lambda m: f"features.{2 * int(m[1])}."),
                (r"layers\.(\d)\.blocks\.(\d+)\.mlp\.fc1\.", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}.mlp.0."),
                (r"layers\.(\d)\.blocks\.(\d+)\.mlp\.fc2\.", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}.mlp.3."),
                (r"layers\.(\d)\.blocks\.(\d+)\.", lambda m: f"features.{2 * int(m[1]) + 1}.{m[2]}."),
                (r"head\.fc\.", "head."),
            ),
            ignore=_TABLES,
        ),
    },
)
