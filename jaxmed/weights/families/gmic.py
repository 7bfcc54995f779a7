"""GMIC: our names say what a part does; inside the two encoders they are the released ones."""

from jaxmed.weights.family import BATCH_COUNTER, Family, Naming

GMIC = Family(
    name="gmic",
    model="GMIC",
    models=("gmic",),
    top=("fusion_head",),
    sign=r"(ds_net|global_net)\.first_conv\.(weight|kernel)",
    namings={
        "official": Naming(
            rules=(
                (r"global_net\.", "ds_net."),
                (r"saliency\.", "left_postprocess_net.gn_conv_last."),
                (r"local_net\.", "dn_resnet."),
                (r"attention\.", "mil_attn_"),
                (r"local_head\.", "classifier_linear."),
                (r"fusion_head\.", "fusion_dnn."),
            ),
            ignore=(BATCH_COUNTER, r"shared_rep_filter\.weight"),  # the filter is in the files, but no layer has it
        ),
    },
)
