"""Decoder interaction: breast ultrasound, lesion mask and class from one network whose two tasks inform each other.

Paper: "Multi-level bidirectional decoder interaction" (TIM, UPA, HMSF), on BUSI (with its normal images) and BUSI-WHU.

    python -m jaxmed.main --config=configs/decoder_interaction.py            # phantoms, reduced preset, minutes on 2 CPU cores
    python -m jaxmed.main --config=configs/decoder_interaction.py:busi --config.data.dir=Dataset_BUSI_with_GT \
        --config.pretrained.encoder=weights/tf_efficientnet_b4.aa_in1k       # the paper's recipe
    python -m jaxmed.main --config=configs/decoder_interaction.py:busi,encoder=tf_efficientnet_lite0 ...     # a light encoder
    python -m jaxmed.main --config=configs/decoder_interaction.py:folder --config.data.dir=cases.csv         # image,mask,label

Arguments: the data source (phantom, busi, busi_whu, folder), then model=, ablation=, encoder= (EfficientNets), parity=official.
Table 1, %: IoU / Dice / accuracy / F1 on BUSI, and on BUSI-WHU

    model=unet                66.80 / 80.05 / 86.50 / 84.70    77.50 / 87.30 / 90.80 / 89.10
    model=attention_unet      68.20 / 81.05 / 87.80 / 86.00    79.20 / 88.40 / 92.10 / 90.50
    model=unet_plus_plus      69.50 / 81.95 / 88.21 / 86.90    80.70 / 89.30 / 92.80 / 91.41
    model=trans_unet          70.30 / 82.55                    81.60 / 89.90                   masks alone
    model=swin_unet           71.50 / 83.40                    83.00 / 90.70                   masks alone
    model=missformer          72.80 / 84.25                    84.60 / 91.60                   masks alone
    model=mtan                68.90 / 81.60 / 87.20 / 85.40    80.00 / 88.90 / 91.60 / 90.00
    model=mtanet              72.10 / 83.80 / 89.30 / 87.60    83.70 / 91.10 / 93.90 / 92.30
    model=mtl_oca             72.90 / 84.30 / 89.90 / 88.20    84.50 / 91.60 / 94.50 / 92.90
    (decoder_interaction)     74.50 / 85.25 / 90.60 / 89.84    86.40 / 92.70 / 95.00 / 94.74

Table 2, BUSI (ablation=base and so on): IoU / Dice / accuracy / F1 / AUC / precision / pixel sensitivity / pixel precision

    base      67.43 / 80.55 / 84.62 / 82.33 / 94.90 / 82.16 / 75.06 / 79.73
    hmsf      69.95 / 82.32 / 88.89 / 88.34 / 96.30 / 86.70 / 79.12 / 80.19
    tim       69.20 / 81.80 / 86.32 / 84.00 / 94.41 / 86.04 / 79.83 / 79.76
    tim_upa   69.74 / 82.17 / 88.89 / 88.34 / 97.31 / 87.24 / 83.07 / 79.32
    full      74.50 / 85.25 / 90.60 / 89.84 / 97.66 / 89.95 / 80.87 / 85.47

All its rows on the same folds, with one table: --config=configs/decoder_interaction.py:busi,ablation=all --mode=cv

The paper's IoU is most likely the mean over images at threshold 0.5, its Dice 2 IoU / (1 + IoU) of that mean; the report shows
the averages over lesions, over all images and over pooled pixels side by side. Where paper and released code differ, the paper
counts: images divided by 255 once (code: twice), Tversky weights 0.3 and 0.7 (0.5 and 0.5), a boundary term that has a gradient
(none: both masks are thresholded), shares 0.80 and 0.20 (0.82 and 0.18: its schedule has no effect; loss.schedule="official" is
what it meant), IoU at threshold 0.5 (of truncated probabilities: nearly always 0), 70/15/15 split (60/15/25), cosine down to
1.5e-6 (to 9e-6, times 0.55 where validation stalls), elastic deformation (none), UPA that is normalised by a running mean when
evaluating (by the batch). The loss's size boost is the code's alone, and on.
parity=official sets the code's loss, UPA, learning rate and augmentation, and epochs of four draws per image (it trains on
three augmented copies beside each image); doubled division and split stay ours.
The encoder's first layers are frozen: with a random start set model.options.freeze=False. Running statistics keep 0.99 per
update (Keras): runs of less than some 500 updates need model.options.momentum=0.9. Splits keep duplicates together, leaving out
copies with two labels; data.group_duplicates=False is the published kind. The published flips turn pictures upside down too:
data.augment.vflip=0 leaves that out (docs/decoder_interaction.md). The full recipe is meant for a GPU.
"""

