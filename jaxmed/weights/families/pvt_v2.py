"""PVTv2: our names are timm's; the official release numbers patch embeddings, blocks and norms from 1, outside of stages."""

import re

from jaxmed.weights.family import Family, Naming


def _stage(match: re.Match) -> str:
    stage, part = int(match[1]) + 1, match[2]
    return {"downsample.": f"patch_embed{stage}.", "blocks.": f"block{stage}.", "norm.": f"norm{stage}."}[part]


PVT_V2 = Family(
    name="pvt_v2",
    model="PVTv2",
    models=("pvt_v2*",),
    top=("head",),
    sign=r"stages\.0\.blocks\.0\.mlp\.dwconv\.(weight|kernel)|block1\.0\.mlp\.dwconv\.dwconv\.weight",
    namings={
        "timm": Naming(),
        "official": Naming(
            rules=(
                (r"patch_embed\.", "patch_embed1."),
                (
                    r"stages\.(\d)\.blocks\.(\d+)\.mlp\.dwconv\.",
                    lambda match: f"block{int(match[1]) + 1}.{match[2]}.mlp.dwconv.dwconv.",
                ),
                (r"stages\.(\d)\.(downsample\.|blocks\.|norm\.)", _stage),
            ),
        ),
    },
)
