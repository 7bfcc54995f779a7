"""Noisy top-k mixture of experts in place of a transformer block's two-layer network (HSQformer, section 3.3)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxmed.errors import UserError
from jaxmed.nn.dropout import dropout
from jaxmed.nn.init import TRANSFORMER_INIT, zeros
from jaxmed.nn.linear import Linear
from jaxmed.nn.mlp import Mlp, gelu
from jaxmed.nn.moe_dispatch import dense_experts, sorted_experts

CHOICES = {
    "router_noise": ("train", "always", "off"), "routing": ("token", "expert"), "dispatch": ("auto", "dense", "sorted")
}  # fmt: skip


class StackedLinear(nnx.Module):
    """One linear layer per expert: kernel [experts, in, out], bias [experts, out]; parameters float32."""

    def __init__(self, num_experts: int, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(TRANSFORMER_INIT["kernel_init"](rngs.params(), (num_experts, in_features, out_features)))
        self.bias = nnx.Param(zeros(None, (num_experts, out_features)))


class MoE(nnx.Module):
    """Tokens [b, t, d] -> the same: y = sum over the k chosen experts of g_e MLP_e(x), MLP_e of d -> 4 d -> d with exact GELU.

    Router: l = W_r x + b_r; l' = l + eps softplus(W_n x + b_n), eps ~ N(0, 1) per token and expert; the k largest l' are kept
    and g is their softmax, so it sums to 1. No token is dropped. The router is float32 whatever `dtype` is.
    With top_k = 1 the gate is exactly 1 and no gradient reaches the router: only `aux_loss` can train it.

    router_noise: "train" adds eps in training only, "always" also in evaluation (the released code), "off" never.
    routing: "token" (each token has its experts) or "expert" (the whole batch shares k experts, chosen by the mean over batch
    and tokens, one eps per expert; an answer then depends on the other cases of its batch). top_k = num_experts is dense.
    dispatch: "dense" computes every expert on every token; "sorted" groups tokens by expert and computes k of E; "auto" is
    sorted unless k = E. The two differ by float32 rounding, and in training draw other dropout masks. dropout: inside each
    expert, after both of its layers.

    Dense against sorted, float32, two CPU cores shared with other work (so compare times within a row): product operations as
    XLA counts them (of the batched form, which computes the same rows), temporary memory, time; forward, and with backward.

    tokens, width, experts, k | dense GFLOP, MB, ms; with backward | sorted GFLOP, MB, ms; with backward
    3136, 96, 4, 1 (projector, scale 1) | 2.17, 58, 92; 5.95, 101, 249 | 0.61, 12, 10; 1.68, 35, 86
    200, 384, 4, 1 (queries of S) | 1.97, 15, 34; 5.77, 26, 131 | 0.63, 6, 7; 1.86, 12, 53
    200, 384, 4, 2 (queries of B) | 1.97, 15, 17; 5.77, 26, 42 | 1.10, 7, 11; 3.26, 20, 39
    400, 768, 8, 2 (queries of L) | 30.9, 118, 466; 91.4, 206, 1551 | 8.79, 27, 117; 26.3, 80, 798
    1600, 384, 4, 1 (queries of S, batch 8) | 15.8, 118, 471; 46.1, 206, 1002 | 4.41, 25, 44; 13.0, 71, 292

    jax.lax.ragged_dot is no help on CPU: it computes all experts (1.96 GFLOP forward in the first row). The batched form, which
    other backends run, has not been timed on a GPU.

    model(x, aux=True) -> (y, statistics), see `router_statistics`. Randomness: `rngs.noise`, or where there is no such stream
    `rngs.dropout`. Raises UserError for unknown options, and where noise or dropout is needed and `rngs` is None.
    """

    def __init__(
        self, dim: int, num_experts: int = 4, top_k: int = 1, *, router_noise: str = "train", routing: str = "token",
        dispatch: str = "auto", dropout: float = 0.0, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        check_options(num_experts, top_k, router_noise=router_noise, routing=routing, dispatch=dispatch)
        self.num_experts, self.top_k, self.rate, self.dtype = num_experts, top_k, dropout, jnp.dtype(dtype)
        self.router_noise, self.routing, self.dispatch = router_noise, routing, dispatch
        self.topkroute_linear = Linear(dim, num_experts, **TRANSFORMER_INIT, rngs=rngs)
        self.noise_linear = Linear(dim, num_experts, **TRANSFORMER_INIT, rngs=rngs)
        sizes = {"fc1": (dim, 4 * dim), "fc2": (4 * dim, dim)}
        self.experts = nnx.Dict({name: StackedLinear(num_experts, *size, rngs=rngs) for name, size in sizes.items()})

    def __call__(
        self, x: Float[Array, "b t d"], train: bool = False, rngs: nnx.Rngs | None = None, aux: bool = False
    ) -> Float[Array, "b t d"] | tuple[Float[Array, "b t d"], dict[str, Array]]:
        tokens = x.reshape(-1, x.shape[-1])
        logits = self.router_logits(tokens, train, rngs)
        best, chosen = jax.lax.top_k(logits, self.top_k)
        y = self._experts(tokens.astype(self.dtype), chosen, jax.nn.softmax(best), train, rngs).reshape(x.shape)
        return (y, router_statistics(logits, chosen)) if aux else y

    def router_logits(self, x: Float[Array, "n d"], train: bool, rngs: nnx.Rngs | None) -> Float[Array, "_n e"]:
        """l', float32, one row per token; with batch-level routing one row in all."""
        x = x.astype(jnp.float32)
        x = jnp.mean(x, 0, keepdims=True) if self.routing == "expert" else x
        logits = self.topkroute_linear(x)
        if self.router_noise == "off" or (self.router_noise == "train" and not train):
            return logits
        return logits + jax.random.normal(noise_key(rngs), logits.shape) * jax.nn.softplus(self.noise_linear(x))

    def _experts(
        self, x: Float[Array, "n d"], chosen: Int[Array, "_n k"], gates: Float[Array, "_n k"], train: bool, rngs
    ) -> Float[Array, "n d"]:
        layers = [self.experts[name] for name in ("fc1", "fc2")]
        weights = tuple(p.get_value().astype(self.dtype) for layer in layers for p in (layer.kernel, layer.bias))

        def drop(y: Array) -> Array:
            return dropout(y, self.rate, train, rngs)

        if self.routing == "expert":
            return dense_experts(x, gates, tuple(w[chosen[0]] for w in weights), drop)
        if self.dispatch == "sorted" or (self.dispatch == "auto" and self.top_k < self.num_experts):
            return sorted_experts(x, chosen, gates, weights, drop)
        whole = jnp.sum(jax.nn.one_hot(chosen, self.num_experts) * gates[..., None], 1)
        return dense_experts(x, whole, weights, drop)


