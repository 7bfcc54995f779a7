"""A network of single images on the CC and the MLO view of a breast, each on its own (X-Pruning's SV baselines)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.models.dual_view import check_views
from jaxmed.nn.cross_view import VIEWS

Map = Float[Array, "b h w c"]


class EachView(nnx.Module):
    """`encoder`: a complete classifier of images, which sees both views as images of one batch.

    A breast's probabilities are the means of its two views'; each view learns from the breast's label (`member_logits`).

    model(cc [b, h, w, c], mlo likewise) -> logits [b, classes]: of classes that exclude each other the logarithms of the
    mean probabilities, of an encoder whose `outputs` are "sigmoid" the logits of the means. aux=True gives a dict of logits,
    member_logits [b, 2, classes], features [b, 2 d] and the encoder's further outputs, [b, 2, ...]; `windows` by view.
    Raises UserError for views of different batch or size.
    """

    input_names: tuple[str, ...] = VIEWS

    def __init__(self, encoder: nnx.Module):
        self.encoder, self.num_classes = encoder, encoder.num_classes
        self.outputs = getattr(encoder, "outputs", "softmax")
        self.normalisation = getattr(encoder, "normalisation", "imagenet")
        self.frozen = tuple(f"encoder.{path}" for path in encoder.frozen)

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """The whole encoder, and its own parts."""
        own = {role: tuple(f"encoder.{path}" for path in paths) for role, paths in getattr(self.encoder, "roles", {}).items()}
        return {"encoder": ("encoder",)} | own

    def __call__(
        self, cc: Map, mlo: Map, train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k"] | dict[str, Any]:
        check_views(cc, mlo)
        images = jnp.stack([cc, mlo], 1).reshape(-1, *cc.shape[1:])  # views of a breast side by side: devices keep theirs
        out = self.encoder(images, train, aux=True, rngs=rngs)
        windows = out.pop("windows", None)
        extras = {} if windows is None else {"windows": {view: [m[k::2] for m in windows] for k, view in enumerate(VIEWS)}}
        each = {name: x.reshape(-1, 2, *x.shape[1:]) for name, x in out.items()}
        features = each.pop("features").reshape(len(cc), -1)
        members = each.pop("logits")
        logits = joined(members, self.outputs)
        return each | extras | {"logits": logits, "member_logits": members, "features": features} if aux else logits


def joined(members: Float[Array, "b m k"], outputs: str) -> Float[Array, "b k"]:
    """Logits of the members' mean probabilities, float32."""
    members = members.astype(jnp.float32)
    if outputs == "sigmoid":
        return jax.nn.logsumexp(jax.nn.log_sigmoid(members), 1) - jax.nn.logsumexp(jax.nn.log_sigmoid(-members), 1)
    return jax.nn.logsumexp(jax.nn.log_softmax(members), 1) - jnp.log(float(members.shape[1]))
