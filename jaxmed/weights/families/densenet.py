"""DenseNet: timm and torchvision use the same names, and so do we; torchvision's files still hold an older spelling."""

from jaxmed.weights.family import Family, Naming

# before torch 0.4 `norm1` was `norm.1`; torchvision renames the keys when it loads these files
_OLD = ((r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),)

DENSENET = Family(
    name="densenet",
    model="DenseNet",
    models=("densenet*",),
    top=("classifier",),
    sign=r"features\.denseblock1\..*",
    namings={"timm": Naming(spellings=_OLD), "torchvision": Naming(spellings=_OLD)},
)
