"""VGG: our names are torchvision's; timm stores the first two linear layers as convolutions under other names."""

from jaxmed.weights.family import Family, Naming
from jaxmed.weights.layouts import convolved

VGG = Family(
    name="vgg",
    model="VGG",
    models=("vgg*",),
    top=("classifier.0", "classifier.3", "classifier.6"),
    sign=r"features\.0\.(weight|kernel)",
    namings={
        "torchvision": Naming(),
        "timm": Naming(
            rules=(
                (r"classifier\.0\.", "pre_logits.fc1."),
                (r"classifier\.3\.", "pre_logits.fc2."),
                (r"classifier\.6\.", "head.fc."),
            ),
            layouts=(
                (r"classifier\.0\.kernel", convolved(512, 7)),
                (r"classifier\.3\.kernel", convolved(4096, 1)),
            ),
        ),
    },
)
