import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.evaluate.metrics import predicted_class
from jaxmed.models.each_view import joined
from jaxmed.tasks.classification import Classification
from jaxmed.tasks.gmic import Gmic, finding_losses, task_class
from jaxmed.tasks.inputs import standardise

CLASSES = ("benign", "malignant")
TARGET = np.array([[1, 0], [1, 1], [0, 0]], np.float32)
KNOWN = np.array([[1, 1], [0, 1], [1, 0]], np.float32)
BETA = 0.01


def outputs(seed, views=()):
    rng = np.random.default_rng(seed)
    logits = {name: rng.standard_normal((3, *views, 2)).astype(np.float32) for name in ("logits", "local_logits")}
    maps = rng.random((3, *views, 4, 3, 2)).astype(np.float32)
    return logits | {"saliency": maps, "global": maps.mean((-3, -2))}


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def by_hand(out, target, known, beta, fused=True):
    """The formula, in float64: one answer of each kind."""
    probs = [sigmoid(out["local_logits"]), np.float64(out["global"])] + [sigmoid(out["logits"])] * fused
    terms = sum(-np.where(target == 1, np.log(p), np.log(1 - p)) for p in probs)
    return ((terms + beta * np.float64(out["saliency"]).sum((1, 2))) * known).sum(-1)


def view(out, k):
    return {name: value[:, k] for name, value in out.items()}


def test_the_loss_is_the_sum_over_known_findings_of_three_entropies_and_the_sparsity():
    out = outputs(0)
    np.testing.assert_allclose(finding_losses(out, TARGET, KNOWN, BETA), by_hand(out, TARGET, KNOWN, BETA), rtol=1e-5)


def test_streams_of_one_answer_add_up():
    out = outputs(1, (2,)) | {"logits": outputs(2)["logits"]}
    per_view = [view({k: v for k, v in out.items() if k != "logits"}, k) | {"logits": out["logits"]} for k in range(2)]
    expected = by_hand(per_view[0], TARGET, KNOWN, BETA) + by_hand(per_view[1], TARGET, KNOWN, BETA, fused=False)
    np.testing.assert_allclose(finding_losses(out, TARGET, KNOWN, BETA), expected, rtol=1e-5)


def test_views_with_answers_of_their_own_are_averaged():
    each = outputs(3, (2,))
    out = each | {"member_logits": each["logits"], "logits": joined(jnp.asarray(each["logits"]), "sigmoid")}
    expected = (by_hand(view(each, 0), TARGET, KNOWN, BETA) + by_hand(view(each, 1), TARGET, KNOWN, BETA)) / 2
    np.testing.assert_allclose(finding_losses(out, TARGET, KNOWN, BETA), expected, rtol=1e-5)
    mean = sigmoid(each["logits"]).mean(1)
    np.testing.assert_allclose(Gmic(CLASSES).probabilities(out), mean, rtol=1e-5)


def batch(labels, **more):
    labels = np.array(labels, np.int32)
    return {"label": labels, "weight": np.ones(len(labels), np.float32)} | more


def test_a_label_teaches_the_last_finding_alone():
    out, task = {k: jnp.asarray(v) for k, v in outputs(4).items()}, Gmic(CLASSES, beta=BETA)
    expected = by_hand(out, np.array([[0, 1], [0, 0], [0, 0]]), np.array([[0, 1], [0, 1], [0, 0]]), BETA)
    np.testing.assert_allclose(task.losses(out, batch([1, 0, -1])), expected, rtol=1e-5)
    grads = jax.grad(lambda out: task.loss(out | {"features": jnp.zeros((3, 1))}, batch([1, 0, -1]))[0])(out)
    for name, grad in grads.items():
        assert not np.any(grad[..., 0]) and not np.any(grad[2]), name
        assert np.all(np.any(grad[:2, ..., 1].reshape(2, -1), -1)), name


def test_soft_targets_of_mixed_batches_are_met_half_way():
    out, task = outputs(5), Gmic(CLASSES, beta=0.0)
    soft = np.array([[0.25, 0.75], [0.25, 0.75], [0.0, 0.0]], np.float32)
    ends = [task.losses(out, batch([k, k, -1])) for k in (0, 1)]
    np.testing.assert_allclose(
        task.losses(out, batch([1, 1, -1], targets=soft)), 0.25 * ends[0] + 0.75 * ends[1], rtol=1e-5
    )


def test_probabilities_are_sigmoids_and_the_malignant_one_decides():
    logits = np.array([[3.0, 1.0], [-3.0, -1.0], [2.0, 0.5]], np.float32)
    out = outputs(6) | {"logits": logits, "features": np.zeros((3, 1), np.float32)}
    case = Gmic(CLASSES).per_case(out, batch([1, 0, 0]))
    found = np.stack([case["prob_benign"], case["prob_malignant"]], 1)
    np.testing.assert_allclose(found, sigmoid(logits), rtol=1e-6)
    np.testing.assert_array_equal(predicted_class(found), [1, 0, 1])  # the larger one would be benign, malignant, benign
    np.testing.assert_array_equal(case["correct"], [1, 1, 0])


def test_a_saliency_of_one_costs_a_finite_loss():
    out = outputs(7) | {"global": np.ones((3, 2), np.float32)}
    assert np.isfinite(Gmic(CLASSES).losses(out, batch([0, 0, 0]))).all()


def test_the_networks_kind_of_answers_picks_the_task():
    class Finds:
        outputs = "sigmoid"

    assert task_class(Finds()) is Gmic and task_class(object()) is Classification
    with pytest.raises(UserError, match="two classes"):
        Gmic(("normal", "benign", "malignant"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_image_is_normalised_by_its_own_statistics(dtype):
    rng, most = np.random.default_rng(8), np.iinfo(dtype).max
    image = (most * rng.random((2, 96, 64, 1)) ** 3).astype(dtype)
    image[1] = most // 2
    wide = image[:1].astype(np.float64)
    found = standardise(jnp.asarray(image))
    np.testing.assert_allclose(found[:1], (wide - wide.mean()) / wide.std(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[1], np.zeros((96, 64, 1)))
