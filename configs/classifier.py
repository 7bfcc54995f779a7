"""One image, one class: any registered encoder on any data source. The baselines that the papers compare with are variants.

    python -m jaxmed.main --config=configs/classifier.py                    # ResNet-18 on phantoms, reduced preset
    python -m jaxmed.main --config=configs/classifier.py:model=swin_base_patch4_window7_224,data=busi \
        --config.data.dir=Dataset_BUSI_with_GT --config.pretrained.encoder=weights/swin_base_patch4_window7_224.tv_in1k
    python -m jaxmed.main --config=configs/classifier.py:model=convnext_base,data=folder --config.data.dir=cases.csv

`data` is phantom, busi, busi_whu or folder. `model` is any name of `jaxmed.list_models()` that looks at one image; its options
are under --config.model.options, for example drop_path=0.2 (0 is the default everywhere), or mode=ensemble for thynet.

Recipe: AdamW 1e-4, weight decay 1e-4, 20 epochs, batch 32 (learning rate, decay and epochs of the liver paper), halved when the
validation loss stalls, best epoch by validation AUC. Baselines of the papers, with the weights that their authors started from:

    liver ultrasound (HSQformer, Table 2), multi-centre test, %: accuracy / F1 / AUC, mean of five folds on private images
    model=resnet101                      weights resnet101.tv_in1k                     83.52 / 82.46 / 93.02
    model=densenet201                    weights densenet201.tv_in1k                   84.22 / 83.54 / 93.30
    model=resnext101_32x8d               weights resnext101_32x8d.tv_in1k              84.39 / 83.67 / 93.36
    model=thynet                         the three above, logits summed                83.36 / 82.37 / 93.25
    model=hiera_base_224                 weights hiera_base_224.mae_in1k_ft_in1k       84.79 / 84.03 / 93.80
    model=vit_base_patch16_224           weights vit_base_patch16_224.tv_in1k          85.55 / 85.57 / 93.57
    model=swin_base_patch4_window7_224   weights swin_base_patch4_window7_224.tv_in1k  85.39 / 84.72 / 94.15
    model=cswin_base_224                 weights of the official release               85.22 / 84.43 / 94.33
    model=convnext_base                  weights convnext_base.fb_in22k (or small)     86.39 / 86.02 / 94.45
    model=pvt_v2_b5                      weights pvt_v2_b5.in1k                        85.90 / 85.28 / 94.44
    model=focalnet_base_lrf              weights focalnet_base_lrf.ms_in1k             85.85 / 85.24 / 94.45
    model=mpvit_base                     weights of the official release               84.82 / 83.96 / 93.97
    model=late_fusion_swin_convnext      HSQformer without queries (its ablations' baseline)

    breast ultrasound (CSA-MoE-Net, Table IV): resnet18, vgg16, densenet121 with its own recipe are in configs/csa_moe.py
    mammography (X-Pruning): resnet18 (SV-Res18), swin_tiny_patch4_window7_224 (SV-ViT)
    four views (CNN-VSSM hybrid): resnet18, resnet50;  decoder interaction: tf_efficientnet_b4
"""

from ml_collections import ConfigDict

from jaxmed.config import base_config, parse_arg
from jaxmed.errors import UserError
from jaxmed.registry import model_options

# accuracy, precision, recall, F1, AUC (%), HSQformer's Table 2, multi-centre test
PUBLISHED = {
    "resnet101": (83.52, 89.1, 76.81, 82.46, 93.02),
    "densenet201": (84.22, 87.84, 80.07, 83.54, 93.3),
    "resnext101_32x8d": (84.39, 88.5, 79.48, 83.67, 93.36),
    "thynet": (83.36, 88.23, 77.79, 82.37, 93.25),
    "hiera_base_224": (84.79, 89.37, 79.32, 84.03, 93.8),
    "vit_base_patch16_224": (85.55, 86.16, 85.06, 85.57, 93.57),
    "swin_base_patch4_window7_224": (85.39, 89.59, 80.45, 84.72, 94.15),
    "cswin_base_224": (85.22, 90.07, 79.54, 84.43, 94.33),
    "convnext_base": (86.39, 89.18, 83.38, 86.02, 94.45),
    "pvt_v2_b5": (85.9, 90.08, 81.15, 85.28, 94.44),
    "focalnet_base_lrf": (85.85, 89.78, 81.36, 85.24, 94.45),
    "mpvit_base": (84.82, 89.75, 79.15, 83.96, 93.97),
}
COLUMNS = ("Acc", "Pre", "Rec", "F1", "AUC")
OPTIONS = ("drop_path", "dropout", "mode", "img_size")  # those of a network that a run may want to change
ROLES = {"thynet": ("resnet", "densenet", "resnext"), "late_fusion_swin_convnext": ("swin", "convnext")}


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: model=NAME, data=phantom|busi|busi_whu|folder."""
    source, options = parse_arg(arg, "phantom")
    unknown = options.keys() - {"model"}
    if unknown:
        raise UserError(f"configs/classifier.py does not know {sorted(unknown)}; it takes model=NAME and data=SOURCE")
    name = options.get("model", "resnet18")
    config = base_config()
    config.name = f"classifier-{source}-{name}"
    config.data.source = source
    config.model.name = name
    known = model_options(name)
    config.model.options = ConfigDict({key: known[key] for key in OPTIONS if key in known})
    config.pretrained = ConfigDict({role: "" for role in ROLES.get(name, ("encoder",))})
    config.epochs = 20
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-4
    config.monitor = "val/auc"
    if source == "phantom":
        _quick(config)
    elif name in PUBLISHED:
        numbers = dict(zip(COLUMNS, PUBLISHED[name], strict=True))
        config.published = ConfigDict({"model": f"{name}, liver ultrasound, HSQformer's Table 2, multi-centre test", **numbers})
    return config


def _quick(config: ConfigDict) -> None:
    """A reduced preset: small images where the network takes them, few epochs."""
    config.data.size = config.model.options.get("img_size", 64)  # some networks are built for one image size
    config.data.num_cases = 600
    config.epochs = 8
    config.optimizer.learning_rate = 3e-4
    config.preset = (
        "reduced preset: simulated phantoms, {size} pixels, {epochs} epochs, learning rate {optimizer.learning_rate:g}, "
        "random start"
    )
