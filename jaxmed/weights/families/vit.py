"""Vision Transformer: our names are timm's."""

from jaxmed.weights.family import BATCH_COUNTER, Family, Naming

_LAYER = "encoder.layers.encoder_layer_"

VIT = Family(
    name="vit",
    model="VisionTransformer",
    models=("vit_*",),
    top=("head",),
    sign=r"cls_token|class_token",
    namings={
        "timm": Naming(ignore=(BATCH_COUNTER, r"pre_logits\..*")),  # a layer of old 21k files that timm leaves out as well
        "torchvision": Naming(
            rules=(
                (r"cls_token", "class_token"),
                (r"pos_embed", "encoder.pos_embedding"),
                (r"patch_embed\.proj\.", "conv_proj."),
                (r"blocks\.(\d+)\.norm([12])\.", rf"{_LAYER}\1.ln_\2."),
                (r"blocks\.(\d+)\.attn\.qkv\.", rf"{_LAYER}\1.self_attention.in_proj_"),
                (r"blocks\.(\d+)\.attn\.proj\.", rf"{_LAYER}\1.self_attention.out_proj."),
                (r"blocks\.(\d+)\.mlp\.fc1\.", rf"{_LAYER}\1.mlp.0."),
                (r"blocks\.(\d+)\.mlp\.fc2\.", rf"{_LAYER}\1.mlp.3."),
                (r"norm\.", "encoder.ln."),
                (r"head\.", "heads.head."),
            ),
            # torchvision's files still hold an older spelling, which it renames when it loads them
            spellings=((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")),
        ),
    },
)
