"""CSA-MoE-Net: breast ultrasound, benign or malignant, three experts (image, lesion core, lesion boundary).

Paper: Zhai, Yang, Zhang, "Cross-Stage Attention Multi-Expert Network for Radiologist-Inspired Breast Ultrasound Diagnosis".
Its data (2,129 private images) are not public; BUSI is the public set nearest to it.

    python -m jaxmed.main --config=configs/csa_moe.py                       # phantoms, reduced preset, minutes on 2 CPU cores
    python -m jaxmed.main --config=configs/csa_moe.py:busi --config.data.dir=Dataset_BUSI_with_GT \
        --config.pretrained.encoder=weights/resnet18.tv_in1k                # the paper's recipe
    python -m jaxmed.main --config=configs/csa_moe.py:folder --config.data.dir=cases.csv

Variants, after the data source (paper's test numbers in %, mean of 20 runs on its own data: accuracy / recall / AUC):

    busi                                          Table I    CSA-MoE-Net        96.33 / 98.53 / 99.50
    busi,model=moe_resnet18                       Table II   ResNet-MoE         94.73 / 94.94 / 99.19
    busi,model=resnet18                           Table II   ResNet-18          93.32 / 93.16 / 94.08
    busi,experts=image+boundary                   Table III  without core       95.94 / 98.04 / 99.54
    busi,experts=image+core                       Table III  without boundary   95.27 / 97.08 / 99.49
    busi,model=[csa_moe_|moe_]{vgg16,densenet121} Table IV   other encoders
    busi,model=csa_moe_mobilenetv2                           a light encoder, for laptops
    ...,head=mlp                                             the head that gives Table IV's parameter counts

Repeats as in the paper: `--mode=cv` (`--config.cv.repeats=20`). The full recipe is meant for a GPU.
"""

from ml_collections import ConfigDict

from jaxmed.config import base_config, parse_arg
from jaxmed.errors import UserError

# accuracy, precision, recall, F1, AUC (%), parameters (M), FLOPs (G) as printed in Tables II to IV
PUBLISHED = {
    "resnet18": (93.32, 93.39, 93.16, 93.27, 94.08, 11.178, 1.824),
    "moe_resnet18": (94.73, 94.11, 94.94, 94.51, 99.19, 33.958, 5.471),
    "csa_moe_resnet18": (96.33, 94.09, 98.53, 96.25, 99.50, 34.820, 5.472),
    "csa_moe_resnet18,image+boundary": (95.94, 93.98, 98.04, 95.96, 99.54, None, None),
    "csa_moe_resnet18,image+core": (95.27, 93.35, 97.08, 95.13, 99.49, None, None),
    "densenet121": (94.18, 95.42, 92.29, 93.82, 98.75, 6.956, 2.896),
    "moe_densenet121": (95.00, 95.59, 93.90, 94.73, 99.13, 22.720, 9.012),
    "csa_moe_densenet121": (95.78, 95.83, 95.34, 95.57, 99.23, 23.310, 9.013),
    "vgg16": (94.22, 94.39, 93.47, 93.93, 99.06, 134.269, 15.466),
    "moe_vgg16": (95.19, 92.80, 97.52, 95.09, 99.40, 415.501, 46.040),
    "csa_moe_vgg16": (96.88, 97.99, 95.42, 96.69, 99.14, 416.412, 46.041),
}
COLUMNS = ("Acc", "Pre", "Rec", "F1", "AUC", "Params (M)", "FLOPs (G)")
EXPERTS = ("image", "core", "boundary")


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: data source (phantom, busi, busi_whu, folder), then model=, experts=a+b, head=fc|mlp."""
    source, options = parse_arg(arg, "phantom")
    unknown = options.keys() - {"model", "experts", "head"}
    if unknown:
        raise UserError(f"configs/csa_moe.py does not know {sorted(unknown)}; it takes model=, experts=a+b, head=fc|mlp")
    config = base_config()
    config.name = "csa_moe-" + "-".join([source, *(v.replace("+", "_") for v in options.values())])
    config.paper = "CSA-MoE-Net (Zhai, Yang, Zhang)"
    config.data.source = source
    _model(config, options)
    if source == "phantom":
        _quick(config)
    return config


def _model(config: ConfigDict, options: dict[str, str]) -> None:
    name = options.get("model", "csa_moe_resnet18")
    config.model.name = name
    experts = tuple(options.get("experts", "+".join(EXPERTS)).split("+"))
    if "moe_" in name:
        config.model.options = ConfigDict({"experts": experts, "head": options.get("head", "fc")})
    elif {"experts", "head"} & options.keys():
        raise UserError(f"model={name} is a single network: experts= and head= belong to csa_moe_* and moe_*")
    numbers = PUBLISHED.get(name if experts == EXPERTS else f"{name},{'+'.join(experts)}")
    if numbers:
        found = {key: value for key, value in zip(COLUMNS, numbers, strict=True) if value is not None}
        config.published = ConfigDict({"model": f"{name}, 2,129 private images, mean of 20 runs", **found})


def _quick(config: ConfigDict) -> None:
    """A reduced preset that two CPU cores finish in minutes; the paper's recipe is what the other sources get."""
    config.data.size = 64
    config.data.num_cases = 600
    config.epochs = 12
    config.optimizer.learning_rate = 3e-4
    config.published = ConfigDict()
    config.preset = (
        "reduced preset: simulated phantoms, {size} pixels, {epochs} epochs, learning rate {optimizer.learning_rate:g}, random "
        "start (paper: 224 x 224, 30 epochs, 5e-5, ImageNet start)"
    )
