import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import jaxmed

CHANNELS = {  # timm's features_only at strides 4, 8, 16, 32
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "densenet121": (256, 512, 1024, 1024),
    "mobilenetv2_100": (24, 32, 96, 320),
    "resnext50_32x4d": (256, 512, 1024, 2048),
    "vgg11_bn": (256, 512, 512, 512),
    "densenet161": (384, 768, 2112, 2208),
    "convnext_tiny": (96, 192, 384, 768),
    "swin_tiny_patch4_window7_224": (96, 192, 384, 768),
}
TAPS = {  # (channels, strides) that cross-stage attention looks at
    "resnet18": ((64, 128, 256, 512), (4, 8, 16, 32)),
    "vgg16": ((128, 256, 512, 512), (4, 8, 16, 32)),
    "densenet121": ((128, 256, 512, 1024), (8, 16, 32, 32)),
    "mobilenetv2_100": ((24, 32, 96, 1280), (4, 8, 16, 32)),
}


def abstract(name, **options):
    return nnx.eval_shape(lambda: jaxmed.create_model(name, **options))


@pytest.mark.parametrize("name", CHANNELS)
def test_feature_maps_have_timms_channels_and_strides(name):
    maps = jax.eval_shape(lambda m: m.features(jnp.zeros((1, 64, 64, 3))), abstract(name))
    assert [m.shape[1:] for m in maps] == [(64 // s, 64 // s, c) for s, c in zip((4, 8, 16, 32), CHANNELS[name], strict=True)]


@pytest.mark.parametrize("name", TAPS)
def test_attention_taps_follow_the_specification(name):
    model = abstract(name, num_classes=None)
    maps = jax.eval_shape(lambda m: m.csa_taps(jnp.zeros((1, 64, 64, 3))), model)
    channels, strides = TAPS[name]
    assert tuple(model.tap_channels) == channels
    assert [m.shape for m in maps] == [(1, 64 // s, 64 // s, c) for s, c in zip(strides, channels, strict=True)]


def test_a_backbone_without_classifier_gives_its_pooled_feature():
    out = jax.eval_shape(lambda m: m(jnp.zeros((2, 64, 64, 3))), abstract("resnet18", num_classes=None))
    assert out.shape == (2, 512)


def test_bfloat16_computes_in_bfloat16_and_answers_in_float32():
    model = abstract("resnet18", dtype=jnp.bfloat16)
    maps = jax.eval_shape(lambda m: m.features(jnp.zeros((1, 64, 64, 3))), model)
    assert {m.dtype for m in maps} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(lambda m: m(jnp.zeros((1, 64, 64, 3))), model).dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