import dataclasses

from ml_collections import ConfigDict

from jaxmed.config import base_config, parse_arg
from jaxmed.data.augment_masks import DEFAULT
from jaxmed.errors import UserError
from jaxmed.tasks.segmentation_losses import OFFICIAL, OFFICIAL_SHARES, SegmentationLoss

OURS = "decoder_interaction"
# IoU, Dice, accuracy, F1 (%) of Table 1, on BUSI and BUSI-WHU; None: masks alone
PUBLISHED = {
    "unet": ((66.80, 80.05, 86.50, 84.70), (77.50, 87.30, 90.80, 89.10)),
    "attention_unet": ((68.20, 81.05, 87.80, 86.00), (79.20, 88.40, 92.10, 90.50)),
    "unet_plus_plus": ((69.50, 81.95, 88.21, 86.90), (80.70, 89.30, 92.80, 91.41)),
    "trans_unet": ((70.30, 82.55, None, None), (81.60, 89.90, None, None)),
    "swin_unet": ((71.50, 83.40, None, None), (83.00, 90.70, None, None)),
    "missformer": ((72.80, 84.25, None, None), (84.60, 91.60, None, None)),
    "mtan": ((68.90, 81.60, 87.20, 85.40), (80.00, 88.90, 91.60, 90.00)),
    "mtanet": ((72.10, 83.80, 89.30, 87.60), (83.70, 91.10, 93.90, 92.30)),
    "mtl_oca": ((72.90, 84.30, 89.90, 88.20), (84.50, 91.60, 94.50, 92.90)),
    OURS: ((74.50, 85.25, 90.60, 89.84), (86.40, 92.70, 95.00, 94.74)),
}
# Table 2: the parts in use (HMSF, TIM, UPA), and the numbers of BUSI, as COLUMNS names them
ABLATIONS = {
    "base": ((False, False, False), (67.43, 80.55, 84.62, 82.33, 94.90, 82.16, 75.06, 79.73)),
    "hmsf": ((True, False, False), (69.95, 82.32, 88.89, 88.34, 96.30, 86.70, 79.12, 80.19)),
    "tim": ((False, True, False), (69.20, 81.80, 86.32, 84.00, 94.41, 86.04, 79.83, 79.76)),
    "tim_upa": ((False, True, True), (69.74, 82.17, 88.89, 88.34, 97.31, 87.24, 83.07, 79.32)),
    "full": ((True, True, True), (74.50, 85.25, 90.60, 89.84, 97.66, 89.95, 80.87, 85.47)),
}
COLUMNS = ("IoU", "Dice", "Acc", "F1", "AUC", "Pre", "Sens", "Prec")  # the last two of pixels
SIDE = {"mtanet": 3.0, "mtl_oca": 0.4}  # of the mean of the side masks' losses: three that count as the mask itself; one
ARGUMENTS = ("model", "ablation", "encoder", "parity")
NARROW = ("unet", "attention_unet", "unet_plus_plus")
SMALL = {
    "depths": (1, 2, 1, 1, 1, 1, 1), "dims": (16, 8, 16, 24, 32, 48, 64, 96, 128), "decoder_dims": (48, 32, 24, 16),
    "freeze": False, "dropout": 0.1, "drop_path": 0.0, "momentum": 0.9,
}  # fmt: skip


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: data source, then model=, ablation=base|hmsf|tim|tim_upa|full|all, encoder=, parity=official."""
    source, options = parse_arg(arg, "phantom")
    if unknown := options.keys() - set(ARGUMENTS):
        raise UserError(f"configs/{OURS}.py does not know {sorted(unknown)}; it takes {', '.join(ARGUMENTS)}")
    config = base_config()
    config.name = f"{OURS}-" + "-".join([source, *options.values()])
    config.paper = "Multi-level bidirectional decoder interaction with uncertainty-aware adaptive coordination"
    config.task = "segmentation"
    config.data.source = source
    config.data.classes = ("normal", "benign", "malignant") if source == "busi" else ("benign", "malignant")
    _recipe(config)
    _model(config, options)
    if options.get("parity", "official") != "official":
        raise UserError(f"parity={options['parity']} is not known: parity=official, or leave it out")
    if "parity" in options:
        _official(config)
    if source.startswith("phantom"):
        _quick(config)
    return config


def _model(config: ConfigDict, options: dict[str, str]) -> None:
    name, ablation = options.get("model", OURS), options.get("ablation", "full")
    if name not in PUBLISHED or ablation not in (*ABLATIONS, "all"):
        choices = f"model= is one of {', '.join(PUBLISHED)}, ablation= of {', '.join(ABLATIONS)}, all"
        raise UserError(f"model={name}, ablation={ablation}: {choices}")
    if name != OURS and {"ablation", "encoder"} & options.keys():
        raise UserError(f"model={name}: ablation= and encoder= belong to {OURS}")
    config.model.name = name
    if name == OURS:
        if ablation == "all":
            config.cv.folds = 5
            config.cv.variants = ConfigDict({row: _variant(config.data.source, row) for row in ABLATIONS})
            ablation = "full"
        encoder = options.get("encoder", "tf_efficientnet_b4")
        config.model.options = ConfigDict({
            "encoder": encoder, "freeze": True, "dropout": 0.3, "drop_path": 0.2, "momentum": 0.99, **_parts(ablation),
        })  # fmt: skip
        config.optimizer.factors.encoder = 1.0  # below 1 the pretrained layers move less than the new ones
    elif PUBLISHED[name][0][2] is None:
        config.loss.classification = 0.0  # no class head
    config.loss.side = SIDE.get(name, 0.0)
    config.published = ConfigDict(_published(config.data.source, name, ablation))


def _variant(source: str, ablation: str) -> dict[str, dict]:
    return {"model": {"options": _parts(ablation)}, "published": _published(source, OURS, ablation)}


def _published(source: str, name: str, ablation: str) -> dict[str, str | float]:
    """The row's numbers on this data set; nothing where the paper has none."""
    busi, busi_whu = PUBLISHED[name]
    numbers = {"busi": ABLATIONS[ablation][1] if name == OURS else busi, "busi_whu": busi_whu if ablation == "full" else ()}
    found = {key: value for key, value in zip(COLUMNS, numbers.get(source, ()), strict=False) if value}
    row = name if ablation == "full" else f"{name}, {ablation}"
    return {"model": f"{row}, one split, {source}", **found} if found else {}


