import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.nn import CrossStageAttention, Gate
from jaxmed.tree import flatten, tree_of

COUNTS = [  # two classes: torchvision's networks, and Table IV of CSA-MoE-Net with head="mlp"
    ("resnet18", {}, 11_177_538),
    ("densenet121", {}, 6_955_906),
    ("vgg16", {}, 134_268_738),
    ("moe_resnet18", {"head": "mlp"}, 33_957_829),
    ("moe_resnet18", {}, 33_629_253),
    ("csa_moe_resnet18", {"head": "mlp"}, 34_820_101),
    ("csa_moe_resnet18", {}, 34_491_525),
]


@pytest.mark.parametrize(("name", "options", "count"), COUNTS)
def test_parameter_counts_are_exact(name, options, count):
    assert jaxmed.count(nnx.eval_shape(lambda: jaxmed.create_model(name, 2, **options))) == count


def test_cross_stage_attention_on_resnet18_has_the_papers_count():
    module = nnx.eval_shape(lambda: CrossStageAttention((64, 128, 256, 512), rngs=nnx.Rngs(0)))
    assert jaxmed.count(module) == 287_424


def numpy_of(module):
    return {k: np.asarray(v, np.float64) for k, v in flatten(tree_of(module)).items()}


def test_cross_stage_attention_is_equations_4_to_9():
    rng, channels = np.random.default_rng(0), (3, 4, 5, 6)
    module = CrossStageAttention(channels, dim=8, hidden=4, rngs=nnx.Rngs(1))
    module.query.set_value(jnp.asarray(rng.standard_normal(8), jnp.float32))
    maps = [rng.standard_normal((2, 8 // 2**k, 8 // 2**k, c)) for k, c in enumerate(channels)]
    w = numpy_of(module)
    z = [m.mean((1, 2)) for m in maps]
    scores = np.stack([z[k] @ w[f"keys.{k}.kernel"] @ w["query"] for k in range(4)], 1) / np.sqrt(8)
    alpha = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    fused = sum(alpha[:, k : k + 1] * (z[k] @ w[f"values.{k}.kernel"]) for k in range(4))
    hidden = np.maximum(fused @ w["down.kernel"] + w["down.bias"], 0)
    channel = 1 / (1 + np.exp(-(hidden @ w["up.kernel"] + w["up.bias"])))
    got, attention = module([jnp.asarray(m, jnp.float32) for m in maps])
    np.testing.assert_allclose(attention, alpha, rtol=1e-5)
    np.testing.assert_allclose(got, maps[-1] * channel[:, None, None, :], rtol=2e-5, atol=1e-6)


def test_the_gate_is_equations_10_and_11():
    rng = np.random.default_rng(0)
    gate = Gate(4, 3, rngs=nnx.Rngs(0))
    features = [rng.standard_normal((5, 4)) for _ in range(3)]
    w = numpy_of(gate)
    x = np.concatenate(features, 1) @ w["fc1.kernel"] + w["fc1.bias"]
    x = (x - w["norm.mean"]) / np.sqrt(w["norm.var"] + 1e-5) * w["norm.scale"] + w["norm.bias"]
    scores = np.maximum(x, 0) @ w["fc2.kernel"] + w["fc2.bias"]
    weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    fused, got = gate([jnp.asarray(f, jnp.float32) for f in features])
    np.testing.assert_allclose(got, weights, rtol=1e-5)
    np.testing.assert_allclose(fused, sum(weights[:, i : i + 1] * features[i] for i in range(3)), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def small():
    return jaxmed.create_model("csa_moe", 2, encoder="resnet18")


def test_aux_outputs_have_the_promised_names_and_shapes(small):
    view = jnp.zeros((2, 32, 32, 3))
    out = jax.eval_shape(lambda m: m(view, view, view, aux=True), small)
    shapes = {key: value.shape for key, value in out.items()}
    assert shapes == {"logits": (2, 2), "gate": (2, 3), "features": (2, 512), "stage_attention": (2, 3, 4)}
    assert jax.eval_shape(lambda m: m(view, view, view), small).shape == (2, 2)


def test_experts_share_no_weights_and_roles_name_each_encoder(small):
    assert small.input_names == ("image", "core", "boundary")
    assert small.roles == {"encoder": ("encoders.0", "encoders.1", "encoders.2")}
    first, second = (flatten(tree_of(small.encoders[i]))["conv1.kernel"] for i in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("experts", [("core", "image"), ("image", "image"), ("edge",), ()])
def test_experts_in_another_order_or_of_another_name_are_refused(experts):
    with pytest.raises(UserError, match="in this order"):
        jaxmed.create_model("csa_moe", 2, encoder="resnet18", experts=experts)


def test_one_expert_needs_no_mask_and_has_no_gate():
    model = nnx.eval_shape(lambda: jaxmed.create_model("moe_resnet18", 2, experts=("image",)))
    assert model.input_names == ("image",) and jaxmed.count(model) == 11_177_538


def test_wrong_number_of_views_unknown_names_and_options_are_named(small):
    with pytest.raises(UserError, match="takes 3 images"):
        small(jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(UserError, match="resnet18"):
        jaxmed.create_model("resnet81")
    with pytest.raises(UserError, match="has no option 'depth'"):
        jaxmed.create_model("resnet18", depth=3)
    with pytest.raises(UserError, match="head='big'"):
        jaxmed.create_model("csa_moe_resnet18", head="big")


def test_list_models_is_sorted_and_filters():
    names = jaxmed.list_models("csa_moe*")
    assert names == sorted(names) and "csa_moe_vgg16" in names and "resnet18" not in names


def test_networks_from_torch_never_use_same_padding():
    root = Path(jaxmed.__file__).parent
    for folder in ("nn", "backbones", "models"):
        for file in (root / folder).glob("*.py"):
            assert not re.search(r"""["']SAME["']""", file.read_text()), file
