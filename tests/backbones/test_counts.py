"""Parameter counts with two classes: exact integers, from shapes alone. Source: timm 1.0.31 or, where timm lacks the network,
the official release."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.backbone import Backbone
from jaxmed.errors import UserError
from jaxmed.registry import _find

SWIN = "_patch4_window7_224"
COUNTS = {
    "resnet18": 11_177_538, "resnet34": 21_285_698, "resnet50": 23_512_130, "resnet101": 42_504_258, "resnet152": 58_147_906,
    "resnext50_32x4d": 22_984_002, "resnext101_32x4d": 42_132_802, "resnext101_32x8d": 86_746_434,
    "resnext101_64x4d": 81_410_370,
    "densenet121": 6_955_906, "densenet161": 26_476_418, "densenet169": 12_487_810, "densenet201": 18_096_770,
    "vgg11": 128_774_530, "vgg13": 128_959_042, "vgg16": 134_268_738, "vgg19": 139_578_434,
    "vgg11_bn": 128_780_034, "vgg13_bn": 128_964_930, "vgg16_bn": 134_277_186, "vgg19_bn": 139_589_442,
    "mobilenetv2_100": 2_226_434,
    "efficientnet_b0": 4_010_110, "efficientnet_b1": 6_515_746, "efficientnet_b2": 7_703_812, "efficientnet_b3": 10_699_306,
    "efficientnet_b4": 17_552_202, "tf_efficientnet_b0": 4_010_110, "tf_efficientnet_b1": 6_515_746,
    "tf_efficientnet_b2": 7_703_812, "tf_efficientnet_b3": 10_699_306, "tf_efficientnet_b4": 17_552_202,
    "tf_efficientnet_lite0": 3_373_570, "tf_efficientnet_lite1": 4_138_242, "tf_efficientnet_lite2": 4_813_634,
    "tf_efficientnet_lite3": 6_918_658, "tf_efficientnet_lite4": 11_728_130,
    "convnext_tiny": 27_821_666, "convnext_small": 49_456_226, "convnext_base": 87_568_514, "convnext_large": 196_233_410,
    f"swin_tiny{SWIN}": 27_520_892, f"swin_small{SWIN}": 48_838_796, f"swin_base{SWIN}": 86_745_274,
    f"swin_large{SWIN}": 194_998_550, "swin_pruned_tiny": 27_520_892,
    "vit_tiny_patch16_224": 5_524_802, "vit_small_patch16_224": 21_666_434, "vit_base_patch16_224": 85_800_194,
    "vit_large_patch16_224": 303_303_682,
    "hiera_tiny_224": 27_142_754, "hiera_small_224": 34_240_610, "hiera_base_224": 50_757_506,
    "hiera_base_plus_224": 69_001_410, "hiera_large_224": 212_589_218,
    "cswin_tiny_224": 21_808_578, "cswin_small_224": 34_131_330, "cswin_base_224": 76_614_722,
    "cswin_large_224": 172_111_970,
    "pvt_v2_b0": 3_410_274, "pvt_v2_b1": 13_497_026, "pvt_v2_b2": 24_850_882, "pvt_v2_b2_li": 22_041_538,
    "pvt_v2_b3": 44_726_722, "pvt_v2_b4": 62_044_098, "pvt_v2_b5": 81_444_034,
    "focalnet_tiny_srf": 27_659_654, "focalnet_tiny_lrf": 27_880_466, "focalnet_small_srf": 49_123_754,
    "focalnet_small_lrf": 49_574_978, "focalnet_base_srf": 87_125_194, "focalnet_base_lrf": 87_726_818,
    "mpvit_tiny": 5_627_170, "mpvit_xsmall": 10_316_962, "mpvit_small": 22_603_978, "mpvit_base": 74_365_938,
    "cnn_vssm": 3_639_490,
    "medmamba_tiny": 14_454_146, "medmamba_small": 18_622_082, "medmamba_base": 39_860_738,
    "thynet": 147_347_462,
}  # fmt: skip


def abstract(name, **options):
    return nnx.eval_shape(lambda: jaxmed.create_model(name, **options))


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_exact(name):
    assert jaxmed.count(abstract(name)) == COUNTS[name]


def test_every_encoder_has_its_count_here():
    classes = {name: _find(name)[0] for name in jaxmed.list_models()}
    ours = {name for name, found in classes.items() if issubclass(found, Backbone) and found.__module__.startswith("jaxmed.")}
    assert ours <= COUNTS.keys()


def test_the_original_thynet_is_smaller():
    assert jaxmed.count(abstract("thynet", mode="ensemble")) == 102_733_830


def test_a_misspelt_name_gets_the_nearest_ones():
    with pytest.raises(UserError, match="nearest: .*swin_tiny_patch4_window7_224"):
        jaxmed.create_model("swin_tiny_patch4_window7")


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", f"swin_tiny{SWIN}", "tf_efficientnet_b0"])
@pytest.mark.parametrize("shape", [(1, 224, 224, 1), (1, 3, 224, 224), (224, 224, 3)])
def test_images_with_other_channels_or_axes_are_refused_with_the_fix(name, shape):
    with pytest.raises(UserError, match="channels come last|224 x 224 pixels"):
        jax.eval_shape(lambda m: m(jnp.zeros(shape)), abstract(name))


def test_a_network_without_stages_refuses_features_and_says_what_it_has():
    with pytest.raises(UserError, match="no stages.*tokens"):
        abstract("vit_tiny_patch16_224").features(jnp.zeros((1, 224, 224, 3)))
