"""The U-Nets, TransUNet and Swin-Unet with a class head."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.tree import count, flatten, tree_of
from jaxmed.weights import to_state_dict
from tests.weights.networks import empty, fill, leaves

HYBRID = dict(img_size=32, base_width=32, depths=(1, 1, 1), dim=128, depth=1, num_heads=2)
TINY = {
    "unet": dict(base_width=4),
    "unet bilinear": dict(base_width=4, bilinear=True),
    "attention_unet": dict(base_width=4),
    "unet_plus_plus": dict(base_width=4, deep_supervision=True),
    "unet_plus_plus nnunet": dict(base_width=4, variant="nnunet"),
    "trans_unet": dict(**HYBRID, decoder_dims=(8, 8, 8, 8)),
    "swin_unet": dict(depths=(1, 1, 2, 1), dims=(8, 16, 32, 64), num_heads=(1, 1, 2, 2), window_size=2, drop_path=0.0),
}
WIDTHS = {  # of what the class head sees
    "unet": 64, "unet bilinear": 32, "attention_unet": 64, "unet_plus_plus": 64, "unet_plus_plus nnunet": 128,
    "trans_unet": 128, "swin_unet": 64,
}  # fmt: skip
SLOW = ("unet bilinear", "attention_unet", "unet_plus_plus", "unet_plus_plus nnunet", "trans_unet")  # to compile
SIDES = {"unet_plus_plus": 3, "unet_plus_plus nnunet": 4}
# specification of the baselines, table E, one mask channel and no class; the authors' UNet++ has two channels in its fixture
COUNTS = [
    ("unet", {}, 31_037_633),
    ("unet", dict(bilinear=True), 17_262_977),
    ("attention_unet", {}, 34_878_573),
    ("unet_plus_plus", {}, 9_163_329),
    ("unet_plus_plus", dict(deep_supervision=True), 9_163_428),
    ("unet_plus_plus", dict(variant="nnunet", base_width=16, mask_channels=2), 8_731_280),
    ("trans_unet", {}, 105_275_921),
    ("swin_unet", {}, 27_168_132),
]


def abstract(name, **options):
    return nnx.eval_shape(lambda: jaxmed.create_model(name.split(" ")[0], **options))


def shapes(model, image, **options):
    out = jax.eval_shape(lambda m: m(image, **options), model)
    return {name: x.shape for name, x in out.items()} if isinstance(out, dict) else out.shape


def images(b=2, size=32):
    return jnp.asarray(np.random.default_rng(0).standard_normal((b, size, size, 3)), jnp.float32)


@pytest.mark.parametrize(("name", "options", "number"), COUNTS)
def test_parameter_counts_are_exact(name, options, number):
    assert count(abstract(name, num_classes=None, **options)) == number


def test_the_head_is_one_linear_layer_on_the_deepest_map():
    for name in ("unet", "attention_unet"):
        assert count(abstract(name)) - count(abstract(name, num_classes=None)) == 1024 * 2 + 2


@pytest.mark.parametrize("name", TINY)
def test_outputs_have_the_promised_names_and_shapes(name):
    model = abstract(name, num_classes=3, mask_channels=2, **TINY[name])
    sides = {f"side_logits_{k + 1}": (2, 32, 32, 2) for k in range(SIDES.get(name, 0))}
    expected = {"logits": (2, 3), "mask_logits": (2, 32, 32, 2), "features": (2, WIDTHS[name])}
    assert shapes(model, images(), aux=True) == expected | sides
    assert model.input_names == ("image",) and model.frozen == ()


def test_without_classes_the_mask_logits_are_the_output():
    for name in ("unet", "unet_plus_plus"):
        model = abstract(name, num_classes=None, **TINY[name])
        assert shapes(model, images()) == (2, 32, 32, 1)
        assert {"mask_logits", "features"} <= set(shapes(model, images(), aux=True))
    assert set(shapes(abstract("unet", **TINY["unet"]), images())) == {"logits", "mask_logits"}


@pytest.mark.parametrize("name", TINY)
def test_half_precision_stays_half_until_the_logits(name):
    model = abstract(name, dtype=jnp.bfloat16, **TINY[name])
    deepest, masks = jax.eval_shape(lambda m: m.masks(images(), False, None), model)
    assert {x.dtype for x in (deepest, *masks.values())} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in flatten(tree_of(model)).values()} == {jnp.dtype(jnp.float32)}


def test_logits_are_float32():
    out = jax.eval_shape(lambda m: m(images(), aux=True), abstract("unet", dtype=jnp.bfloat16, **TINY["unet"]))
    assert {x.dtype for x in out.values()} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in TINY])
def test_every_parameter_learns(name):
    model = jaxmed.create_model(name.split(" ")[0], **TINY[name])
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # half the time to compile
    def gradients(params, rest):
        def loss_of(params):
            out = nnx.merge(graph, params, rest, copy=True)(images(), train=True, rngs=nnx.Rngs(dropout=0))
            return sum(jnp.mean(jnp.square(x - 1.0)) for x in out.values())

        return jax.grad(loss_of)(params)

    grads = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(gradients(params, rest))}
    assert all(np.isfinite(g).all() for g in grads.values())
    assert [path for path, g in grads.items() if not np.any(g)] == []


@pytest.mark.parametrize(
    ("name", "stride"),
    [("unet", 16), ("attention_unet", 16), ("unet_plus_plus", 16), ("unet_plus_plus nnunet", 32), ("swin_unet", 32)],
)
def test_images_that_do_not_halve_are_errors(name, stride):
    model = abstract(name, **TINY[name])
    assert shapes(model, jnp.zeros((1, stride, 2 * stride, 3)))["mask_logits"] == (1, stride, 2 * stride, 1)
    with pytest.raises(UserError, match=f"multiples of {stride}; .* resize or pad them"):
        model(jnp.zeros((1, 2 * stride, stride + 8, 3)))


def test_mistakes_are_errors():
    with pytest.raises(UserError, match="'nested', 'nnunet'"):
        abstract("unet_plus_plus", variant="dense")
    with pytest.raises(UserError, match="img_size=100 is not a multiple of 16"):
        abstract("trans_unet", img_size=100)
    with pytest.raises(UserError, match="32 x 32 pixels, got 64 x 64.*img_size="):
        abstract("trans_unet", **TINY["trans_unet"])(jnp.zeros((1, 64, 64, 3)))


@pytest.mark.parametrize("deep_supervision", [False, True])
def test_the_nested_unet_has_the_names_of_its_release(deep_supervision):
    model = abstract("unet_plus_plus", num_classes=None, base_width=4, deep_supervision=deep_supervision)
    layers = {"conv1": ("weight", "bias"), "conv2": ("weight", "bias")}
    layers |= {f"bn{n}": ("weight", "bias", "running_mean", "running_var") for n in (1, 2)}
    nodes = [f"conv{i}_{j}" for i in range(5) for j in range(5 - i)]
    keys = {f"{node}.{layer}.{leaf}" for node in nodes for layer, leaves in layers.items() for leaf in leaves}
    finals = [f"final{k}" for k in (1, 2, 3, 4)] if deep_supervision else ["final"]
    keys |= {f"{final}.{leaf}" for final in finals for leaf in ("weight", "bias")}
    assert set(to_state_dict(fill(model), "official")) == keys


def test_a_published_mask_network_takes_a_new_head():
    published = to_state_dict(fill(abstract("unet", num_classes=None, base_width=2)), "official")
    model = jaxmed.create_model("unet", base_width=2)
    with pytest.raises(UserError, match="head.kernel"):
        jaxmed.load_weights(model, published, source="official")
    report = jaxmed.load_weights(model, published, source="official", new_head=True)
    assert set(report.initialised) == {"head.kernel", "head.bias"} and not report.ignored


def test_swin_unet_starts_from_a_published_swin():
    options = {key: value for key, value in TINY["swin_unet"].items() if key != "drop_path"}
    swin = fill(empty("swin_tiny_patch4_window7_224", **options))
    model = jaxmed.create_model("swin_unet", **options)
    report = jaxmed.load_weights(model, to_state_dict(swin, "official"), source="official", into="encoder")
    assert set(report.ignored) == {"head.weight", "head.bias"}
    new = leaves(model)
    assert all(np.array_equal(new[f"encoder.{path}"], value) for path, value in leaves(swin).items() if "head" not in path)


def hybrid_archive():
    """Google's names and shapes for the encoder of HYBRID, from their description: heads are axes, positions begin with the
    class token's, group norms are [1, 1, 1, c]."""
    block, attention = "Transformer/encoderblock_0/", "MultiHeadDotProductAttention_1/"
    shapes = {"conv_root/kernel": (7, 7, 3, 32), "embedding/kernel": (1, 1, 512, 128), "embedding/bias": (128,)}
    shapes |= {f"gn_root/{leaf}": (1, 1, 1, 32) for leaf in ("scale", "bias")}
    for k, (inside, width) in enumerate([(32, 128), (128, 256), (256, 512)], 1):
        unit, mid = f"block{k}/unit1/", width // 4
        shapes |= {f"{unit}conv1/kernel": (1, 1, inside, mid), f"{unit}conv2/kernel": (3, 3, mid, mid)}
        shapes |= {f"{unit}conv3/kernel": (1, 1, mid, width), f"{unit}conv_proj/kernel": (1, 1, inside, width)}
        norms = {"gn1": mid, "gn2": mid, "gn3": width, "gn_proj": width}
        shapes |= {f"{unit}{norm}/{leaf}": (1, 1, 1, c) for norm, c in norms.items() for leaf in ("scale", "bias")}
    for layer in (f"{block}LayerNorm_0", f"{block}LayerNorm_2", "Transformer/encoder_norm"):
        shapes |= {f"{layer}/{leaf}": (128,) for leaf in ("scale", "bias")}
    for part in ("query", "key", "value"):
        shapes |= {f"{block}{attention}{part}/kernel": (128, 2, 64), f"{block}{attention}{part}/bias": (2, 64)}
    shapes |= {f"{block}{attention}out/kernel": (2, 64, 128), f"{block}{attention}out/bias": (128,)}
    for layer, size in (("Dense_0", (128, 512)), ("Dense_1", (512, 128))):
        shapes |= {f"{block}MlpBlock_3/{layer}/kernel": size, f"{block}MlpBlock_3/{layer}/bias": size[1:]}
    shapes |= {"Transformer/posembed_input/pos_embedding": (1, 5, 128), "cls": (1, 1, 128)}
    shapes |= {"head/kernel": (128, 9), "head/bias": (9,), "pre_logits/kernel": (128, 128), "pre_logits/bias": (128,)}
    rng = np.random.default_rng(0)
    return {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def test_trans_unet_starts_from_googles_archive(tmp_path):
    archive = hybrid_archive()
    np.savez(tmp_path / "hybrid.npz", **archive)
    model = empty("trans_unet", **TINY["trans_unet"])
    report = jaxmed.load_weights(model, tmp_path / "hybrid.npz", source="official", into="encoder")
    assert set(report.ignored) == {"cls", "head/kernel", "head/bias", "pre_logits/kernel", "pre_logits/bias"}
    new = flatten(tree_of(model.encoder))
    np.testing.assert_array_equal(new["pos_embed"], archive["Transformer/posembed_input/pos_embedding"][:, 1:])
    np.testing.assert_array_equal(new["resnet.stages.1.0.gn_proj.scale"], archive["block2/unit1/gn_proj/scale"].ravel())
    attention = {key.split("/", 3)[3]: value for key, value in archive.items() if "MultiHead" in key}
    x = np.random.default_rng(1).standard_normal((3, 128)).astype(np.float32)
    heads = np.einsum("ti,ihk->thk", x, attention["query/kernel"]) + attention["query/bias"]
    got = x @ new["blocks.0.attn.query.kernel"] + new["blocks.0.attn.query.bias"].reshape(1, -1)
    np.testing.assert_allclose(got, heads.reshape(3, -1), rtol=1e-4, atol=1e-4)
    out = np.einsum("thk,hko->to", heads, attention["out/kernel"])
    np.testing.assert_allclose(heads.reshape(3, -1) @ new["blocks.0.attn.out.kernel"], out, rtol=1e-3, atol=1e-2)
