import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.tree import count, flatten, tree_of
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, empty, fill, leaves

DIMS = (8, 16, 32, 64)
TINY = dict(
    swin="swin_tiny_patch4_window7_224", convnext="convnext_tiny", img_size=64, num_queries=5, query_dim=24,
    swin_options=dict(depths=(1, 1, 1, 1), dims=DIMS, num_heads=(1, 2, 4, 8), window_size=4),
    convnext_options=dict(depths=(1, 1, 1, 1), dims=DIMS), projector_num_heads=(1, 2, 4, 8),
)  # fmt: skip
COUNTS = {  # specification, section 6: the official class, B and L with the paper's experts
    "hsqformer_s": 160_904_172, "hsqformer_b": 208_225_324, "hsqformer_l": 648_533_644,
}  # fmt: skip
SPLIT = {  # of S
    "swintransformer": 48_835_722, "convnext": 49_453_152, "sc_att_mlp": 37_679_072, "stage_proj": 554_496,
    "q_cross_stage": 23_660_576, "pos_embedding": 564_480,
}  # fmt: skip


def tiny(**options):
    return jaxmed.create_model("hsqformer_s", 2, **TINY | options)


def image(batch=2):
    return jnp.asarray(np.random.default_rng(0).standard_normal((batch, 64, 64, 3)), jnp.float32)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_exact(name):
    model = empty(name, 2)
    assert count(model) == COUNTS[name]
    if name == "hsqformer_s":
        assert {part: count(getattr(model, part)) for part in SPLIT} == SPLIT


def test_the_released_size_of_l_is_an_override():
    assert count(empty("hsqformer_l", 2, num_experts=4)) == 421_783_084


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def outputs(model):
    """Everything that one evaluation gives, two images."""
    return jax.jit(lambda x: model(x, aux=True, attention=True))(image())


def test_outputs_have_the_promised_names_and_shapes(model, outputs):
    shapes = jax.tree.map(jnp.shape, outputs)
    assert shapes == {
        "logits": (2, 2), "features": (2, 24), "aux_loss": (),
        "router_load": {"projector": (4, 4), "query": (4, 4)}, "router_entropy": {"projector": (4,), "query": (4,)},
        "router_margin": {"projector": (4,), "query": (4,)},
        "query_attention": [(2, 5, 256), (2, 5, 64), (2, 5, 16), (2, 5, 4)],
    }  # fmt: skip
    plain = jax.eval_shape(lambda x: model(x, aux=True), image())
    assert plain.keys() == shapes.keys() - {"query_attention"}
    assert jax.eval_shape(lambda x: model(x), image()).shape == (2, 2)


def test_attention_and_router_loads_are_distributions(outputs):
    for attention in outputs["query_attention"]:
        np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    for load in outputs["router_load"].values():
        np.testing.assert_allclose(load.sum(-1), 1, rtol=1e-5)
    assert outputs["aux_loss"] == 0


def test_logits_are_the_head_on_the_mean_normed_query(model, outputs):
    w, b = (np.asarray(p.get_value()) for p in (model.head.kernel, model.head.bias))
    np.testing.assert_allclose(outputs["logits"], np.asarray(outputs["features"]) @ w + b, rtol=1e-4, atol=1e-6)


def test_a_case_does_not_see_the_other_cases_of_its_batch(model, outputs):
    alone = jax.jit(lambda x: model(x))(image()[1:])
    np.testing.assert_allclose(alone[0], outputs["logits"][1], rtol=1e-4, atol=1e-6)


def training(model, x, seed=0):
    """(loss, gradients) of a training step with a label of 1."""
    graph, state = nnx.split(model)

    def loss(state, key):
        out = nnx.merge(graph, state, copy=True)(x, train=True, aux=True, rngs=nnx.Rngs(dropout=key))
        return -jax.nn.log_softmax(out["logits"])[:, 1].mean() + out["aux_loss"]

    value, grads = jax.jit(jax.value_and_grad(loss))(state, jax.random.key(seed))
    return value, flatten(tree_of(nnx.merge(graph, grads)))


LAST = dict(depths=(0, 0, 0, 1), drop_path=0.0)  # one scale alone compiles fast


@pytest.mark.slow
def test_training_reaches_all_but_the_top_1_routers_and_the_experts_without_tokens():
    model = tiny(**LAST)
    _, grads = training(model, image(2))
    dead = {path for path, g in grads.items() if not np.any(g)}
    routers = {f"{part}.moe.{name}.{leaf}" for part in ("sc_att_mlp.3", "q_cross_stage.3.0")
               for name in ("topkroute_linear", "noise_linear") for leaf in ("kernel", "bias")}  # fmt: skip
    assert dead == routers
    assert all(np.isfinite(g).all() for g in grads.values())


@pytest.mark.slow
def test_the_balancing_loss_trains_routers_and_remat_changes_no_gradient():
    options = dict(dropout=0.0, router_noise="off", balance_weight=0.01)
    stored, again = (training(tiny(**LAST, **options, remat=remat), image(1)) for remat in (False, True))
    np.testing.assert_allclose(again[0], stored[0], rtol=1e-6)
    for path, g in stored[1].items():
        np.testing.assert_allclose(again[1][path], g, rtol=1e-3, atol=1e-5 * np.abs(g).max(), err_msg=path)
    assert np.any(stored[1]["q_cross_stage.3.0.moe.topkroute_linear.kernel"])


def test_training_needs_randomness_and_says_so(model):
    with pytest.raises(UserError, match="rngs=nnx.Rngs"):
        jax.eval_shape(lambda x: model(x, train=True), image())
    with pytest.raises(UserError, match="noise"):
        jax.eval_shape(lambda x: tiny(router_noise="always")(x), image())


