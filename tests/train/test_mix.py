import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.parallel import make_mesh, put_batch
from jaxmed.train.mix import MixOptions, draw, make_draw, mix, mix_options, mix_pixels, mix_targets
from tests.torchvision_cpu import import_torchvision

B, H, W, C = 8, 21, 16, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((B, H, W, C)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 1, 0, 0, 0], np.int32)
MIX = jax.jit(lambda images, labels, key: mix([images], labels, key, 2, MixOptions()))
DRAWS = jax.jit(jax.vmap(draw, (0, None, None)), static_argnums=(1, 2))
# (share, centre): boxes with odd and even sides, inside and across the border, none and all
CUTS = [(0.5, (10, 8)), (0.8, (0, 15)), (0.3, (20, 1)), (1.0, (5, 5)), (0.0, (10, 8)), (0.9, (3, 3))]


def draws(count=4000, size=(H, W), **options):
    return DRAWS(jax.random.split(jax.random.key(1), count), size, MixOptions(**options))


def oracle_cut(images, share, centre):
    """timm 1.0.31's box and corrected share, in numpy."""
    cut_h, cut_w = int(H * np.sqrt(1 - share)), int(W * np.sqrt(1 - share))
    top, bottom = (int(np.clip(centre[0] + end, 0, H)) for end in (-(cut_h // 2), (cut_h + 1) // 2))
    left, right = (int(np.clip(centre[1] + end, 0, W)) for end in (-(cut_w // 2), (cut_w + 1) // 2))
    out = images.copy()
    out[:, top:bottom, left:right] = images[::-1, top:bottom, left:right]
    return out, 1 - (bottom - top) * (right - left) / (H * W)


def one_draw(cutmix, share, centre=(0, 0)):
    return make_draw(jnp.asarray(cutmix), jnp.float32(share), tuple(map(jnp.int32, centre)), (H, W))


@pytest.mark.parametrize(("share", "centre"), CUTS)
def test_cutmix_equals_a_numpy_oracle(share, centre):
    what = one_draw(True, share, centre)
    expected, left_alone = oracle_cut(IMAGES, share, centre)
    np.testing.assert_array_equal(mix_pixels(jnp.asarray(IMAGES), what), expected)
    assert float(what.share) == pytest.approx(left_alone, abs=1e-6)


def test_mixup_blends_with_the_batch_turned_about():
    mixed = mix_pixels(jnp.asarray(IMAGES), one_draw(False, 0.3))
    np.testing.assert_allclose(mixed, 0.3 * IMAGES + 0.7 * IMAGES[::-1], atol=1e-6)


def test_targets_are_smoothed_once_and_mixed_in_the_share_of_the_pixels():
    for seed in range(6):
        key = jax.random.key(seed)
        marked = np.broadcast_to(LABELS.astype(np.float32)[:, None, None, None], (B, H, W, C))
        (pixels,), targets = MIX(marked, LABELS, key)
        share_of_one = np.mean(pixels, axis=(1, 2, 3))  # each picture is filled with its label
        np.testing.assert_allclose(targets[:, 1], 0.9 * share_of_one + 0.05, atol=1e-5)
        np.testing.assert_allclose(np.sum(targets, 1), 1.0, atol=1e-6)


def test_double_smoothing_is_what_the_released_code_does():
    twice = MixOptions(prob=0, double_smoothing=True)
    _, targets = mix([jnp.asarray(IMAGES)], jnp.asarray(LABELS), jax.random.key(0), 2, twice)
    expected = np.where(np.arange(2) == LABELS[:, None], 0.9 * 0.95 + 0.05, 0.9 * 0.05 + 0.05)
    np.testing.assert_allclose(targets, expected, atol=1e-6)


def test_draws_have_the_stated_distributions():
    taken = jax.tree.map(np.asarray, draws())
    cut, share = taken.cutmix, taken.share
    assert cut.mean() == pytest.approx(0.5, abs=0.03)
    assert share[~cut].mean() == pytest.approx(0.5, abs=0.02)
    assert share[~cut].var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), rel=0.06)  # Beta(0.8, 0.8)
    assert share[cut].mean() > 0.55  # the part of the box that lies outside goes back to the share
    rows = taken.box[cut][:, :2]
    assert rows.min() == 0 and rows.max() == H


def test_prob_is_the_part_of_batches_that_is_mixed_and_an_alpha_of_0_switches_off():
    taken = draws(prob=0.3, mixup=0.0, size=(1000, 1000))
    assert (np.asarray(taken.share) < 1).mean() == pytest.approx(0.3, abs=0.03) and np.asarray(taken.cutmix).all()
    assert not draw(jax.random.key(0), (H, W), MixOptions(cutmix=0)).cutmix
    assert (np.asarray(draws(50, mixup=0.0, cutmix=0.0).share) == 1).all()


def test_inputs_of_a_case_share_the_draw_and_may_hold_views():
    views = jnp.asarray(np.stack([IMAGES, -IMAGES], 1))
    (one, two), _ = mix([jnp.asarray(IMAGES), views], jnp.asarray(LABELS), jax.random.key(3), 2, MixOptions())
    np.testing.assert_array_equal(two[:, 0], one)
    np.testing.assert_array_equal(two[:, 1], -one)
    with pytest.raises(UserError, match="one height and width"):
        mix([one, one[:, :5]], jnp.asarray(LABELS), jax.random.key(3), 2, MixOptions())


def test_a_batch_over_four_devices_is_mixed_like_on_one():
    mesh = make_mesh()
    assert mesh.size == 4
    batch, kinds = {"image": IMAGES, "label": LABELS}, set()
    there = put_batch(batch, mesh)
    for seed in range(4):
        key = jax.random.key(seed)
        kinds.add(bool(draw(key, (H, W), MixOptions()).cutmix))
        (one,), targets_one = MIX(IMAGES, LABELS, key)
        (four,), targets_four = MIX(there["image"], there["label"], key)
        assert len(four.sharding.device_set) == 4
        np.testing.assert_allclose(one, four, atol=1e-6)  # XLA may fuse product and sum in one and not in the other
        np.testing.assert_allclose(targets_one, targets_four, atol=1e-6)
    assert kinds == {True, False}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"alpha": 1}, "mix.alpha is unknown"), ({"prob": 1.5}, "between 0 and 1"), ({"mixup": -1}, "0 or more")],
)
def test_bad_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        mix_options(options)


