import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.tasks.classification import Classification
from jaxmed.tasks.soft_targets import smooth, soft_loss, soft_losses

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.standard_normal((5, 3)), jnp.float32)
TARGETS = jnp.asarray(RNG.dirichlet(np.ones(3), 5), jnp.float32)


def test_smoothing_moves_a_part_of_each_target_to_all_classes():
    np.testing.assert_allclose(smooth(jnp.eye(2), 0.1), [[0.95, 0.05], [0.05, 0.95]], atol=1e-7)
    twice = smooth(smooth(jnp.eye(2), 0.1), 0.1)
    np.testing.assert_allclose(twice, [[0.905, 0.095], [0.095, 0.905]], atol=1e-7)
    np.testing.assert_array_equal(smooth(jnp.zeros((1, 4)), 0.1), np.zeros((1, 4)))  # no label, no target


def test_losses_are_the_cross_entropy_in_float64():
    x = np.asarray(LOGITS, np.float64)
    expected = -(np.asarray(TARGETS) * (x - np.log(np.exp(x).sum(1, keepdims=True)))).sum(1)
    np.testing.assert_allclose(soft_losses({"logits": LOGITS}, TARGETS), expected, rtol=1e-5)


def test_hard_targets_give_the_usual_loss_also_for_ensembles():
    labels = jnp.array([0, 2, 1, 1, 0])
    members = jnp.stack([LOGITS, 2 * LOGITS], 1)
    task = Classification(("a", "b", "c"))
    for out in ({"logits": LOGITS}, {"logits": members.sum(1), "member_logits": members}):
        usual = task.losses(out, {"label": labels})
        np.testing.assert_allclose(soft_losses(out, jnp.eye(3)[labels]), usual, rtol=1e-6)


def test_the_mean_leaves_rows_of_weight_zero_out():
    weight = jnp.array([1.0, 1, 0, 1, 0])
    each = np.asarray(soft_losses({"logits": LOGITS}, TARGETS))
    assert float(soft_loss({"logits": LOGITS}, TARGETS, weight)) == pytest.approx(each[[0, 1, 3]].mean(), rel=1e-6)


@pytest.mark.parity
def test_smoothed_losses_equal_torchs():
    torch = pytest.importorskip("torch")
    logits, targets = torch.from_numpy(np.array(LOGITS)), torch.from_numpy(np.array(TARGETS))
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(logits, targets)
    assert float(soft_loss({"logits": LOGITS}, smooth(TARGETS, 0.1), jnp.ones(5))) == pytest.approx(float(theirs), rel=1e-5)
