import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.errors import UserError
from jaxmed.nn import attend
from jaxmed.nn.csm import CSMProjector, CSMQueryBlock, run_block
from jaxmed.nn.long_attention import attend_in_chunks, attend_long
from jaxmed.nn.multi_head_attention import MultiHeadAttention

MOE = dict(num_experts=4, top_k=2, moe=dict(router_noise="off"))
DIM, HEADS = 12, 3


def normal(*shape):
    return jnp.asarray(np.random.default_rng([*shape]).standard_normal(shape), jnp.float32)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("scores", [1, 2 * 3 * 29 * 20, 10**9])  # 16 queries at a time, about 20, all
def test_attention_in_chunks_is_attention_gradients_included(scores):
    q, k, v, g = normal(2, 37, 3, 4), normal(2, 29, 3, 4), normal(2, 29, 3, 4) + 1, normal(2, 37, 12)
    want, pull = jax.vjp(attend, q, k, v)
    got, ours = jax.vjp(jax.jit(lambda *a: attend_in_chunks(*a, scores).reshape(2, 37, 12)), q, k, v)
    jax.tree.map(close, (got, *ours(g)), (want, *pull(g)))


def test_attention_over_3136_tokens_never_holds_the_matrix():
    tokens = [jax.ShapeDtypeStruct((1, 3136, 3, 32), jnp.float32)] * 3
    compiled = jax.jit(jax.grad(lambda *qkv: attend_long(*qkv).sum(), (0, 1, 2))).lower(*tokens).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * 3136**2 * 4 / 2


def test_attention_on_a_context_is_torchs_arithmetic():
    layer, x, context = MultiHeadAttention(DIM, HEADS, rngs=nnx.Rngs(0)), normal(2, 5, DIM), normal(2, 7, DIM)
    layer.in_proj.bias.set_value(normal(3 * DIM))
    layer.out_proj.bias.set_value(normal(DIM))
    w, b = (np.asarray(p.get_value()) for p in (layer.in_proj.kernel, layer.in_proj.bias))
    sources = (np.asarray(s) for s in (x, context, context))
    q, k, v = (s @ w[:, i * DIM : (i + 1) * DIM] + b[i * DIM : (i + 1) * DIM] for i, s in enumerate(sources))
    cut = [np.stack(np.split(t, HEADS, -1), 1) for t in (q, k, v)]
    scores = jax.nn.softmax(cut[0] @ cut[1].swapaxes(-1, -2) / 2.0, -1)
    out = np.concatenate(list(np.moveaxis(np.asarray(scores) @ cut[2], 1, 0)), -1)
    close(layer(x, context), out @ np.asarray(layer.out_proj.kernel.get_value()) + np.asarray(layer.out_proj.bias.get_value()))
    close(layer.weights(x, context), np.asarray(scores).mean(1))
    with pytest.raises(UserError, match="5 attention heads do not divide 12"):
        MultiHeadAttention(DIM, 5, rngs=nnx.Rngs(0))


def projector(order):
    return CSMProjector(DIM, HEADS, order=order, dropout=0.0, **MOE, dtype=jnp.float32, rngs=nnx.Rngs(0))


def layers(block):
    return {name: getattr(block.sclayer, name) for name in (
        "swin_pre_norm", "conv_pre_norm", "swin_self_norm", "conv_self_norm", "cross_attention_swin", "cross_attention_conv",
        "self_attention_swin", "self_attention_conv")}.values()  # fmt: skip


def two_streams(block, order, s, c):
    """The formulas of the released ablations, written out."""
    s_pre, c_pre, s_own, c_own, s_cross, c_cross, s_self, c_self = layers(block)
    if order == "serial":
        s1, c1 = s + s_cross(s_pre(s), c_pre(c)), c + c_cross(c_pre(c), s_pre(s))
        return s1 + s_self(s_own(s1)) + c1 + c_self(c_own(c1))
    if order == "invert_serial":
        s1, c1 = s + s_self(s_own(s)), c + c_self(c_own(c))
        return s1 + s_cross(s_pre(s1), c_pre(c1)) + c1 + c_cross(c_pre(c1), s_pre(s1))
    cross = s_cross(s_pre(s), c_pre(c)) + c_cross(c_pre(c), s_pre(s))
    return s + c + s_self(s_own(s)) + c_self(c_own(c)) + cross


@pytest.mark.parametrize("order", ["serial", "parallel", "invert_serial"])
def test_the_projector_joins_both_streams_in_the_order_asked_for(order):
    block, s, c = projector(order), normal(2, 9, DIM), normal(2, 9, DIM) + 1

    def written_out():
        x = two_streams(block, order, s, c)
        return x + block.moe(block.moe_norm(x))

    y, stats = jax.jit(lambda: block(s, c))()
    close(y, jax.jit(written_out)())
    assert stats["load"].shape == (4,)


@pytest.mark.parametrize("order", ["serial", "parallel", "invert_serial"])
def test_the_queries_attend_in_the_order_asked_for(order):
    block = CSMQueryBlock(DIM, HEADS, order=order, drop_path=0.0, **MOE, dtype=jnp.float32, rngs=nnx.Rngs(0))
    q, z = normal(2, 6, DIM), normal(2, 9, DIM)

    def cross(q):
        return block.cross_att(block.cross_pre_norm_query(q), block.cross_pre_norm_kv(z))

    def own(q):
        return block.self_att(block.self_pre_norm(q))

    def written_out():
        x = {"serial": lambda: q + cross(q) + own(q + cross(q)), "parallel": lambda: q + cross(q) + own(q),
             "invert_serial": lambda: q + own(q) + cross(q + own(q))}[order]()  # fmt: skip
        return x + block.moe(block.moe_norm(x))

    close(jax.jit(lambda: block(q, z)[0])(), jax.jit(written_out)())


def test_an_unknown_order_is_refused():
    with pytest.raises(UserError, match="'serial', 'parallel', 'invert_serial'"):
        projector("mixed")


def test_recomputing_a_block_changes_neither_its_value_nor_its_gradient():
    graph, state = nnx.split(projector("serial"))
    s, c = normal(2, 9, DIM), normal(2, 9, DIM) + 1

    def loss(state, remat):
        y, stats = run_block(nnx.merge(graph, state), s, c, train=True, rngs=None, remat=remat)
        return jnp.sum(jnp.sin(y)) + stats["aux_loss"]

    stored, again = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(state, remat) for remat in (False, True))
    jax.tree.map(close, again, stored)


def test_a_recomputed_block_draws_its_dropout_and_noise_from_the_call():
    moe = dict(num_experts=4, top_k=2, moe=dict(router_noise="train"))
    block = CSMQueryBlock(DIM, HEADS, order="serial", drop_path=0.5, **moe, dtype=jnp.float32, rngs=nnx.Rngs(0))
    q, z = normal(8, 6, DIM), normal(8, 9, DIM)
    run = jax.jit(lambda seed: run_block(block, q, z, train=True, rngs=nnx.Rngs(dropout=seed), remat=True)[0])
    outs = [run(jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(outs[0], outs[1])
    assert not np.allclose(outs[0], outs[2])
