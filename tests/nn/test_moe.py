import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf, softmax

from jaxmed.errors import UserError
from jaxmed.nn import moe_dispatch
from jaxmed.nn.moe import DropoutMlp, MoE, mixture, router_statistics
from jaxmed.nn.moe_dispatch import batched_matmul, block_size, grouped_matmul, make_plan, sorted_experts

DIM = 8


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape), jnp.float32)


def mixed(num_experts=4, top_k=1, **options):
    """A mixture whose routers have opinions (the initial weights are all close to 0)."""
    moe = MoE(DIM, num_experts, top_k, rngs=nnx.Rngs(0), **options)
    for layer in (moe.topkroute_linear, moe.noise_linear, moe.experts["fc1"], moe.experts["fc2"]):
        for i, leaf in enumerate((layer.kernel, layer.bias)):
            leaf.set_value(normal(*leaf.get_value().shape, seed=i + 1))
    return moe


def run(moe, x, **call):
    """The call, compiled as one program."""
    return jax.jit(lambda x: moe(x, **call))(x)


def expert_of(moe, e, x):
    """MLP_e in float64."""
    layers = (moe.experts["fc1"], moe.experts["fc2"])
    w = [np.asarray(leaf.get_value(), np.float64)[e] for layer in layers for leaf in (layer.kernel, layer.bias)]
    h = x @ w[0] + w[1]
    return h * (1 + erf(h / np.sqrt(2))) / 2 @ w[2] + w[3]


def expected(moe, x):
    """The formula of the module's docstring, token by token, without noise."""
    x = np.asarray(x, np.float64)
    layer = moe.topkroute_linear
    logits = x @ np.asarray(layer.kernel.get_value(), np.float64) + np.asarray(layer.bias.get_value())
    out = np.zeros_like(x)
    for place in np.ndindex(x.shape[:2]):
        best = np.argsort(-logits[place])[: moe.top_k]
        out[place] = sum(g * expert_of(moe, e, x[place]) for g, e in zip(softmax(logits[place][best]), best, strict=True))
    return out


@pytest.mark.parametrize("dispatch", ["dense", "sorted"])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_a_token_is_the_weighed_sum_of_its_k_best_experts(dispatch, top_k):
    moe, x = mixed(top_k=top_k, dispatch=dispatch), normal(2, 37, DIM)
    want = expected(moe, x)
    np.testing.assert_allclose(run(moe, x), want, atol=1e-5 * np.abs(want).max())


def routings():
    chosen = np.random.default_rng(0).permuted(np.tile(np.arange(4), (60, 1)), axis=1)
    return {"top-1": chosen[:, :1], "top-2": chosen[:, :2], "one expert has all": np.full((60, 1), 2), "single": chosen[:1, :1]}


