"""HSQformer: our names are the released ones, but for attention (torch's own names) and the encoders (timm's names here)."""

from jaxmed.weights.families.convnext import CONVNEXT
from jaxmed.weights.families.swin import SWIN
from jaxmed.weights.family import Family, Naming, moved_under

_SWIN, _CONVNEXT = SWIN.naming("official"), CONVNEXT.naming("official")

HSQFORMER = Family(
    name="hsqformer",
    model="HSQformer",
    models=("hsqformer_*",),
    top=("head_norm", "head"),
    sign="pos_embedding_query_tokens",
    namings={
        "official": Naming(
            rules=(
                *moved_under("swintransformer.", _SWIN),
                *moved_under("convnext.", _CONVNEXT),
                (r"(.*\.cross_att\w*)\.in_proj\.", r"\1.multihead_attn.in_proj_"),
                (r"(.*\.cross_att\w*)\.", r"\1.multihead_attn."),
                (r"(.*\.self_att\w*)\.in_proj\.", r"\1.self_attn.in_proj_"),
                (r"(.*\.self_att\w*)\.", r"\1.self_attn."),
                (r"(pos_embedding\.\d|level_embed)$", r"\1.weight"),
            ),
            # the released Swin also stores its index tables and window masks
            ignore=tuple(rf"swintransformer\.{pattern}" for pattern in _SWIN.ignore),
            stacked=r"(.*\.moe\.experts)\.(fc[12]\.\w+)",
        ),
    },
)
