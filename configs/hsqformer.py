"""HSQformer: liver ultrasound, focal lesion benign or malignant, Swin and ConvNeXt read by sparse queries.

Paper: She et al., "HSQformer", arXiv 2502.03772. Its training images (11,380) are private; a single-centre test set is public.

    python -m jaxmed.main --config=configs/hsqformer.py                     # liver phantoms, a tiny network, minutes on a CPU
    python -m jaxmed.main --config=configs/hsqformer.py:folder --config.data.dir=classification_data \
        --config.pretrained.swin=weights/swin_small_patch4_window7_224.ms_in22k \
        --config.pretrained.convnext=weights/convnext_small.fb_in22k        # the paper's recipe

Arguments: the data source (phantom_liver, folder, busi, ...), then size=s|b|l|tiny. Multi-centre test of the paper, %, mean of
five folds: accuracy / precision / recall / F1 / AUC

    size=s     87.41 / 85.56 / 90.44 / 87.87 / 94.71        160.9 M parameters
    size=b     88.29 / 87.09 / 90.38 / 88.60 / 95.38        208.2 M
    size=l     88.51 / 86.51 / 91.57 / 88.94 / 95.04        648.5 M

The twelve baselines of Table 2 are variants of configs/classifier.py. Ablations are keys of model.options: depths (Figs. 4, 5;
0 leaves a scale out), num_queries, query_dim (Fig. 6), order, query_order (Fig. 7), num_experts, top_k, routing (Fig. 8).

Folds by patient, as in the released code: --mode=cv --config.cv.folds=5 --config.cv.held_out=val, with the test sets that
data.test_sets names (a split column, or folders beside train). Patients are named by data.patient_pattern; the liver files'
names begin with them: --config.data.patient_pattern="^([^_]+)_".

Paper and code differ; the paper's number is the default, the code's is a key: data.augment.erasing (0.25; code 0.1),
mix.double_smoothing, optimizer.cycle_b1, model.options.router_noise ("train"; code "always"). The sampler and its two draws
per case and epoch are the code's (the paper does not mention it): classes are drawn equally often, so that probabilities are
those of an even prior; the report shows calibration before and after correction.
The full recipe (224 x 224, batch 50, 20 epochs) is meant for a GPU.
"""

from ml_collections import ConfigDict

from jaxmed.config import base_config, parse_arg
from jaxmed.errors import UserError

# accuracy, precision, recall, F1, AUC (%) in the multi-centre test (Table 2)
PUBLISHED = {
    "s": (87.41, 85.56, 90.44, 87.87, 94.71),
    "b": (88.29, 87.09, 90.38, 88.60, 95.38),
    "l": (88.51, 86.51, 91.57, 88.94, 95.04),
}
COLUMNS = ("Acc", "Pre", "Rec", "F1", "AUC")
TINY = {  # a ResNet in ConvNeXt's place: from a random start ConvNeXt learns little from some hundred images
    "swin": "swin_tiny_patch4_window7_224", "convnext": "resnet18", "convnext_options": {"depths": (1, 1, 1, 1)},
    "swin_options": {"depths": (1, 1, 1, 1), "dims": (64, 128, 256, 512), "num_heads": (2, 4, 8, 16)},
    "projector_num_heads": (2, 4, 8, 16), "num_queries": 16, "query_dim": 96, "num_heads": (3, 3, 6, 6), "depths": (1, 1, 1, 1),
    "img_size": 64, "dropout": 0.1, "drop_path": 0.0,
}  # fmt: skip
SIZES = (*PUBLISHED, "tiny")


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: data source, then size=s|b|l|tiny."""
    source, options = parse_arg(arg, "phantom_liver")
    if unknown := options.keys() - {"size"}:
        raise UserError(f"configs/hsqformer.py does not know {sorted(unknown)}; it takes size={'|'.join(SIZES)}")
    size = options.get("size", "tiny" if source.startswith("phantom") else "s")
    if size not in SIZES:
        raise UserError(f"size={size} is none of {', '.join(SIZES)}")
    config = base_config()
    config.name = f"hsqformer-{source}-{size}"
    config.paper = "HSQformer (She et al. 2025)"
    config.data.source = source
    config.model.name = "hsqformer_s" if size == "tiny" else f"hsqformer_{size}"
    config.model.options = ConfigDict({
        "router_noise": "train", "balance_weight": 0.0, "remat": False, "drop_path": 0.2, "dropout": 0.5,
    })  # fmt: skip
    config.pretrained = ConfigDict({"swin": "", "convnext": ""})
    _recipe(config, size)
    if size == "tiny":
        _quick(config)
    elif not source.startswith("phantom"):
        numbers = dict(zip(COLUMNS, PUBLISHED[size], strict=True))
        config.published = ConfigDict({"model": f"hsqformer_{size}, private images, multi-centre test", **numbers})
    return config


def _recipe(config: ConfigDict, size: str) -> None:
    """Table 5, and the released code where the table is silent."""
    config.batch_size, config.epochs = (20 if size == "l" else 50), 10
    config.optimizer.update(learning_rate=1.5e-4, weight_decay=1e-4, schedule="one_cycle")
    config.optimizer.factors = ConfigDict({"swintransformer": 2 / 3, "convnext": 2 / 3})  # encoders 1e-4
    config.mix = ConfigDict({"mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1, "double_smoothing": False})
    config.ema = 0.9999 if size == "l" else 0.0
    config.data.sampler, config.data.epoch_factor = "balanced", 2.0  # ten epochs of two draws per case: the paper's twenty
    config.data.augmentation = "strong"
    config.data.augment = ConfigDict({"crop_scale": (0.7, 1.0), "auto_augment": True, "hflip": 0.5, "erasing": 0.25})
    config.monitor = "val/auc"


def _quick(config: ConfigDict) -> None:
    """A reduced preset: small encoders, small images, few epochs, mild augmentation."""
    config.model.options.update(TINY)
    config.data.size, config.data.num_cases = 64, 800
    config.data.augment = ConfigDict({"crop_scale": (0.7, 1.0), "auto_augment": False, "hflip": 0.5, "erasing": 0.0})
    config.mix.update(mixup=0.0, cutmix=0.0)  # label smoothing alone
    config.batch_size, config.epochs = 32, 7
    config.optimizer.learning_rate = 5e-4
    config.preset = (
        "reduced preset: simulated liver phantoms, {size} pixels, a Swin and a ResNet of 4 blocks, {epochs} epochs, "
        "learning rate {optimizer.learning_rate:g}, random start, no AutoAugment, erasing, mixup and cutmix (paper: 224 x 224, "
        "Swin-S and ConvNeXt-S with ImageNet weights, 1.5e-4)"
    )