class DropoutMlp(Mlp):
    """The plain two-layer network (no experts), called like a mixture; its statistics are empty."""

    def __init__(self, dim: int, *, dropout: float = 0.0, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs):
        super().__init__(dim, 4 * dim, dtype=dtype, rngs=rngs)
        self.rate = dropout

    def __call__(
        self, x: Float[Array, "b t d"], train: bool = False, rngs: nnx.Rngs | None = None, aux: bool = False
    ) -> Float[Array, "b t d"] | tuple[Float[Array, "b t d"], dict[str, Array]]:
        hidden = dropout(gelu(self.fc1(x)), self.rate, train, rngs)
        y = dropout(self.fc2(hidden), self.rate, train, rngs)
        return (y, {}) if aux else y


def mixture(dim: int, num_experts: int, top_k: int, **options: Any) -> MoE | DropoutMlp:
    """A mixture of experts, or with num_experts = 0 the plain network that the paper compares with (Fig. 8)."""
    if num_experts:
        return MoE(dim, num_experts, top_k, **options)
    return DropoutMlp(dim, **{key: options[key] for key in ("dropout", "dtype", "rngs") if key in options})


def router_statistics(logits: Float[Array, "n e"], chosen: Int[Array, "n k"]) -> dict[str, Array]:
    """How a router spreads its tokens, float32.

    load [e]: fraction of the routed slots that each expert got. entropy: of a token's softmax over all experts, mean over
    tokens (0: the router is sure, log E: it has no opinion). mean_entropy: of the mean softmax (log E: balanced).
    margin: the smallest gap of any token between its last kept and its first dropped logit (inf where none is dropped).
    aux_loss: E sum_e load_e P_e, P the mean softmax (Fedus et al. 2022, eq. 4): 1 where balanced, E where one expert has all.
    """
    num_experts, k = logits.shape[-1], chosen.shape[-1]
    log_p = jax.nn.log_softmax(logits)
    mean = jnp.mean(jnp.exp(log_p), 0)
    load = jnp.mean(jax.nn.one_hot(chosen, num_experts), (0, 1))
    ranked = jax.lax.top_k(logits, min(k + 1, num_experts))[0]
    return {
        "load": load,
        "entropy": -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, -1)),
        "mean_entropy": -jnp.sum(mean * jnp.log(jnp.maximum(mean, 1e-30))),
        "margin": jnp.min(ranked[:, k - 1] - ranked[:, k]) if k < num_experts else jnp.float32(jnp.inf),
        "aux_loss": num_experts * jnp.sum(load * mean),
    }


def noise_key(rngs: nnx.Rngs | None) -> Array:
    """A key of the stream "noise", or of "dropout" where there is no other. Raises UserError without `rngs`."""
    if rngs is None:
        raise UserError(
            "this router adds noise: call the model with rngs=nnx.Rngs(noise=seed), or build it with router_noise='off'"
        )
    return rngs.noise() if hasattr(rngs, "noise") else rngs.dropout()


def check_options(num_experts: int, top_k: int, **given: str) -> None:
    """Raises UserError for a word that no option knows and for more experts per token than there are."""
    for name, value in given.items():
        if value not in CHOICES[name]:
            raise UserError(f"{name}={value!r} is none of {', '.join(map(repr, CHOICES[name]))}")
    if not 1 <= top_k <= num_experts:
        raise UserError(f"top_k={top_k} must lie between 1 and num_experts={num_experts} (top_k = num_experts is dense)")