@pytest.mark.parametrize("name", routings())
def test_every_slot_has_one_row_in_a_block_of_its_expert(name):
    chosen = routings()[name]
    size = 8
    plan = make_plan(jnp.asarray(chosen), 4, size)
    place, source = np.asarray(plan.place), np.asarray(plan.source)
    assert len(set(place)) == chosen.size and (source[place] == np.arange(chosen.size)).all()
    assert (np.delete(source, place) == chosen.size).all()
    np.testing.assert_array_equal(np.asarray(plan.owner)[place // size], chosen.reshape(-1))


def test_sorted_experts_compute_little_more_than_their_share():
    for slots, num_experts in ((3136, 4), (200 * 8, 4), (200 * 8 * 2, 4), (400 * 20 * 2, 8)):
        size = block_size(slots, num_experts)
        plan = jax.eval_shape(lambda c, e=num_experts, s=size: make_plan(c, e, s), jax.ShapeDtypeStruct((slots, 1), jnp.int32))
        assert slots <= plan.source.size <= 1.15 * slots


def gradients(moe, x, **call):
    graph, state = nnx.split(moe)

    def loss(state, x):
        return jnp.sum(jnp.sin(nnx.merge(graph, state)(x, **call)))

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(state, x)


@pytest.mark.parametrize("top_k", [1, 2])
def test_dense_and_sorted_are_one_function_gradients_included(top_k):
    x = normal(3, 50, DIM)
    one, other = (gradients(mixed(top_k=top_k, dispatch=way), x) for way in ("dense", "sorted"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(a).max())), one, other)


def test_the_loop_and_the_batched_product_are_one_function(monkeypatch):
    x, w, owner = normal(6, 5, 3), normal(4, 3, 7), jnp.array([0, 0, 1, 3, 3, 3])
    g = normal(6, 5, 7)
    one, pull = jax.vjp(lambda x, w: grouped_matmul(x, w, owner), x, w)
    other, plain = jax.vjp(lambda x, w: batched_matmul(x, w, owner), x, w)
    for a, b in zip((one, *pull(g)), (other, *plain(g)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(moe_dispatch.batched_gradients(x, w, owner, g), plain(g), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert not jnp.any(pull(g)[1][2])  # nobody chose this expert


def test_half_precision_experts_keep_a_float32_router():
    moe = MoE(DIM, 4, 2, dtype="bfloat16", rngs=nnx.Rngs(0))
    y, stats = jax.eval_shape(lambda m: m(jnp.zeros((1, 9, DIM), jnp.bfloat16), aux=True), moe)
    assert y.dtype == jnp.bfloat16 and stats["load"].dtype == jnp.float32
    assert moe.experts["fc1"].kernel.get_value().shape == (4, DIM, 4 * DIM)


def test_top_1_trains_no_router_but_top_2_and_the_balancing_loss_do():
    x = normal(2, 30, DIM)
    for top_k, trained in ((1, False), (2, True)):
        _, (grads, _) = gradients(mixed(top_k=top_k), x)
        assert bool(jnp.any(grads["topkroute_linear"]["kernel"].get_value())) == trained
    graph, state = nnx.split(mixed())
    grads = jax.jit(jax.grad(lambda s: nnx.merge(graph, s)(x, aux=True)[1]["aux_loss"]))(state)
    assert jnp.any(grads["topkroute_linear"]["kernel"].get_value())


@pytest.mark.parametrize(("noise", "noisy"), [("train", (True, False)), ("always", (True, True)), ("off", (False, False))])
def test_noise_comes_when_it_is_asked_for(noise, noisy):
    moe, x = mixed(router_noise=noise), normal(40, DIM)
    for train, expect in zip((True, False), noisy, strict=True):
        logits = [moe.router_logits(x, train, nnx.Rngs(noise=seed)) for seed in (0, 1)]
        assert (not np.array_equal(*logits)) == expect
        if expect:
            with pytest.raises(UserError, match=r"rngs=nnx.Rngs\(noise=seed\)"):
                moe.router_logits(x, train, None)


def test_noise_is_normal_with_the_learned_scale():
    moe, x = mixed(router_noise="always"), jnp.tile(normal(1, DIM), (20000, 1))
    noise = moe.router_logits(x, False, nnx.Rngs(noise=3)) - moe.topkroute_linear(x)
    scale = jax.nn.softplus(moe.noise_linear(x[:1]))[0]
    np.testing.assert_allclose(noise.std(0), scale, rtol=0.03)
    np.testing.assert_allclose(noise.mean(0) / scale, 0, atol=0.03)


def test_noise_falls_back_to_the_dropout_stream():
    moe, x = mixed(router_noise="always"), normal(5, DIM)
    with_dropout = moe.router_logits(x, False, nnx.Rngs(dropout=7))
    assert not np.array_equal(with_dropout, moe.topkroute_linear(x))


def test_batch_level_routing_shares_k_experts_chosen_by_the_mean_token():
    moe, x = mixed(top_k=2, routing="expert"), normal(3, 20, DIM)
    layer = moe.topkroute_linear
    logits = np.asarray(x, np.float64).mean((0, 1)) @ np.asarray(layer.kernel.get_value()) + np.asarray(layer.bias.get_value())
    best = np.argsort(-logits)[:2]
    want = sum(g * expert_of(moe, e, np.asarray(x, np.float64)) for g, e in zip(softmax(logits[best]), best, strict=True))
    y, stats = run(moe, x, aux=True)
    np.testing.assert_allclose(y, want, atol=1e-5 * np.abs(want).max())
    assert set(np.flatnonzero(stats["load"])) == set(best)


def test_dropout_acts_inside_the_experts_and_keeps_the_mean():
    moe, x = mixed(dropout=0.5, router_noise="off"), jnp.tile(normal(1, 1, DIM), (1, 5000, 1))
    y = jax.jit(lambda x: moe(x, True, nnx.Rngs(dropout=0)))(x)
    calm = run(moe, x[:, :1])[0, 0]
    assert abs(float(jnp.mean(y[0] == 0)) - 0.5) < 0.02  # the second dropout of each expert
    np.testing.assert_allclose(y[0].mean(0), calm, atol=0.1 * float(jnp.abs(y).max()))
    with pytest.raises(UserError, match="dropout"):
        moe(x, True)


def test_router_statistics_of_a_known_case():
    p = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    stats = router_statistics(jnp.log(jnp.asarray(p, jnp.float32)), jnp.array([[0], [0]]))
    np.testing.assert_allclose(stats["load"], [1, 0, 0])
    np.testing.assert_allclose(stats["entropy"], -(p * np.log(p)).sum(1).mean(), rtol=1e-5)
    mean = p.mean(0)
    np.testing.assert_allclose(stats["mean_entropy"], -(mean * np.log(mean)).sum(), rtol=1e-5)
    np.testing.assert_allclose(stats["margin"], np.log(0.5 / 0.3), rtol=1e-5)
    np.testing.assert_allclose(stats["aux_loss"], 3 * mean[0], rtol=1e-5)


def test_a_balanced_router_has_aux_loss_1():
    stats = router_statistics(jnp.zeros((4, 4)), jnp.arange(4)[:, None])
    np.testing.assert_allclose([stats["aux_loss"], stats["entropy"] / np.log(4)], 1, rtol=1e-6)


def test_no_experts_is_the_plain_network():
    plain, x = mixture(DIM, 0, 1, dropout=0.0, router_noise="train", rngs=nnx.Rngs(0)), normal(1, 5, DIM)
    y, stats = plain(x, True, aux=True)
    assert isinstance(plain, DropoutMlp) and stats == {}
    np.testing.assert_array_equal(y, plain(x))


BAD = [({"top_k": 5}, "top_k=5"), ({"top_k": 0}, "top_k=0"), ({"router_noise": "eval"}, "'train', 'always', 'off'"),
       ({"routing": "batch"}, "'token', 'expert'"), ({"dispatch": "fast"}, "'auto', 'dense', 'sorted'")]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options_say_what_is_possible(options, message):
    with pytest.raises(UserError, match=message):
        MoE(DIM, **options, rngs=nnx.Rngs(0))


def test_padding_rows_reach_no_token():
    weights = tuple(normal(*shape) for shape in ((3, DIM, 16), (3, 16), (3, 16, DIM), (3, DIM)))
    x, chosen = normal(5, DIM), jnp.array([[0], [2], [2], [2], [0]])
    run = jax.jit(lambda x, chosen: sorted_experts(x, chosen, jnp.ones(chosen.shape), weights, lambda y: y))
    alone = [run(x[i : i + 1], chosen[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(run(x, chosen), jnp.stack(alone), atol=1e-5)
