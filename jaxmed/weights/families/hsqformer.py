"""HSQformer: our names are the released ones, but for attention (torch's own names) and the encoders (timm's names here)."""

import re
from collections.abc import Callable

from jaxmed.weights.families.convnext import CONVNEXT
from jaxmed.weights.families.swin import SWIN
from jaxmed.weights.family import Family, Naming, Rule


def _under(prefix: str, naming: Naming) -> tuple[Rule, ...]:
    """An encoder's rules for where it is a part of something larger."""

    def moved(replacement: str | Callable[[re.Match], str]) -> Callable[[re.Match], str]:
        return lambda match: prefix + (match.expand(replacement) if isinstance(replacement, str) else replacement(match))

    return tuple((re.escape(prefix) + pattern, moved(replacement)) for pattern, replacement in naming.rules)


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
                *_under("swintransformer.", _SWIN),
                *_under("convnext.", _CONVNEXT),
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
