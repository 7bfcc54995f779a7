"""Cross-entropy weighted by class, and the order of the columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.data.cases import Case, Source
from jaxmed.tasks.classification import Classification

CLASSES, WEIGHTS = ("benign", "malignant"), (0.7, 1.8)


@pytest.mark.parametrize("members", [False, True])
def test_the_weighted_loss_is_torchs_mean_by_class_weight(members):
    rng = np.random.default_rng(0)
    logits, label = rng.standard_normal((5, 2, 2)), np.array([0, 1, 1, -1, 0])
    weight = np.array([1, 1, 1, 1, 0.0])  # the last row is padding
    out = {"logits": jnp.asarray(logits[:, 0], jnp.float32), "features": jnp.zeros((5, 1))}
    out |= {"member_logits": jnp.asarray(logits, jnp.float32)} if members else {}
    batch = {"label": jnp.asarray(label), "weight": jnp.asarray(weight, jnp.float32)}
    task = Classification(CLASSES, class_weights=WEIGHTS)
    loss, sums = task.loss(out, batch)
    each = np.log(np.exp(logits).sum(-1)) - logits[np.arange(5), :, np.maximum(label, 0)]
    each = each.sum(1) if members else each[:, 0]
    scale = np.array(WEIGHTS)[label[:3]]
    assert float(loss) == pytest.approx((scale * each[:3]).sum() / scale.sum(), rel=1e-5)
    assert float(sums["count"]) == 3 and float(sums["loss"]) == pytest.approx(3 * float(loss), rel=1e-6)
    np.testing.assert_allclose(task.weights(batch), [0.7, 1.8, 1.8, 0, 0], rtol=1e-6)


def test_a_batch_without_labels_has_loss_zero():
    out = {"logits": jnp.ones((2, 2)), "features": jnp.zeros((2, 1))}
    loss, _ = Classification(CLASSES, class_weights=WEIGHTS).loss(out, {"label": jnp.array([-1, -1]), "weight": jnp.ones(2)})
    assert float(loss) == 0


def test_rows_name_the_classes_in_their_order_whatever_jit_makes_of_it():
    classes = ("normal", "abnormal")
    source = Source()
    source.classes, source.cases = classes, [Case("a", 1)]
    batch = {"label": jnp.array([1]), "weight": jnp.ones(1)}
    case = jax.jit(Classification(classes).per_case)({"logits": jnp.zeros((1, 2)), "features": jnp.zeros((1, 1))}, batch)
    cases = {key: np.asarray(value) for key, value in case.items()} | {"case_id": np.array([0])}
    (row,) = Classification(classes).rows(cases, source, np.array(["g"]), {"split": "test"})
    assert [key for key in row if key.startswith("prob_")] == ["prob_normal", "prob_abnormal"]