def abstract(**options):
    return empty("hsqformer_s", 2, **TINY | options)


def test_every_ablation_of_the_paper_is_an_override():
    last = abstract(depths=(0, 0, 0, 1))  # stage scheme: the last scale alone
    assert list(last.sc_att_mlp) == list(last.q_cross_stage) == ["3"]
    assert [len(blocks) for blocks in abstract(depths=(2, 2, 6, 2)).q_cross_stage.values()] == [2, 2, 6, 2]
    plain = abstract(num_experts=0, projector_num_experts=0)
    assert "q_cross_stage.0.0.moe.fc1.kernel" in flatten(tree_of(plain))
    for options in (
        {"order": "parallel"}, {"order": "invert_serial"}, {"query_order": "parallel"}, {"num_experts": 2, "top_k": 2},
        {"num_experts": 8, "top_k": 1}, {"routing": "expert"}, {"num_queries": 7, "query_dim": 48}, {"depths": (0, 0, 1, 2)},
        {"num_experts": 0, "projector_num_experts": 0}, {"num_classes": None}, {"dtype": "bfloat16"},
    ):  # fmt: skip
        made = empty("hsqformer_s", **{"num_classes": 2} | TINY | options)
        out = jax.eval_shape(lambda m: m(image(), aux=True, attention=True), made)
        features = (2, options.get("query_dim", 24))
        assert out["features"].shape == features and out["features"].dtype == jnp.float32
        assert len(out["query_attention"]) == sum(d > 0 for d in options.get("depths", (1, 1, 1, 1)))


def test_a_network_without_mixtures_has_no_router_statistics():
    out = jax.eval_shape(lambda m: m(image(), aux=True), abstract(num_experts=0, projector_num_experts=0))
    assert out["router_load"] == {} and out["aux_loss"].shape == ()


def official(model):
    """A checkpoint as the release saves it: weights in a container, Swin's tables among them."""
    table = to_state_dict(model, "official")
    extras = {"swintransformer.layers.0.blocks.0.attn.relative_position_index": np.zeros((16, 16), np.int64),
              "swintransformer.layers.0.blocks.1.attn_mask": np.zeros((4, 16, 16), np.float32)}  # fmt: skip
    return {"epoch": 3, "state_dict": table | extras, "optimizer": {"state": {}}, "lr_schedule": {"last_epoch": 3}}, table


def test_released_checkpoints_load_strictly_one_array_per_expert():
    source, target = fill(abstract()), abstract()
    checkpoint, table = official(source)
    assert table["sc_att_mlp.1.moe.experts.3.fc1.weight"].shape == (64, 16)
    assert table["sc_att_mlp.0.sclayer.cross_attention_swin.multihead_attn.in_proj_weight"].shape == (24, 8)
    assert "swintransformer.layers.2.downsample.reduction.weight" in table  # at the end of a stage
    report = jaxmed.load_weights(target, checkpoint, source="official")
    assert_same(leaves(target), leaves(source))
    assert len(report.ignored) == 2 and len(report.mapped) == len(table)


@pytest.mark.parametrize(
    ("expert", "change", "message"),
    [
        (1, None, r"leaves that no key fills \(1\): q_cross_stage.2.0.moe.experts.1.fc2"),
        (1, np.zeros(3), r"is \[3\] where the model needs \[24\]"),
        (1, np.full(24, np.nan), "NaN or infinite.*experts.1.fc2.bias"),
        (4, np.zeros(24), r"keys that nothing uses \(1\)"),
    ],
)  # fmt: skip
def test_an_expert_that_is_missing_wrong_broken_or_too_many_is_named(expert, change, message):
    source, key = fill(abstract()), f"q_cross_stage.2.0.moe.experts.{expert}.fc2.bias"
    _, table = official(source)
    table.pop(key, None)
    table |= {} if change is None else {key: change}
    before = leaves(source)
    with pytest.raises(UserError, match=message):
        jaxmed.load_weights(source, table, source="official")
    assert_same(leaves(source), before)


@pytest.mark.parametrize("classes", [3, None])
def test_published_encoders_fill_their_roles_without_norm_and_head(classes):
    model = fill(abstract())
    for role, name in (("swin", TINY["swin"]), ("convnext", TINY["convnext"])):
        encoder = fill(empty(name, classes, **TINY[f"{role}_options"]), seed=5)
        for source in ("timm", "official"):
            report = jaxmed.load_weights(model, to_state_dict(encoder, source), source=source, into=role)
        assert len(report.ignored) == (4 if classes else 2)  # norm and head
        part = leaves(getattr(model, model.roles[role][0]))
        assert_same(part, {path: leaf for path, leaf in leaves(encoder).items() if path in part})


BAD = [
    ({"depths": (1, 1, 1)}, "one number for each of its 4 scales"), ({"depths": (0, 0, 0, 0)}, "late_fusion_swin_convnext"),
    ({"img_size": 100}, "multiple of 32"), ({"order": "cross"}, "'serial'"), ({"top_k": 5}, "top_k=5"),
    ({"num_heads": (3, 6, 12, 7)}, "7 attention heads do not divide 24"),
    ({"swin": "densenet121", "swin_options": {}}, "same channels"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD)
def test_options_that_do_not_fit_say_what_would(options, message):
    with pytest.raises(UserError, match=message):
        abstract(**options)


def test_images_of_another_size_are_refused(model):
    with pytest.raises(UserError, match="resize them, or build it with img_size"):
        model(jnp.zeros((1, 96, 96, 3)))
