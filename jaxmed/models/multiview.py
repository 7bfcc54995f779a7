"""Four mammography views, one or two encoders, a view gate, one head per breast and task (Hybrid CNN-VSSM paper, section 2)."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxmed.errors import UserError
from jaxmed.nn import Linear
from jaxmed.nn.frozen_norm import freeze_norms
from jaxmed.nn.norm import statistics_of
from jaxmed.nn.view_gate import ViewGate
from jaxmed.registry import create_model, register

VIEWS = ("L_CC", "L_MLO", "R_CC", "R_MLO")
SIDES = ("left", "right")
TASKS = ("label", "birads")
SHARING = {"all": (0, 0, 0, 0), "projection": (0, 1, 0, 1)}  # the backbone of each view
BIRADS = (2, 3, 5)  # BI-RADS {1, 5}, {1, 3, 5}, {1, 2, 3, 4, 5}


class MultiView(nnx.Module):
    """Encoder(s) -> one vector of D numbers per view -> gated attention -> linear heads on 4 D numbers.

    encoder: a registered encoder that pools its last map; `depths`, `dims`, `cut`, `pre_merge`, `d_state` and `drop_path` are
    handed on to it where they are given. sharing: "all" = one backbone for the four views, "projection" = one for CC and one
    for MLO, left and right alike. tasks: ("label", "birads") or one of them; `num_classes` is for label, `num_birads` for
    BI-RADS. `mask_missing_views` and `dropout`: see ViewGate. `missing_views_in_norm=False` keeps the zero images of missing
    views out of the statistics of batch norms (the paper says nothing of it). `freeze_cnn=True` trains no ResNet layer.

    model(views [b, 4, h, w, c], ordered L_CC, L_MLO, R_CC, R_MLO) -> dict of logits left_label, right_label [b, num_classes]
    and left_birads, right_birads [b, num_birads], and gate [b, 4], the view weights; with aux=True also features [b, 4 D], the
    fused feature. A missing view is an image of zeros before normalisation; `present` [b, 4] says which views exist and is
    looked at only under `mask_missing_views` or without `missing_views_in_norm`. Views of a study are folded into the batch, so
    batch norms see all of them.
    Raises UserError for unknown tasks, sharing or number of BI-RADS categories, without heads, and for views of another shape.
    """

    input_names: tuple[str, ...] = ("views",)
    side_inputs: tuple[str, ...] = ("present",)

    def __init__(
        self, num_classes: int | None = 2, *, encoder: str = "resnet18", tasks: Sequence[str] = TASKS, num_birads: int = 5,
        sharing: str = "all", depths: Sequence[int] | None = None, dims: Sequence[int] | None = None, cut: str | None = None,
        pre_merge: bool | None = None, d_state: int | None = None, drop_path: float | None = None,
        mask_missing_views: bool = False, missing_views_in_norm: bool = True, freeze_cnn: bool = False, dropout: float = 0.5,
        in_channels: int = 3, dtype: jnp.dtype | str = jnp.float32, rngs: nnx.Rngs,
    ):
        self.tasks = check_tasks(tasks)
        check_heads(num_classes, num_birads, self.tasks)
        self.num_classes, self.num_birads = num_classes, num_birads
        self.backbone_of = check_sharing(sharing)
        self.missing_views_in_norm = missing_views_in_norm
        given = dict(depths=depths, dims=dims, cut=cut, pre_merge=pre_merge, d_state=d_state, drop_path=drop_path)
        options = {key: value for key, value in given.items() if value is not None}
        shape = dict(dtype=dtype, rngs=rngs)
        self.backbones = nnx.List([
            create_model(encoder, None, in_channels=in_channels, **options, **shape) for _ in set(self.backbone_of)
        ])
        dim = self.backbones[0].tap_channels[-1]
        self.gate = ViewGate(dim, len(VIEWS), dropout=dropout, mask_missing_views=mask_missing_views, **shape)
        self.frozen = check_freezable(encoder, self.roles["encoder"]) if freeze_cnn else ()
        freeze_norms(self, self.frozen)
        sizes = {"label": num_classes, "birads": num_birads}
        self.heads = nnx.Dict({
            f"{side}_{task}": Linear(len(VIEWS) * dim, sizes[task], **shape) for task in self.tasks for side in SIDES
        })

    @property
    def roles(self) -> dict[str, tuple[str, ...]]:
        """Where published encoder weights go: every backbone, or the part of it that has such weights."""
        parts = self.backbones[0].roles.get("encoder", ())
        paths = [f"backbones.{i}" for i in range(len(self.backbones))]
        return {"encoder": tuple(f"{path}.{part}" for path in paths for part in parts) or tuple(paths)}

    def __call__(
        self, views: Float[Array, "b 4 h w c"], train: bool = False, aux: bool = False, rngs: nnx.Rngs | None = None, *,
        present: Bool[Array, "b 4"] | None = None,
    ) -> dict[str, Float[Array, "b _"]]:
        if views.ndim != 5 or views.shape[1] != len(VIEWS):
            raise UserError(f"views are [b, 4, h, w, c] in the order {', '.join(VIEWS)}; got {list(views.shape)}")
        fused, weights = self.gate(self.encode(views, train, rngs, present), present, train, rngs)
        out = {name: head(fused).astype(jnp.float32) for name, head in self.heads.items()} | {"gate": weights}
        return out | {"features": fused} if aux else out

    def encode(
        self, views: Float[Array, "b 4 h w c"], train: bool = False, rngs: nnx.Rngs | None = None,
        present: Bool[Array, "b 4"] | None = None,
    ) -> Float[Array, "b 4 d"]:
        """One vector per view; the views that share a backbone go through it as one batch."""
        if not self.missing_views_in_norm and present is None:
            raise UserError("missing_views_in_norm=False needs to know which views exist: model(views, present=bool [b, 4])")
        features = [None] * len(VIEWS)
        for i, backbone in enumerate(self.backbones):
            mine = [view for view, its in enumerate(self.backbone_of) if its == i]
            batch = jnp.stack([views[:, view] for view in mine], 1)
            seen = None if self.missing_views_in_norm else present[:, jnp.array(mine)].reshape(-1)
            with statistics_of(seen):
                pooled = backbone(batch.reshape(-1, *views.shape[2:]), train, rngs=rngs)
            for place, view in enumerate(mine):
                features[view] = pooled.reshape(len(views), len(mine), -1)[:, place]
        return jnp.stack(features, 1)


def check_tasks(tasks: Sequence[str]) -> tuple[str, ...]:
    """The tasks as a tuple; raises UserError unless they are ("label", "birads") or one of them."""
    tasks = (tasks,) if isinstance(tasks, str) else tuple(tasks)
    if not tasks or tasks != tuple(name for name in TASKS if name in tasks):
        raise UserError(f"tasks={tasks} must be one or both of {TASKS}, in this order")
    return tasks


def check_freezable(encoder: str, cnn: tuple[str, ...]) -> tuple[str, ...]:
    """Paths of the ResNets of the backbones; raises UserError for an encoder that has none."""
    if encoder.startswith("medmamba"):
        raise UserError(f"freeze_cnn=True: the encoder {encoder!r} has no CNN to freeze")
    return cnn


def check_heads(num_classes: int | None, num_birads: int, tasks: tuple[str, ...]) -> None:
    """Raises UserError for heads without outputs, and for a number of BI-RADS categories that the protocols do not have."""
    if "label" in tasks and num_classes is None:
        raise UserError("num_classes=None: this network is its heads on top of encoders; give the number of label classes")
    if "birads" in tasks and num_birads not in BIRADS:
        raise UserError(f"num_birads={num_birads} is none of 2 (BI-RADS 1, 5), 3 (1, 3, 5) and 5 (1 to 5)")


def check_sharing(sharing: str) -> tuple[int, ...]:
    """The number of the backbone that each view goes through; raises UserError for another word."""
    if sharing not in SHARING:
        raise UserError(f"sharing={sharing!r} is neither 'all' (one backbone) nor 'projection' (one for CC, one for MLO)")
    return SHARING[sharing]


register("multiview_resnet18", encoder="resnet18")(MultiView)
register("multiview_resnet50", encoder="resnet50")(MultiView)
# "four successive blocks" (section 4.2): one per stage of MedMamba
register("multiview_vssm", encoder="medmamba_tiny", depths=(1, 1, 1, 1), drop_path=0.1)(MultiView)
register("multiview_hybrid", encoder="cnn_vssm", drop_path=0.1)(MultiView)