def test_options_from_a_config():
    assert mix_options({"cutmix": 0.0, "double_smoothing": True}) == MixOptions(cutmix=0.0, double_smoothing=True)


@pytest.mark.parity
@pytest.mark.parametrize("cutmix", [False, True])
def test_batches_equal_timms(cutmix, monkeypatch):
    torch, _ = import_torchvision()  # which timm imports
    mixup = pytest.importorskip("timm.data.mixup")
    # of the cuts those with even sides: releases of timm differ in odd ones
    for share, centre in [(0.61, (10, 8)), (0.85, (0, 15)), (0.2, (20, 1))] if cutmix else [(0.25, (0, 0)), (0.9, (0, 0))]:
        rows = iter(centre)
        monkeypatch.setattr(np.random, "rand", lambda: 0.0 if cutmix else 0.7)
        monkeypatch.setattr(np.random, "beta", lambda a, b, share=share: share)
        monkeypatch.setattr(np.random, "randint", lambda low, high, size=None, rows=rows: next(rows))
        theirs = mixup.Mixup(0.8, 1.0, prob=1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=2)
        images, targets = theirs(torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy()), torch.from_numpy(LABELS).long())
        monkeypatch.undo()
        what = one_draw(cutmix, share, centre)
        ours = mix_pixels(jnp.asarray(IMAGES), what)
        np.testing.assert_allclose(ours, images.numpy().transpose(0, 2, 3, 1), atol=1e-6)
        smooth = 0.9 * np.eye(2, dtype=np.float32)[LABELS] + np.float32(0.05)
        np.testing.assert_allclose(mix_targets(jnp.asarray(smooth), what), targets.numpy(), atol=1e-6)
