"""Task interaction: at one decoder level the mask's features inform the class's and the other way round."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn.conv import Conv
from jaxmed.nn.keras_defaults import KERAS_INIT, KERAS_NORM
from jaxmed.nn.linear import Linear
from jaxmed.nn.norm import BatchNorm
from jaxmed.nn.pool import global_avg_pool

STRENGTH = 0.7  # tau of eq. 4: the modulation stays below 1.7
POOLS = ("mean", "attention")


class TaskInteraction(nnx.Module):
    """TIM (decoder interaction paper, section 2.1, eqs. 1 to 5).

    (1) z = BN(relu(W_c pool(relu(conv1x1(D))))), (2) f' = f + sigmoid(W_g z) * z, (3) p = sigmoid(W_p f),
    (4) mu = 1 + tau sigmoid(W_q mean(D)) * p, (5) D' = D * mu.

    pool: "mean" is the released code; "attention" the text's learned attention, here a softmax over the pixels of a 1x1
    convolution to one channel. Raises UserError for another word.
    """

    def __init__(
        self, channels: int, dim: int, *, pool: str = "mean", dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs
    ):
        if pool not in POOLS:
            raise UserError(f"tim_pool={pool!r} is neither 'mean' (the released code) nor 'attention' (the paper's text)")
        shape = dict(**KERAS_INIT, dtype=dtype, rngs=rngs)
        self.s2c_conv = Conv(channels, channels // 2, 1, **shape)
        if pool == "attention":
            self.s2c_attention = Conv(channels // 2, 1, 1, **shape)
        self.s2c_fc = Linear(channels // 2, dim, **shape)
        self.s2c_bn = BatchNorm(dim, **KERAS_NORM)
        self.c2s_fc = Linear(dim, channels, **shape)
        self.seg_gate = Linear(channels, channels, **shape)
        self.clf_gate = Linear(dim, dim, **shape)

    def __call__(
        self, x: Float[Array, "b h w c"], f: Float[Array, "b d"], train: bool = False
    ) -> tuple[Float[Array, "b h w c"], Float[Array, "b d"]]:
        """Decoder map and class feature -> both enhanced."""
        z = self.s2c_bn(jax.nn.relu(self.s2c_fc(self.pool(jax.nn.relu(self.s2c_conv(x))))), train)
        enhanced = f + jax.nn.sigmoid(self.clf_gate(z)) * z
        prior = jax.nn.sigmoid(self.c2s_fc(f))  # of f, not of the enhanced f
        modulation = 1.0 + STRENGTH * jax.nn.sigmoid(self.seg_gate(global_avg_pool(x))) * prior
        return x * modulation.astype(x.dtype)[:, None, None, :], enhanced

    def pool(self, x: Float[Array, "b h w c"]) -> Float[Array, "b c"]:
        """One number per channel, float32."""
        if not hasattr(self, "s2c_attention"):
            return global_avg_pool(x)
        scores = self.s2c_attention(x).astype(jnp.float32).reshape(x.shape[0], -1)
        weights = jax.nn.softmax(scores).reshape(*x.shape[:3])
        return jnp.einsum("bhw,bhwc->bc", weights, x, preferred_element_type=jnp.float32)