def _parts(ablation: str) -> dict[str, bool]:
    return dict(zip(("use_hmsf", "use_tim", "use_upa"), ABLATIONS[ablation][0], strict=True))


def _recipe(config: ConfigDict) -> None:
    """Section 3.1 and the README's constants of the loss."""
    config.batch_size, config.epochs = 24, 100
    config.optimizer.update(learning_rate=3e-4, min_learning_rate=1.5e-6, schedule="cosine", b1=0.91, eps=1e-7, clip_norm=1.0)
    config.loss = ConfigDict(dataclasses.asdict(SegmentationLoss()))
    config.loss.update(segmentation=0.8, classification=0.2, schedule="constant", side=0.0)
    config.data.augmentation, config.data.augment = "masks", ConfigDict(DEFAULT)
    config.monitor = "val/score"  # 0.7 IoU + 0.3 accuracy
    config.early_stop.update(patience=22, min_delta=0.004)


def _official(config: ConfigDict) -> None:
    """What the released code does where it can be meant."""
    config.loss.update(dataclasses.asdict(OFFICIAL))
    if config.loss.classification:
        config.loss.segmentation, config.loss.classification = OFFICIAL_SHARES
    config.data.augment.elastic, config.data.epoch_factor = 0.0, 4.0
    config.optimizer.min_learning_rate = 9e-6
    config.plateau.update(factor=0.55, patience=6, cooldown=2, min_lr=5e-3, monitor="val/score", mode="max", on_schedule=True)
    if config.model.name == OURS:
        config.model.options.parity = "official"


def _quick(config: ConfigDict) -> None:
    """A reduced preset that two CPU cores finish in minutes."""
    config.data.size, config.data.num_cases, config.data.phantom_size = 64, 480, 96
    config.data.augment.update(alpha=(10.0, 14.0), sigma=(3.0, 4.0))
    config.batch_size, config.epochs, config.optimizer.learning_rate = 16, 12, 2e-3
    config.published = ConfigDict()
    what = f"{config.model.name} as published"
    if config.model.name == OURS:
        config.model.options.update(SMALL, encoder="tf_efficientnet_lite0")
        what = "an EfficientNet-Lite0 of eight narrow blocks and a narrow decoder (paper: B4)"
    elif config.model.name in NARROW:
        config.model.options.base_width = 16
        what = f"{config.model.name} with a quarter of its channels or half of them"
    config.preset = (
        f"reduced preset: simulated phantoms without normal cases, {{size}} pixels, {what}, {{epochs}} epochs, learning "
        "rate {optimizer.learning_rate:g}, random start, nothing frozen (paper: 224 x 224, 100 epochs, 3e-4, ImageNet start)"
    )
