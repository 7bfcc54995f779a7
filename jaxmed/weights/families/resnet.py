"""ResNet: timm and torchvision use the same names, and so do we."""

from jaxmed.weights.family import Family, Naming

RESNET = Family(
    name="resnet",
    model="ResNet",
    models=("resnet*", "resnext*"),
    top=("fc",),
    sign=r"layer1\.0\.conv1\.(weight|kernel)",
    namings={"timm": Naming(), "torchvision": Naming()},
    stages=("layer1", "layer2", "layer3", "layer4"),
)
