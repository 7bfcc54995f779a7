"""The rules of every family name exactly the published keys, and a round trip changes no bit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.backbones.hybrid_vit import HybridViT
from jaxmed.nn import Conv, Linear
from jaxmed.tree import flatten, tree_of
from jaxmed.weights import to_state_dict
from jaxmed.weights.families import FAMILIES, family_of
from jaxmed.weights.layouts import KERNEL, convolved
from tests.weights.networks import assert_same, empty, fill, leaves, published_keys

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL_HSQFORMER = dict(
    swin="swin_tiny_patch4_window7_224", swin_options=dict(depths=(1, 2, 1, 1), dims=(8, 16, 32, 64), num_heads=(1, 2, 4, 8)),
    convnext="convnext_tiny", convnext_options=dict(depths=(1, 1, 2, 1), dims=(8, 16, 32, 64)), depths=(1, 2, 1, 1),
    num_queries=3, query_dim=24, projector_num_heads=(1, 2, 4, 8), img_size=32,
)  # fmt: skip
SMALL_HYBRID = dict(img_size=32, base_width=32, depths=(1, 1, 2), dim=128, depth=2, num_heads=2)
SMALLEST = {
    "resnet": lambda: empty("resnet50", depths=(1, 1, 1, 1)),
    "densenet": lambda: empty("densenet121", depths=(1, 2, 1, 1), growth=4),
    "vgg": lambda: nnx.eval_shape(narrow_vgg),
    "mobilenetv2": lambda: empty("mobilenetv2_100"),
    "efficientnet": lambda: empty("tf_efficientnet_b0"),
    "convnext": lambda: empty("convnext_tiny", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
    "swin": lambda: empty("swin_tiny_patch4_window7_224", depths=(1, 2, 1, 1), dims=(8, 16, 32, 64), num_heads=(1, 2, 4, 8)),
    "vit": lambda: empty("vit_tiny_patch16_224", depth=2, dim=16, num_heads=2),
    "hiera": lambda: empty("hiera_tiny_224", depths=(1, 1, 2, 1), dims=(8, 16, 32, 64)),
    "pvt_v2": lambda: empty("pvt_v2_b0", depths=(1, 1, 2, 1), dims=(8, 16, 20, 32)),
    "focalnet": lambda: empty("focalnet_tiny_lrf", depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
    "cswin": lambda: empty("cswin_tiny_224", depths=(1, 1, 2, 1), dims=(8, 16, 32, 64)),
    "mpvit": lambda: empty("mpvit_tiny", depths=(1, 1, 2, 1), dims=(16, 24, 32, 40)),
    "medmamba": lambda: empty("medmamba_tiny", depths=(1, 1, 2, 1), dims=(8, 16, 32, 64)),
    "decoder_interaction": lambda: empty(
        "decoder_interaction", encoder="tf_efficientnet_b0", depths=(1, 2, 1, 1, 1, 1, 1), dims=(8,) * 9, parity="official"
    ),
    "hsqformer": lambda: empty("hsqformer_s", **SMALL_HSQFORMER),
    "gmic": lambda: empty("gmic"),
    "missformer": lambda: empty("missformer", dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
    "mtanet": lambda: empty("mtanet", encoder="pvt_v2_b0", depths=(1, 1, 1, 1), clinical_features=8),
    "mtan": lambda: empty("mtan", dims=(8, 8, 16, 24, 24), dense_tasks={"mask_logits": 1, "depth": 2}),
    "unet": lambda: empty("unet", base_width=4),
    "attention_unet": lambda: empty("attention_unet", base_width=4),
    "unet_plus_plus": lambda: empty("unet_plus_plus", variant="nnunet", base_width=4),
    "trans_unet": lambda: empty("trans_unet", **SMALL_HYBRID, decoder_dims=(8, 8, 8, 4)),
    "hybrid_vit": lambda: nnx.eval_shape(lambda: HybridViT(**SMALL_HYBRID, rngs=nnx.Rngs(0))),
    "swin_unet": lambda: empty("swin_unet", depths=(1, 1, 2, 1), dims=(8, 16, 32, 64), num_heads=(1, 2, 4, 8)),
}
HOLDS = {"decoder_interaction": {"efficientnet"}}  # systems whose files name their encoder's layers as the encoder's own do
NAMINGS = [(family.name, naming) for family in FAMILIES for naming in (*family.namings, "jaxmed")]
LIVE = ["timm/mobilenetv2_100", "timm/vgg16", "torchvision/mobilenetv2_100"]
FIXTURES = json.loads((GOLDEN / "create.json").read_text())


def narrow_vgg():
    """A stand-in of the class VGG, whose real first linear layer alone has 100 million weights."""

    class VGG(nnx.Module):
        def __init__(self):
            self.features = nnx.List([Conv(3, 2, 3, rngs=nnx.Rngs(0))])
            sizes = {"0": (512 * 7 * 7, 5), "3": (4096, 6), "6": (7, 3)}
            self.classifier = nnx.Dict({name: Linear(*size, rngs=nnx.Rngs(0)) for name, size in sizes.items()})

    return VGG()


def _published_shapes(name: str, source: str, num_classes: int, **overrides) -> dict[str, list[int]]:
    model = empty(name, num_classes, **overrides)
    naming = family_of(model).naming(source)
    whole = shapes_of(model)
    parts = {part: whole[path].shape[0 if i is None else 1 :] for part, (path, i) in naming.parts(whole).items()}
    keys = naming.keys(parts)
    published = {key: naming.layout(path).to_torch(np.empty(parts[path], np.int8)) for key, path in keys.items()}
    shapes = {key: list(array.shape) for key, array in published.items()}
    return shapes | {copy: shapes[key] for copy, key in naming.copies(keys).items()}


def shapes_of(model):
    """Path -> shape and dtype."""
    return flatten(tree_of(model))


@pytest.mark.parametrize(("family", "naming"), NAMINGS)
def test_a_round_trip_changes_no_bit(family, naming):
    model, target = fill(SMALLEST[family]()), SMALLEST[family]()
    published = to_state_dict(model, naming)
    jaxmed.load_weights(target, published, source=naming)
    assert_same(leaves(target), leaves(model))
    assert_same(to_state_dict(target, naming), published)


@pytest.mark.parametrize("key", LIVE)
def test_names_and_shapes_are_those_of_the_live_network(key):
    source, name = key.split("/")
    assert _published_shapes(name, source, 1000) == published_keys()[key]


@pytest.mark.parametrize("fixture", FIXTURES)
def test_names_and_shapes_are_those_of_the_golden_fixture(fixture):
    recipe = FIXTURES[fixture]
    entries = json.loads((GOLDEN / f"{fixture}.json").read_text())["entries"]
    shapes = _published_shapes(recipe["name"], recipe["source"], **recipe["overrides"])
    assert shapes == {key: shape for key, shape, _ in entries}


def test_every_family_has_a_sign_that_no_other_family_shows():
    for family in FAMILIES:
        for naming in (*family.namings, "jaxmed"):
            keys = family.naming(naming).keys(shapes_of(SMALLEST[family.name]()))
            signs = {f.name for f in FAMILIES if any(re.fullmatch(f.sign, key) for key in keys)}
            assert signs - HOLDS.get(family.name, set()) == {family.name}


def test_families_are_found_by_class_and_systems_have_none():
    assert {name: family_of(make()).name for name, make in SMALLEST.items()} == {f.name: f.name for f in FAMILIES}
    assert family_of(empty("csa_moe", encoder="mobilenetv2_100")) is None


def test_a_kernel_moves_out_and_in_channels_to_the_end():
    torch_kernel = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    ours = KERNEL.to_jax(torch_kernel)
    assert ours.shape == (5, 7, 3, 2) and ours[4, 6, 1, 0] == torch_kernel[0, 1, 4, 6]
    np.testing.assert_array_equal(KERNEL.to_jax(np.arange(6).reshape(2, 3)), np.arange(6).reshape(2, 3).T)


def test_a_stored_convolution_acts_as_the_linear_layer_it_was():
    rng = np.random.default_rng(0)
    stored, image = rng.standard_normal((4, 3, 2, 2)), rng.standard_normal((3, 2, 2))
    linear = convolved(3, 2).to_jax(stored)
    np.testing.assert_allclose(image.reshape(-1) @ linear, np.einsum("ochw,chw->o", stored, image))
    np.testing.assert_array_equal(convolved(3, 2).to_torch(linear), stored)
