"""Losses of the decoder interaction paper (section 2.4): a mask and a class learned together.

Masks and predictions are [b, h, w, 1]: targets in [0, 1], predictions as probabilities unless a name says logits. Every
function on masks gives one number per image, [b]; `segmentation_loss` and `classification_loss` give the batch's.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmed.errors import UserError
from jaxmed.nn.conv import conv2d

EPS = 1e-7
MOST = 10.0  # no image counts more than this
SOBEL_X = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
NULL_MASKS = ("tversky", "smooth", "bce")
Masks = Float[Array, "b h w 1"]


@dataclasses.dataclass(frozen=True)
class SegmentationLoss:
    """Constants of the segmentation loss: the README's, since the paper's numbers are lost.

    alpha and beta weigh false positives and false negatives, gamma is the exponent of 1 - index. hard_boundary thresholds both
    masks first, as the released code does; the term then has no gradient. size_boost (released code only) doubles the weight
    of the smallest lesions. null_masks: what an image without lesion learns from. "tversky": the published index, whose
    gradient vanishes there; "smooth": the same with smoothing 1; "bce": the mean of -log(1 - p) in its place.
    """

    alpha: float = 0.3
    beta: float = 0.7
    gamma: float = 0.75
    boundary: float = 0.25
    texture: float = 0.15
    hard_boundary: bool = False
    size_boost: bool = True
    null_masks: str = "tversky"

    def __post_init__(self):
        if self.null_masks not in NULL_MASKS:
            raise UserError(f"null_masks={self.null_masks!r} is none of {', '.join(map(repr, NULL_MASKS))}")


OFFICIAL = SegmentationLoss(alpha=0.5, beta=0.5, hard_boundary=True)  # what the released code ran


def segmentation_loss(
    pred: Masks, mask: Masks, how: SegmentationLoss = SegmentationLoss(), weight: Float[Array, " b"] | None = None
) -> Float[Array, ""]:
    """Mean over the batch of clip(region * boost + 0.25 boundary + 0.15 texture, 0, 10).

    Boundary and texture are batch means inside the clip. `weight` [b] is 0 for padding; without it all images count.
    """
    region, edges, texture = loss_terms(pred, mask, how)
    added = how.boundary * batch_mean(edges, weight) + how.texture * batch_mean(texture, weight)
    return batch_mean(jnp.clip(region + added, 0.0, MOST), weight)


def image_losses(pred: Masks, mask: Masks, how: SegmentationLoss = SegmentationLoss()) -> Float[Array, " b"]:
    """The same of each image by itself; where nothing is clipped, their mean is `segmentation_loss`."""
    region, edges, texture = loss_terms(pred, mask, how)
    return jnp.clip(region + how.boundary * edges + how.texture * texture, 0.0, MOST)


def loss_terms(pred: Masks, mask: Masks, how: SegmentationLoss) -> tuple[Array, Array, Array]:
    """(region loss, with its boost; boundary loss; texture loss), each [b]."""
    pred = jnp.clip(pred.astype(jnp.float32), EPS, 1.0 - EPS)
    mask = jnp.clip(mask.astype(jnp.float32), 0.0, 1.0)
    region = region_loss(pred, mask, how)
    region = region * size_boost(mask) if how.size_boost else region
    return region, boundary_loss(pred, mask, how.hard_boundary), texture_loss(pred, mask)


def region_loss(pred: Masks, mask: Masks, how: SegmentationLoss = SegmentationLoss()) -> Float[Array, " b"]:
    """Focal Tversky loss, with `how.null_masks` for images whose mask is empty."""
    constants = how.alpha, how.beta
    loss = focal(tversky_index(pred, mask, *constants), how.gamma)
    if how.null_masks == "tversky":
        return loss
    if how.null_masks == "smooth":
        null = focal(tversky_index(pred, mask, *constants, smooth=1.0), how.gamma)
    else:
        null = -jnp.mean(jnp.log1p(-jnp.minimum(pred, 1.0 - EPS)), (1, 2, 3))
    return jnp.where(jnp.sum(mask, (1, 2, 3)) > 0, loss, null)


def tversky_index(pred: Masks, mask: Masks, alpha: float, beta: float, smooth: float = EPS) -> Float[Array, " b"]:
    """(TP + s) / (TP + alpha FP + beta FN + s), sums over the image; alpha = beta = 0.5 is soft Dice."""
    hit, false_positive, false_negative = (
        jnp.sum(product, (1, 2, 3)) for product in (mask * pred, (1.0 - mask) * pred, mask * (1.0 - pred))
    )
    return (hit + smooth) / (hit + alpha * false_positive + beta * false_negative + smooth)


def focal(index: Float[Array, " b"], gamma: float) -> Float[Array, " b"]:
    """(1 - index)^gamma, kept off the infinite slope at 0."""
    return jnp.maximum(1.0 - index, EPS) ** gamma


def size_boost(mask: Masks) -> Float[Array, " b"]:
    """1 + exp(-10 times the lesion's share of the image): 2 for an empty mask, near 1 for a large lesion."""
    return 1.0 + jnp.exp(-10.0 * jnp.mean(mask, (1, 2, 3)))


def boundary_loss(pred: Masks, mask: Masks, hard: bool = False) -> Float[Array, " b"]:
    """Eq. 11: mean |K * M - K * P| with the curvature kernel K, zero padding, clipped to [0, 1]."""
    if hard:
        pred, mask = ((x > 0.5).astype(jnp.float32) for x in (pred, mask))
    edges = filtered(mask - pred, curvature_kernel())  # both filters are linear
    return jnp.clip(jnp.mean(jnp.abs(edges), (1, 2, 3)), 0.0, 1.0)


def texture_loss(pred: Masks, mask: Masks) -> Float[Array, " b"]:
    """Eq. 12 with standard deviations (text and code; the README has variances): |std(S * M) - std(S * P)|, S = Sobel-x."""
    spreads = [jnp.sqrt(jnp.var(filtered(x, SOBEL_X), (1, 2, 3)) + 1e-8) for x in (mask, pred)]
    return jnp.abs(spreads[0] - spreads[1])


def filtered(x: Masks, kernel: Float[np.ndarray, "k k"]) -> Masks:
    """Cross-correlation with an odd kernel, zero padding, same size."""
    return conv2d(x, jnp.asarray(kernel, jnp.float32)[:, :, None, None], padding=len(kernel) // 2)


def curvature_kernel(size: int = 5) -> Float[np.ndarray, "k k"]:
    """(x^2 - y^2) exp(-(x^2 + y^2) / (2 s^2)), s = size / 4, divided by the sum of its absolute values."""
    y, x = np.mgrid[:size, :size] - size // 2
    kernel = (x**2 - y**2) * np.exp(-(x**2 + y**2) / (2 * (size / 4) ** 2))
    return (kernel / np.abs(kernel).sum()).astype(np.float32)


def classification_loss(
    logits: Float[Array, "b k"], label: Int[Array, " b"], weight: Float[Array, " b"] | None = None
) -> Float[Array, ""]:
    """Mean focal cross-entropy of the cases whose label is known (not -1); 0 where there is none."""
    known = (label >= 0).astype(jnp.float32)
    return batch_mean(focal_cross_entropy(logits, label), known if weight is None else known * weight)


def focal_cross_entropy(logits: Float[Array, "b k"], label: Int[Array, " b"], gamma: float = 2.0) -> Float[Array, " b"]:
    """clip((1 - p)^gamma * -log p, 0, 10) of the true class (Lin et al. 2017, no class weights); 0 for label -1."""
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    log_p = jnp.take_along_axis(log_probs, jnp.maximum(label, 0)[:, None], 1)[:, 0]
    log_p = jnp.clip(log_p, np.log(EPS), np.log1p(-EPS))
    losses = jnp.maximum(-jnp.expm1(log_p), EPS) ** gamma * -log_p
    return jnp.where(label >= 0, jnp.clip(losses, 0.0, MOST), 0.0)


def total_loss(
    segmentation: Float[Array, ""], classification: Float[Array, ""], shares: tuple[float | Array, float | Array] = (0.8, 0.2)
) -> Float[Array, ""]:
    """0.80 segmentation + 0.20 classification; OFFICIAL_SHARES or `scheduled_shares(epoch)` in place of the two numbers."""
    return shares[0] * segmentation + shares[1] * classification


OFFICIAL_SHARES = (0.82, 0.18)  # what the released code ran: its schedule sets an attribute that Keras no longer reads


def scheduled_shares(epoch: int | Int[Array, ""]) -> tuple[Array, Array]:
    """The schedule that the released code meant, epochs counted from 0: 0.827 / 0.173, then 0.007 more and less per epoch up
    to 0.92 / 0.08; 0.80 / 0.20 from epoch 15 on."""
    moved = 0.007 * (jnp.asarray(epoch, jnp.float32) + 1.0)
    late = jnp.asarray(epoch) >= 15
    segmentation = jnp.minimum(0.82 + moved, 0.92)
    classification = jnp.maximum(0.18 - moved, 0.08)
    return jnp.where(late, 0.8, segmentation), jnp.where(late, 0.2, classification)


def batch_mean(values: Float[Array, " b"], weight: Float[Array, " b"] | None = None) -> Float[Array, ""]:
    """Mean over the batch, weighted where there are weights; 0 where they are all 0."""
    if weight is None:
        return jnp.mean(values)
    total = jnp.sum(weight)
    return jnp.sum(values * weight) / jnp.where(total > 0, total, 1.0)
