"""Grad-CAM against its formulas, and what catching maps does to a network (nothing)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.explain.attention import query_maps
from jaxmed.explain.grad_cam import class_scores, grad_cam, heat, relative
from jaxmed.explain.intercept import catching
from jaxmed.explain.layers import layers, looks, token_grid
from jaxmed.nn import Conv, Linear, global_avg_pool
from tests.models.test_hsqformer import TINY as TINY_HSQFORMER
from tests.train import tiny_config  # noqa: F401  registers the encoder "tiny"


def images(batch=2, size=32, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((batch, size, size, 3)), jnp.float32)


def of_class(index):
    return lambda out: class_scores(out, jnp.full(len(out), index))[None]


def looked_at(model, *inputs, layer=None, **options):
    """{encoder: names of the candidate layers}"""
    found = looks(model, layers(model, *inputs, **options), layer)
    return {look.encoder: [item.name for item in look.candidates] for look in found}


@pytest.fixture(scope="module")
def tiny():
    return jaxmed.create_model("tiny", 2, rngs=nnx.Rngs(1))


class Rematerialised(nnx.Module):
    """Two convolutions inside jax.checkpoint, which no value may leave on the side, and a shared one that runs twice."""

    def __init__(self, remat: bool):
        self.remat, rngs = remat, nnx.Rngs(3)
        self.first, self.second, self.shared = (Conv(3 if k == 0 else 8, 8, 3, padding=1, rngs=rngs) for k in range(3))
        self.head = Linear(8, 2, rngs=rngs)

    def __call__(self, x):
        def body(x):
            return jax.nn.relu(self.second(jax.nn.relu(self.first(x))))

        x = (jax.checkpoint(body) if self.remat else body)(x)
        return self.head(global_avg_pool(jax.nn.relu(self.shared(self.shared(x)))))


# --- the formulas


def test_on_a_linear_head_behind_the_mean_it_is_the_class_activation_map(tiny):
    """Zhou et al. 2016: the weights of the class, times the map; eq. 1 divides them by the number of cells."""
    x = images(3)
    found = layers(tiny, x)
    last = next(item for item in found if item.name == "features[3]")
    for index in (0, 1):
        out, maps = grad_cam(tiny, [x], [last], of_class(index))
        activation = tiny.features(x)[3]
        cells = activation.shape[1] * activation.shape[2]
        expected = jax.nn.relu(activation @ tiny.fc.kernel.get_value()[:, index]) / cells
        np.testing.assert_allclose(maps[last.name][0], expected, rtol=1e-6, atol=1e-7 * float(expected.max()))
        assert expected.max() > 0
        np.testing.assert_array_equal(out, tiny(x))


def test_eqs_1_and_2_in_numpy():
    rng = np.random.default_rng(0)
    a, g = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    alpha = g.sum((1, 2)) / 12
    expected = np.maximum(sum(alpha[:, None, None, k] * a[..., k] for k in range(5)), 0)
    np.testing.assert_allclose(heat(jnp.asarray(a, jnp.float32), jnp.asarray(g, jnp.float32)), expected, atol=1e-6)


def test_a_map_is_scaled_to_its_maximum_and_an_empty_one_stays_empty():
    maps = jnp.stack([jnp.zeros((2, 2)), jnp.array([[0.0, 2.0], [1.0, 4.0]])])
    scaled, peak = relative(maps)
    np.testing.assert_array_equal(scaled, [[[0, 0], [0, 0]], [[0, 0.5], [0.25, 1]]])
    np.testing.assert_array_equal(peak, [0, 4])


def test_the_predicted_class_is_explained_where_none_is_named():
    logits = jnp.array([[1.0, 3.0, 2.0], [5.0, 4.0, 6.0]])
    np.testing.assert_array_equal(class_scores(logits, jnp.array([-1, -1])), [3, 6])
    np.testing.assert_array_equal(class_scores(logits, jnp.array([0, 1])), [1, 4])


def test_each_case_and_each_score_has_its_own_map(tiny):
    x = images(3)
    last = next(item for item in layers(tiny, x) if item.name == "features[2]")
    _, both = grad_cam(tiny, [x], [last], lambda out: out.T)
    assert both[last.name].shape == (2, 3, 4, 4)
    for index in (0, 1):
        _, alone = grad_cam(tiny, [x[1:2]], [last], of_class(index))
        np.testing.assert_allclose(both[last.name][index, 1:2], alone[last.name][0], rtol=1e-5, atol=1e-8)


# --- catching


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_catching_and_tapping_leave_the_bits_of_the_outputs(tiny, wrap):
    x = images()
    every = layers(tiny, x)

    def tapped(x):
        with catching(tiny, {layer.name: layer.slot(len(x)) for layer in every}):
            return tiny(x)

    np.testing.assert_array_equal(wrap(tapped)(x), wrap(lambda x: tiny(x))(x))


def test_the_classes_are_as_before_also_after_an_error(tiny):
    before = {name: vars(type(tiny))[name] for name in ("features", "pooled")}
    with pytest.raises(ZeroDivisionError), catching(tiny) as seen:
        tiny(images())
        raise ZeroDivisionError
    assert {name: vars(type(tiny))[name] for name in before} == before and seen
    number = len(seen)
    tiny(images())
    assert len(seen) == number


@pytest.mark.parametrize("name", ["first", "second", "shared", "shared#2"])
def test_maps_inside_a_rematerialised_part_under_jit_are_those_of_the_plain_network(name):
    x, results = images(size=16), []
    for remat in (False, True):
        model = Rematerialised(remat)
        layer = next(item for item in layers(model, x) if item.name == name)
        maps = jax.jit(lambda x, model=model, layer=layer: grad_cam(model, [x], [layer], of_class(1))[1])(x)
        results.append(maps[name])
    assert results[0].shape == (1, 2, 16, 16) and results[0].max() > 0
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-7)


# --- which maps


def test_maps_are_listed_in_the_order_of_execution_and_once():
    model = jaxmed.create_model("resnet18", 2, depths=(1, 1, 1, 1))
    found = layers(model, jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32))
    names = [item.name for item in found]
    assert names[:3] == ["conv1", "bn1", "layer1.0.conv1"] and names[-1] == "layer4.0"
    assert len(set(names)) == len(names) and not any("features" in name for name in names)  # features hands the blocks' on
    assert found[0].grid == (32, 32) and found[-1].grid == (2, 2) and found[-1].seen.shape == (2, 2, 2, 512)


DIMS = (8, 16, 32, 64)
LAST = {
    "resnet18": (dict(depths=(1, 1, 1, 1)), "layer4.0"),
    "swin_tiny_patch4_window7_224": (dict(depths=(1, 1, 1, 1), dims=DIMS, num_heads=(1, 2, 4, 8)), "norm"),
    "convnext_tiny": (dict(depths=(1, 1, 1, 1), dims=DIMS), "stages.3.blocks.0"),
    "tf_efficientnet_lite0": (dict(depths=(1,) * 7, dims=(8,) * 9), "_head"),
    "densenet121": (dict(depths=(1, 1, 1, 1), growth=4), "features[3]"),
    "hiera_tiny_224": (dict(depths=(1, 1, 1, 1), dims=DIMS, num_heads=(1, 1, 1, 1), img_size=64), "features[3]"),
}


@pytest.mark.parametrize("name", LAST)
def test_the_last_map_of_an_encoder_is_what_its_classifier_pools(name):
    options, expected = LAST[name]
    model = jaxmed.create_model(name, 2, **options)
    assert looked_at(model, jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)) == {"": [expected]}


def test_every_expert_has_its_own_map():
    model = jaxmed.create_model("csa_moe", 2, encoder="tiny")
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    assert looked_at(model, x, x, x) == {f"encoders.{k}": [f"encoders.{k}.features[3]"] for k in range(3)}
    assert looked_at(model, x, x, x, layer="features[1]") == {f"encoders.{k}": [f"encoders.{k}.features[1]"] for k in range(3)}
    assert looked_at(model, x, x, x, layer="encoders.1.convs.2") == {"encoders.1": ["encoders.1.convs.2"]}


@pytest.mark.parametrize(("sharing", "maps"), [("all", [4]), ("projection", [2, 2])])
def test_views_that_share_a_backbone_have_a_map_each(sharing, maps):
    model = jaxmed.create_model("multiview_resnet18", 2, encoder="tiny", sharing=sharing)
    found = looks(model, layers(model, jax.ShapeDtypeStruct((2, 4, 64, 64, 3), jnp.float32)))
    assert [look.candidates[-1].maps for look in found] == maps
    assert [look.encoder for look in found] == [f"backbones.{k}" for k in range(len(maps))]


def test_hsqformer_has_a_map_per_encoder_and_one_of_its_queries_per_scale():
    model, x = jaxmed.create_model("hsqformer_s", 2, **TINY_HSQFORMER), images(size=64)
    assert list(looked_at(model, x)) == ["swintransformer", "convnext"]
    out = jax.eval_shape(lambda x: model(x, aux=True, attention=True), x)
    (look, _), rngs = looks(model, layers(model, x)), nnx.Rngs(noise=7)  # router_noise="always" needs it, inside the gradient
    noisy = jaxmed.create_model("hsqformer_s", 2, **TINY_HSQFORMER, router_noise="always", remat=True)
    _, shapes = jax.eval_shape(lambda x: grad_cam(noisy, [x], look.candidates, of_class(1), rngs=rngs), x)
    assert [found.shape for found in shapes.values()] == [(1, 2, 2, 2)]
    weights = [jax.random.dirichlet(jax.random.key(k), jnp.ones(a.shape[-1]), a.shape[:2]) for k, a in
               enumerate(out["query_attention"])]  # fmt: skip
    maps = query_maps(weights, (64, 64))
    assert [m.shape for m in maps] == [(2, 16, 16), (2, 8, 8), (2, 4, 4), (2, 2, 2)]
    np.testing.assert_allclose(maps[1][0, 2, 5], weights[1][0, :, 2 * 8 + 5].mean(), rtol=1e-6)
    np.testing.assert_allclose([m.sum((1, 2)) for m in maps], 1.0, rtol=1e-5)


def test_with_a_class_token_the_last_map_that_the_answer_depends_on_comes_before_the_last_attention():
    model = jaxmed.create_model("vit_tiny_patch16_224", 2, dim=16, depth=2, num_heads=2, img_size=32, patch_size=8)
    x = images()
    (look,) = looks(model, layers(model, x))
    _, maps = grad_cam(model, [x], look.candidates, of_class(1))
    reached = [name for name, found in maps.items() if found.any()]
    assert look.candidates[-1].name == "norm" and reached[-1] == "blocks.1.norm1"
    assert maps["blocks.1.norm1"].shape == (1, 2, 4, 4)


def test_an_unknown_layer_is_named_beside_those_that_there_are(tiny):
    with pytest.raises(UserError, match=r"--layer=features\[7\].*features\[3\]"):
        looked_at(tiny, images(), layer="features[7]")


def test_tokens_lie_in_the_proportions_of_the_picture():
    assert token_grid(49, (224, 224)) == (7, 7) and token_grid(50, (224, 224)) is None
    assert token_grid(32, (64, 128)) == (4, 8) and token_grid(0, (64, 64)) is None
