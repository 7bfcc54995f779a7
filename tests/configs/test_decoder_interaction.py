"""configs/decoder_interaction.py: every row of Tables 1 and 2 gives its network, its published numbers and the recipe."""

import importlib.util
from pathlib import Path

import pytest
from flax import nnx

from jaxmed import count
from jaxmed.data.augment_masks import check_options
from jaxmed.errors import UserError
from jaxmed.tasks.segmentation_losses import OFFICIAL, SegmentationLoss
from jaxmed.tasks.segmentation_options import loss_options
from jaxmed.train.rates import Rates
from jaxmed.train.setup import build_model

ROOT = Path(__file__).parents[2]


def module():
    spec = importlib.util.spec_from_file_location("decoder_interaction_config", ROOT / "configs/decoder_interaction.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


get_config = module().get_config


def network(config):
    return nnx.eval_shape(lambda: build_model(config, len(config.data.classes)))


def test_busi_has_the_papers_recipe():
    config = get_config("busi")
    assert config.data.classes == ("normal", "benign", "malignant") and config.data.size == 224
    assert (config.batch_size, config.epochs, config.early_stop.patience, config.early_stop.min_delta) == (24, 100, 22, 0.004)
    assert config.optimizer.b1 == 0.91 and config.optimizer.eps == 1e-7 and config.optimizer.clip_norm == 1.0
    rates = Rates(config, 1000)
    assert rates.at(0)["learning_rate"] == pytest.approx(3e-4) and rates.at(1000)["learning_rate"] == pytest.approx(1.5e-6)
    options = loss_options(config.loss)
    assert (options.mask, options.shares, options.side) == (SegmentationLoss(), (0.8, 0.2), 0.0)
    assert check_options(config.data.augment)["elastic"] == 0.3
    assert config.published.IoU == 74.5 and get_config("busi_whu").published.IoU == 86.4


@pytest.mark.slow
def test_the_published_network_is_built_for_the_three_classes_of_busi():
    model = network(get_config("busi"))
    assert count(model) - count(model.encoder) == 39_752_944  # specification, section 3
    assert model.num_classes == 3 and model.frozen


@pytest.mark.parametrize(
    ("ablation", "iou", "there"),
    [
        ("base", 67.43, (False, False, False)), ("hmsf", 69.95, (True, False, False)), ("tim", 69.2, (False, True, False)),
        ("tim_upa", 69.74, (False, True, True)), ("full", 74.5, (True, True, True)),
    ],
)  # fmt: skip
def test_every_row_of_table_2_has_its_parts_and_numbers(ablation, iou, there):
    config = get_config(f"busi,encoder=tf_efficientnet_lite0,ablation={ablation}")
    assert config.published.IoU == iou
    config.model.options.depths = (1,) * 7  # fewer layers to trace
    level = network(config).levels[0]
    assert (hasattr(level.res, "hmsf"), hasattr(level, "tim"), hasattr(level, "upa")) == there


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in sorted(module().PUBLISHED.keys() - {"unet", "swin_unet"})]


@pytest.mark.parametrize("name", ["unet", "swin_unet", *SLOW])
def test_every_row_of_table_1_builds_with_a_class_head_where_the_paper_names_an_accuracy(name):
    config = get_config(f"busi,model={name}")
    assert (network(config).num_classes == 3) == ("Acc" in config.published) == bool(config.loss.classification)


def test_parity_is_what_the_released_code_does():
    config = get_config("busi,parity=official")
    options = loss_options(config.loss)
    assert (options.mask, options.shares) == (OFFICIAL, (0.82, 0.18))
    assert config.data.augment.elastic == 0 and config.data.epoch_factor == 4 and config.model.options.parity == "official"


def test_the_first_command_trains_a_small_network_on_phantoms():
    config = get_config()
    assert (config.data.source, config.data.size, config.published.to_dict()) == ("phantom", 64, {})
    assert "reduced preset" in config.preset
    model = network(config)
    assert count(model) < 3e6 and model.frozen == ()


@pytest.mark.parametrize("arg", ["depth=3", "model=vgg16", "ablation=upa", "model=unet,ablation=tim", "parity=paper"])
def test_unknown_arguments_are_named(arg):
    with pytest.raises(UserError, match="depth|vgg16|ablation|parity=paper"):
        get_config(arg)


def test_all_ablations_are_variants_on_five_folds():
    config = get_config("busi,ablation=all")
    assert config.cv.folds == 5 and set(config.cv.variants) == {"base", "hmsf", "tim", "tim_upa", "full"}
    for name, changes in config.cv.variants.to_dict().items():
        alone = get_config(f"busi,ablation={name}")
        assert {key: alone.model.options[key] for key in changes["model"]["options"]} == changes["model"]["options"]
        assert alone.published.to_dict() == changes["published"] != {}
