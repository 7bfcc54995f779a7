"""Four-view mammography: label (malignant or not) and BI-RADS of both breasts from L_CC, L_MLO, R_CC and R_MLO together.

Paper: "A Hybrid CNN-VSSM model for Multi-View, Multi-Task Mammography Analysis", on CMMD with the TOMPEI labels.

    python -m jaxmed.main --config=configs/cnn_vssm.py                      # phantoms, reduced preset, minutes on 2 CPU cores
    python -m jaxmed.main --config=configs/cnn_vssm.py:cmmd,birads=1+3+5 --config.data.dir=CMMD \
        --config.pretrained.encoder=weights/resnet18.tv_in1k                # the paper's recipe
    python -m jaxmed.main --config=configs/cnn_vssm.py:folder_views --config.data.dir=cases.csv     # your own; see below

Arguments: the data source (phantom_mammo, cmmd, folder_views, study_records), then
    model=hybrid|vssm|resnet18|resnet50   sharing=all|projection   tasks=label+birads|label|birads   birads=1+5|1+3+5|1+2+3+4+5

The paper's numbers (AUC / macro-F1, best validation epoch, which is also its test set), hybrid, shared backbone, both tasks:

    birads=1+5          label .9686 / .9259   BI-RADS .9967 / .9830      Table 2
    birads=1+3+5        label .9629 / .8858   BI-RADS .9781 / .7790      Table 3
    birads=1+2+3+4+5    label .9607 / .9261   BI-RADS .9249 / .4597      Table 4 (BI-RADS alone .9265 / .4904)

The rows of these tables: model=resnet18, resnet50, vssm and hybrid with sharing=all, and vssm and hybrid with
sharing=projection (one backbone for CC, one for MLO). `--config.data.paper_protocol=True` selects the epoch on the test cases,
as the paper does; the default keeps an inner validation split. Patient-level folds: --mode=cv --config.cv.folds=5.

What the paper leaves open is a key: model.options (depths, cut, pre_merge, mask_missing_views, missing_views_in_norm,
freeze_cnn, dropout, drop_path), data.crop_breast, data.keep_label, data.augment.flip_views, loss.class_weights.
"Four blocks" of the pure VSSM: depths (1, 1, 1, 1); the other reading, MedMamba-T, is --config.model.options.depths=2,2,4,2.
The full recipe (512 x 512, 8 studies = 32 images a step, up to 100 epochs) is meant for a GPU.

folder_views: a CSV with image, study_id, view and perhaps label, birads, patient_id, split (PNG or DICOM files).
"""

from ml_collections import ConfigDict

from jaxmed.config import base_config, parse_arg
from jaxmed.errors import UserError

MODELS = ("hybrid", "vssm", "resnet18", "resnet50")
# label AUC, label macro-F1, BI-RADS AUC, BI-RADS macro-F1 in %: hybrid, shared backbone, both tasks (Tables 2 to 4)
PUBLISHED = {(1, 5): (96.86, 92.59, 99.67, 98.30), (1, 3, 5): (96.29, 88.58, 97.81, 77.90),
             (1, 2, 3, 4, 5): (96.07, 92.61, 92.49, 45.97)}  # fmt: skip
COLUMNS = ("AUC", "F1 macro", "BI-RADS AUC", "BI-RADS F1 macro")


def get_config(arg: str | None = None) -> ConfigDict:
    """`arg`: data source, then model=, sharing=, tasks=, birads=."""
    source, options = parse_arg(arg, "phantom_mammo")
    if unknown := options.keys() - {"model", "sharing", "tasks", "birads"}:
        raise UserError(f"configs/cnn_vssm.py does not know {sorted(unknown)}; it takes model=, sharing=, tasks=, birads=")
    config = base_config()
    config.name = "cnn_vssm-" + "-".join([source, *(value.replace("+", "") for value in options.values())])
    config.paper = "Hybrid CNN-VSSM for multi-view, multi-task mammography"
    config.task = "four_views"
    config.loss = ConfigDict({"label": 0.5, "birads": 0.5, "class_weights": True})  # eq. 11; inverse class frequency
    _model(config, options)
    _data(config, source, options)
    _recipe(config, options.get("model", "hybrid"))
    if source == "phantom_mammo":
        _quick(config)
    return config


def _model(config: ConfigDict, options: dict[str, str]) -> None:
    model = options.get("model", "hybrid")
    if model not in MODELS:
        raise UserError(f"model={model} is none of {', '.join(MODELS)}")
    config.model.name = f"multiview_{model}"
    config.model.options = ConfigDict({
        "sharing": options.get("sharing", "all"), "tasks": tuple(options.get("tasks", "label+birads").split("+")),
        "mask_missing_views": False, "missing_views_in_norm": True, "freeze_cnn": False, "dropout": 0.5,
    })  # fmt: skip
    encoder = {
        "hybrid": {"cut": "layer2", "pre_merge": True, "depths": (1, 1), "drop_path": 0.1},
        "vssm": {"depths": (1, 1, 1, 1), "drop_path": 0.1},
    }
    config.model.options.update(encoder.get(model, {}))


def _data(config: ConfigDict, source: str, options: dict[str, str]) -> None:
    data = config.data
    data.source, data.classes, data.size = source, ("non-malignant", "malignant"), 512
    try:
        data.birads_subset = tuple(int(k) for k in options.get("birads", "1+3+5").split("+"))
    except ValueError as error:
        raise UserError(f"birads={options['birads']} is not like 1+3+5") from error
    data.keep_label = False  # True: a breast outside the subset keeps its label
    data.crop_breast = False
    data.invisible = "malignant"  # CMMD: biopsy-proven, not to be seen in the picture; or "ignore"
    data.augment = ConfigDict({"degrees": 10.0, "translate": 0.05, "scale": 0.05, "hflip": 0.5, "flip_views": False})
    data.test_fraction, data.val_fraction = 0.2, 0.15
    hybrid = config.model.name == "multiview_hybrid" and config.model.options.sharing == "all"
    if data.birads_subset in PUBLISHED and hybrid and len(config.model.options.tasks) == 2:
        numbers = dict(zip(COLUMNS, PUBLISHED[data.birads_subset], strict=True))
        config.published = ConfigDict({"model": "hybrid, TOMPEI-CMMD, best validation epoch", **numbers})


def _recipe(config: ConfigDict, model: str) -> None:
    """Section 3.2; batch 8 studies is our choice, the paper gives none."""
    config.batch_size, config.epochs = 8, 100
    config.optimizer.update(learning_rate=1e-5 if model == "vssm" else 1e-4, weight_decay=0.05, clip_norm=1.0)
    config.plateau.update(patience=10, monitor="val/auc", mode="max")
    config.monitor = "val/auc"  # mean of the tasks' AUC


def _quick(config: ConfigDict) -> None:
    """A reduced preset that two CPU cores finish in minutes."""
    config.data.size = 128
    config.data.phantom_size = 128
    config.data.num_cases = 320
    config.epochs = 12
    config.optimizer.learning_rate = 3e-4
    config.published = ConfigDict()
    config.preset = (
        "reduced preset: simulated phantoms, {size} pixels, {epochs} epochs, learning rate {optimizer.learning_rate:g}, random "
        "start (paper: 512 x 512, up to 100 epochs, 1e-4, ImageNet start)"
    )
