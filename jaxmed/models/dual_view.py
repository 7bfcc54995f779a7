"""The CC and the MLO view of a breast in two unshared encoders, joined at the end (X-Pruning's DV baselines)."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxmed.errors import UserError
from jaxmed.nn import Linear, dropout
from jaxmed.nn.cross_view import VIEWS
from jaxmed.registry import create_model, register

Map = Float[Array, "b h w c"]


class DualView(nnx.Module):
    """One encoder per view, spatial mean, concatenation, a linear head.

    encoder: a registered encoder; `prune_ratio`, `score`, `rescore`, `frozen_stages`, `remat` (see SwinPruned), `depths`,
    `dims`, `num_heads`, `window_size` and `drop_path` are handed on to it where they are given. dropout: before the head.

    model(cc [b, h, w, c], mlo likewise) -> logits [b, num_classes], or the joined feature where `num_classes` is None; aux=True
    gives a dict of logits, features [b, 2 d] and, of encoders that prune, windows: {view: maps of SwinPruned's `windows`}.
    Raises UserError for views of different batch or size.
    """

    input_names: tuple[str, ...] = VIEWS
    roles: dict[str, tuple[str, ...]] = {"encoder": VIEWS}

    def __init__(
        self, num_classes: int | None = 2, *, encoder: str = "swin_pruned_tiny",
        prune_ratio: float | str | Sequence | None = None, score: str | None = None, rescore: str | None = None,
        frozen_stages: int | None = None, remat: bool | None = None, depths: Sequence[int] | None = None,
        dims: Sequence[int] | None = None, num_heads: Sequence[int] | None = None, window_size: int | None = None,
        drop_path: float | None = None, dropout: float = 0.0, in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32,
        rngs: nnx.Rngs,
    ):
        given = dict(
            prune_ratio=prune_ratio, score=score, rescore=rescore, frozen_stages=frozen_stages, remat=remat, depths=depths,
            dims=dims, num_heads=num_heads, window_size=window_size, drop_path=drop_path,
        )
        options = {name: value for name, value in given.items() if value is not None}
        self.num_classes, self.rate = num_classes, dropout
        make_encoders(self, encoder, options | dict(in_channels=in_channels, dtype=dtype, rngs=rngs))
        if num_classes is not None:
            self.head = Linear(2 * self.cc.tap_channels[-1], num_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, cc: Map, mlo: Map, train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None
    ) -> Float[Array, "b k"] | dict[str, Any]:
        check_views(cc, mlo)
        outs = [getattr(self, view)(x, train, aux=True, rngs=rngs) for view, x in zip(VIEWS, (cc, mlo), strict=True)]
        joined = jnp.concatenate([out["features"] for out in outs], -1).astype(jnp.float32)
        windows = {v: out["windows"] for v, out in zip(VIEWS, outs, strict=True) if "windows" in out}
        extras = {"features": joined} | ({"windows": windows} if windows else {})
        if self.num_classes is None:
            return extras if aux else joined
        logits = self.head(dropout(joined, self.rate, train, rngs)).astype(jnp.float32)
        return {"logits": logits, **extras} if aux else logits


def make_encoders(model: nnx.Module, encoder: str, options: dict[str, Any]) -> None:
    """Gives `model` the encoders `cc` and `mlo`, which share nothing, and the frozen paths of both."""
    for view in VIEWS:
        setattr(model, view, create_model(encoder, None, **options))
    model.frozen = tuple(f"{view}.{path}" for view in VIEWS for path in getattr(model, view).frozen)


def check_views(cc: Map, mlo: Map) -> None:
    """Raises UserError unless the two views are batches of images of one size."""
    if cc.ndim != 4 or cc.shape != mlo.shape:
        raise UserError(f"the views are two arrays [b, h, w, c] of one shape; got {list(cc.shape)} and {list(mlo.shape)}")


register("dv_resnet18", encoder="resnet18")(DualView)
register("dv_swin", prune_ratio=0.0)(DualView)  # DV-ViT: stages 1 and 2 frozen, nothing pruned
register("dv_swin_pruned", prune_ratio=0.3)(DualView)  # DV-SparseViT
