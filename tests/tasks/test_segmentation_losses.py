"""The losses of the decoder interaction paper against the released code's values and formulas in float64."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d

from jaxmed.errors import UserError
from jaxmed.tasks import segmentation_losses as losses
from jaxmed.tasks.segmentation_losses import OFFICIAL, SegmentationLoss

GOLDEN = Path(__file__).parents[1] / "golden"
ATOL = 1e-5  # the fixture's: float32 sums over an image
CONSTANTS = {"official": (0.5, 0.5), "paper": (0.3, 0.7)}


@pytest.fixture(scope="module")
def golden():
    """Stored values, predictions, {mask name: masks}, class logits, labels."""
    spec = importlib.util.spec_from_file_location("golden_weights", GOLDEN / "weights.py")
    gw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(gw)
    man = json.loads((GOLDEN / "decoder_interaction_losses.json").read_text())
    x = {i["name"]: gw.make_input(i["name"], i["shape"], man["seed"], i["dist"]) for i in man["inputs"]}
    ellipse = np.stack([ellipse_mask(p, 64) for p in x["ellipses"].astype(np.float64)])
    ellipse[-1] = 0.0
    masks = {"ellipse": ellipse.astype(np.float32), "random": x["random_mask"]}
    assert [float(m.sum()) for m in masks.values()] == man["mask_checksum"]
    pred = np.float32(0.5) * x["pred"] + np.float32(0.5) * masks["ellipse"] * x["pred_gain"]
    return np.load(GOLDEN / "decoder_interaction_losses.npz"), pred, masks, x["clf_logits"], np.arange(4) % 3


def ellipse_mask(p, size):
    y, x = np.mgrid[:size, :size] / size
    inside = ((y - 0.3 - 0.4 * p[0]) / (0.05 + 0.25 * p[2])) ** 2 + ((x - 0.3 - 0.4 * p[1]) / (0.05 + 0.25 * p[3])) ** 2
    return (inside <= 1)[..., None]


@pytest.mark.parametrize("mask", ["ellipse", "random"])
@pytest.mark.parametrize("constants", CONSTANTS)
def test_region_and_total_are_those_of_the_released_code(golden, mask, constants):
    stored, pred, masks, *_ = golden
    (alpha, beta), masks = CONSTANTS[constants], masks[mask]
    how = SegmentationLoss(alpha=alpha, beta=beta, hard_boundary=True)
    index = losses.tversky_index(pred, masks, alpha, beta)
    name = f"out_{mask}_{constants}"
    np.testing.assert_allclose(index, stored[f"{name}_tversky_index"], rtol=0, atol=ATOL)
    region = losses.region_loss(pred, masks, how).mean()
    np.testing.assert_allclose(region, stored[f"{name}_focal_tversky"], rtol=0, atol=ATOL)
    total = losses.segmentation_loss(pred, masks, how)
    np.testing.assert_allclose(total, stored[f"{name}_seg_loss"], rtol=0, atol=ATOL)


@pytest.mark.parametrize("mask", ["ellipse", "random"])
def test_boundary_and_texture_are_those_of_the_released_code(golden, mask):
    stored, pred, masks, *_ = golden
    edges = losses.boundary_loss(pred, masks[mask], hard=True).mean()
    np.testing.assert_allclose(edges, stored[f"out_{mask}_boundary_hard"], rtol=0, atol=ATOL)
    texture = losses.texture_loss(pred, masks[mask]).mean()
    np.testing.assert_allclose(texture, stored[f"out_{mask}_texture"], rtol=0, atol=ATOL)


def test_kernel_and_class_loss_are_those_of_the_released_code(golden):
    stored, _, _, logits, labels = golden
    np.testing.assert_allclose(losses.curvature_kernel(), stored["out_curvature_kernel"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(losses.classification_loss(logits, labels), stored["out_clf_focal"], rtol=0, atol=ATOL)


def test_the_official_constants_are_those_of_the_first_fixture():
    assert (OFFICIAL.alpha, OFFICIAL.beta, OFFICIAL.hard_boundary, OFFICIAL.size_boost) == (0.5, 0.5, True, True)
    assert losses.OFFICIAL_SHARES == (0.82, 0.18)


def case(shape=(3, 9, 8, 1), seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.05, 0.95, shape), (rng.uniform(size=shape) > 0.6).astype(np.float64)


def by_formula(pred, mask):
    """The default loss in float64."""
    each = dict(axis=(1, 2, 3))
    tp, fp, fn = (mask * pred).sum(**each), ((1 - mask) * pred).sum(**each), (mask * (1 - pred)).sum(**each)
    region = (1 - (tp + 1e-7) / (tp + 0.3 * fp + 0.7 * fn + 1e-7)) ** 0.75 * (1 + np.exp(-10 * mask.mean((1, 2, 3))))
    boundary = np.mean([np.abs(convolve(m, K) - convolve(p, K)).mean() for m, p in zip(mask, pred, strict=True)])
    texture = np.mean([abs(spread(m) - spread(p)) for m, p in zip(mask, pred, strict=True)])
    return np.clip(region + 0.25 * boundary + 0.15 * texture, 0, 10).mean()


K = np.array([  # spec, section 4, row by row
    [0, -0.049652, -0.091169, -0.049652, 0], [0.049652, 0, -0.059527, 0, 0.049652],
    [0.091169, 0.059527, 0, 0.059527, 0.091169], [0.049652, 0, -0.059527, 0, 0.049652],
    [0, -0.049652, -0.091169, -0.049652, 0],
])  # fmt: skip


def convolve(x, kernel):
    return correlate2d(x[..., 0], kernel, mode="same")


def spread(x):
    return np.sqrt(convolve(x, np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1.0]])).var() + 1e-8)


def test_the_default_loss_is_the_formula_with_a_soft_boundary():
    pred, mask = case()
    got = losses.segmentation_loss(jnp.asarray(pred), jnp.asarray(mask))
    np.testing.assert_allclose(got, by_formula(pred, mask), rtol=1e-5)


def test_only_the_soft_boundary_has_a_gradient():
    pred, mask = map(jnp.float32, case())
    soft, hard = (jax.grad(lambda p, h=hard: losses.boundary_loss(p, mask, h).sum())(pred) for hard in (False, True))
    assert np.any(soft) and not np.any(hard)


def test_small_lesions_count_more():
    mask = jnp.zeros((3, 10, 10, 1)).at[1, :1].set(1.0).at[2].set(1.0)
    np.testing.assert_allclose(losses.size_boost(mask), 1 + np.exp([0.0, -1.0, -10.0]), rtol=1e-6)
    pred, off = jnp.full(mask.shape, 0.3), SegmentationLoss(size_boost=False, boundary=0.0, texture=0.0)
    np.testing.assert_allclose(losses.segmentation_loss(pred, mask, off), losses.region_loss(pred, mask).mean(), rtol=1e-6)


def test_images_without_lesion_learn_from_the_region_only_where_asked():
    pred, mask = jnp.full((2, 8, 8, 1), 0.4), jnp.zeros((2, 8, 8, 1)).at[1, 2:5, 2:5].set(1.0)

    def slopes(null_masks):
        how = SegmentationLoss(null_masks=null_masks)
        slope = jax.grad(lambda p: losses.region_loss(p, mask, how).sum())(pred)
        return np.abs(slope).max((1, 2, 3))

    tversky, smooth, bce = slopes("tversky"), slopes("smooth"), slopes("bce")
    assert tversky[0] < 1e-6 < 1e-3 < min(smooth[0], bce[0])
    assert tversky[1] == smooth[1] == bce[1] > 1e-3  # lesions are not concerned
    values = {how: losses.region_loss(pred, mask, SegmentationLoss(null_masks=how))[0] for how in ("smooth", "bce")}
    np.testing.assert_allclose(values["smooth"], (1 - 1 / (1 + 0.3 * 0.4 * 64)) ** 0.75, rtol=1e-5)
    np.testing.assert_allclose(values["bce"], -np.log(0.6), rtol=1e-5)


@pytest.mark.parametrize("null_masks", losses.NULL_MASKS)
def test_gradients_are_finite_where_predictions_are_certain(null_masks):
    mask = jnp.zeros((2, 8, 8, 1)).at[1, 2:5, 2:5].set(1.0)
    how = SegmentationLoss(null_masks=null_masks)
    for pred in (mask, 1.0 - mask):
        loss, slope = jax.value_and_grad(lambda p: losses.segmentation_loss(p, mask, how))(pred)
        assert np.isfinite(loss) and np.isfinite(slope).all() and 0 <= loss <= losses.MOST


def test_padding_does_not_count():
    pred, mask = map(jnp.float32, case())
    alone = losses.segmentation_loss(pred[:2], mask[:2])
    padded = losses.segmentation_loss(pred, mask, weight=jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(padded, alone, rtol=1e-6)
    logits = jnp.float32([[1, -1], [2, 3], [0, 5]])
    known = losses.classification_loss(logits[:1], jnp.array([1]))
    mixed = losses.classification_loss(logits, jnp.array([1, -1, 0]), jnp.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(mixed, known, rtol=1e-6)
    assert losses.classification_loss(logits, jnp.full(3, -1)) == 0


def test_focal_cross_entropy_is_the_formula_and_no_case_counts_more_than_ten():
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0], [60.0, 0.0, 0.0], [60.0, 0.0, 0.0]])
    p = np.exp(logits)[np.arange(4), [0, 1, 0, 1]] / np.exp(logits).sum(1)
    expected = np.minimum((1 - p) ** 2 * -np.log(p), 10)
    got = losses.focal_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.array([0, 1, 0, 1]))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    assert got[3] == 10
    slope = jax.grad(lambda x: losses.focal_cross_entropy(x, jnp.array([0, 1, 0, 1])).sum())(jnp.asarray(logits, jnp.float32))
    assert np.isfinite(slope).all()


def test_shares_are_constant_or_follow_the_epoch():
    np.testing.assert_allclose(losses.total_loss(jnp.float32(2.0), jnp.float32(3.0)), 0.8 * 2 + 0.2 * 3, rtol=1e-6)
    shares = np.array([losses.scheduled_shares(epoch) for epoch in (0, 1, 13, 14, 15, 99)])
    expected = [[0.827, 0.173], [0.834, 0.166], [0.918, 0.082], [0.92, 0.08], [0.8, 0.2], [0.8, 0.2]]
    np.testing.assert_allclose(shares, expected, rtol=1e-5)
    traced = jax.jit(lambda e: losses.total_loss(jnp.float32(1), jnp.float32(0), losses.scheduled_shares(e)))(1)
    np.testing.assert_allclose(traced, 0.834, rtol=1e-5)


def test_an_unknown_word_is_an_error():
    with pytest.raises(UserError, match="null_masks='zero'"):
        SegmentationLoss(null_masks="zero")
