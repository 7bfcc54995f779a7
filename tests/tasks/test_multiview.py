import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxmed.errors import UserError
from jaxmed.models import multiview as network
from jaxmed.tasks import breast_task
from jaxmed.tasks.breast_rows import monitor
from jaxmed.tasks.breast_task import BreastTask
from jaxmed.tasks.multiview import MultiView, class_weights

LABEL = BreastTask("label", ("benign", "malignant"), (0.6, 3.0))
BIRADS = BreastTask("birads", ("1", "3", "5"), (0.5, 2.0, 1.5))
BOTH = MultiView((LABEL, BIRADS))
SIZES = {"label": 2, "birads": 3}


def outputs(b=6, seed=0):
    rng = np.random.default_rng(seed)
    out = {f"{side}_{task}": rng.standard_normal((b, k)) for task, k in SIZES.items() for side in ("left", "right")}
    return out | {"gate": rng.dirichlet(np.ones(4), b), "features": rng.standard_normal((b, 8))}


def batch(**changes):
    known = {
        "left_label": [0, 1, -1, 0, 1, 1], "right_label": [-1, 0, 1, 0, -1, 0],
        "left_birads": [0, 2, -1, 1, 2, 2], "right_birads": [-1, 0, 2, -1, -1, 0], "weight": [1.0, 1, 1, 1, 1, 0],
    }  # fmt: skip
    return {k: jnp.asarray(v) for k, v in (known | changes).items()}


def f32(out):
    return {k: jnp.asarray(v, jnp.float32) for k, v in out.items()}


def oracle_side(logits, target, class_weight, weight):
    """torch's weighted cross-entropy with an ignored label, in float64."""
    total = norm = 0.0
    for row, y, case in zip(logits, np.asarray(target), np.asarray(weight), strict=True):
        if y >= 0 and case > 0:
            total -= class_weight[y] * (row[y] - np.log(np.exp(row).sum()))
            norm += class_weight[y]
    return total / norm if norm else 0.0


def oracle(out, batch, task):
    sides = [oracle_side(out[f"{s}_{task.name}"], batch[f"{s}_{task.name}"], task.class_weights, batch["weight"])
             for s in ("left", "right")]  # fmt: skip
    return 0.5 * (sides[0] + sides[1])


def test_the_loss_is_equations_11_to_13():
    out, data = outputs(), batch()
    loss, sums = BOTH.loss(f32(out), data)
    label, birads = oracle(out, data, LABEL), oracle(out, data, BIRADS)
    np.testing.assert_allclose(loss, 0.5 * label + 0.5 * birads, rtol=1e-6)
    assert float(sums["count"]) == 5
    np.testing.assert_allclose([sums["label_loss"] / 5, sums["birads_loss"] / 5], [label, birads], rtol=1e-6)


def test_a_task_alone_counts_fully():
    out, data = outputs(), batch()
    np.testing.assert_allclose(MultiView((BIRADS,)).loss(f32(out), data)[0], oracle(out, data, BIRADS), rtol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_side_that_nobody_has_touches_neither_loss_nor_gradient(side):
    out, none = f32(outputs()), jnp.full(6, -1)
    data = batch() | {f"{side}_label": none, f"{side}_birads": none}
    loss, grads = jax.value_and_grad(lambda out: BOTH.loss(out, data)[0])(out)
    assert np.isfinite(loss) and loss > 0
    for name, grad in grads.items():
        assert np.any(grad) == (name.split("_")[0] not in (side, "gate", "features")), name


def test_gradients_of_unknown_breasts_and_of_padding_are_exactly_zero():
    data = batch()
    grads = jax.grad(lambda out: BOTH.loss(out, data)[0])(f32(outputs()))
    for name in ("left_label", "right_label", "left_birads", "right_birads"):
        silent = (np.asarray(data[name]) < 0) | (np.asarray(data["weight"]) == 0)
        assert not np.any(np.asarray(grads[name])[silent]) and np.all(np.any(np.asarray(grads[name])[~silent], -1))


def test_a_batch_without_any_known_breast_has_loss_zero_and_counts_nobody():
    none = jnp.full(6, -1)
    data = batch(left_label=none, right_label=none, left_birads=none, right_birads=none)
    (loss, sums), grads = jax.value_and_grad(lambda out: BOTH.loss(out, data), has_aux=True)(f32(outputs()))
    assert float(loss) == 0 and all(float(value) == 0 for value in sums.values())
    assert not any(np.any(grad) for grad in grads.values())


def test_what_unknown_breasts_are_predicted_changes_no_meter():
    out, data = outputs(), batch()
    other = {k: np.array(v) for k, v in out.items()}
    other["left_label"][2], other["right_birads"][[0, 3, 4]] = [9, -9], [5, -5, 0]
    a, b = (BOTH.loss(f32(o), data)[1] for o in (out, other))
    assert a.keys() == b.keys() == set(BOTH.meters)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-6)


def test_per_case_arrays_are_probabilities_gates_and_the_studys_own_loss():
    out, data = outputs(), batch()
    case = BOTH.per_case(f32(out), data)
    np.testing.assert_allclose(case["left_birads_1"] + case["left_birads_3"] + case["left_birads_5"], 1.0, rtol=1e-6)
    odds = np.exp(out["right_label"][:, 1] - out["right_label"][:, 0])
    np.testing.assert_allclose(case["right_label_malignant"], odds / (1 + odds), rtol=1e-5)
    np.testing.assert_allclose(case["gate_R_CC"], out["gate"][:, 2], rtol=1e-6)
    for i in range(5):
        one = {k: v[i : i + 1] for k, v in out.items()}
        alone = {k: v[i : i + 1] for k, v in data.items()}
        np.testing.assert_allclose(case["loss"][i], BOTH.loss(f32(one), alone)[0], rtol=1e-5)
    assert case["features"].shape == (6, 8) and not set(BOTH.per_case(f32(out), data)) & {"logits"}


def test_correct_is_the_part_of_the_known_answers_that_is_right():
    out = {k: np.zeros_like(v) for k, v in outputs().items()}  # ties: class 0 everywhere
    case = BOTH.per_case(f32(out), batch())
    np.testing.assert_allclose(case["correct"], [1.0, 0.5, 0.0, 2 / 3, 0.0, 0.5], rtol=1e-6)


def test_class_weights_are_inverse_frequencies_of_valid_breasts():
    labels = np.array([[0, 0], [0, -1], [1, 0], [-1, 2]])  # 4, 1, 1 of 6
    assert class_weights(labels, 3) == pytest.approx((6 / 12, 6 / 3, 6 / 3))
    weights = np.array(class_weights(labels, 3))[labels[labels >= 0]]
    assert weights.mean() == pytest.approx(1.0)


def test_a_class_without_training_breasts_and_a_label_that_is_no_class_are_refused():
    with pytest.raises(UserError, match="no training breast has class 1, 3 of 4"):
        class_weights(np.array([0, 2, -1]), 4)
    with pytest.raises(UserError, match="a label is 4, but there are 3 classes"):
        class_weights(np.array([0, 1, 4]), 3)
    with pytest.raises(UserError, match="2 classes .* 3 class weights"):
        BreastTask("label", ("benign", "malignant"), (1.0, 1.0, 1.0))


def rows_and_targets(n=40, seed=3):
    rng, rows, targets = np.random.default_rng(seed), {}, {}
    for task in (LABEL, BIRADS):
        for side in ("left", "right"):
            probs = rng.dirichlet(np.ones(len(task.classes)), n)
            rows |= {f"{side}_{task.name}_{k}": probs[:, i] for i, k in enumerate(task.classes)}
            targets[f"{side}_{task.name}"] = rng.integers(-1, len(task.classes), n)
    return rows, targets


def test_the_monitor_is_the_mean_of_both_tasks_auc_over_pooled_breasts():
    rows, targets = rows_and_targets()
    y = np.concatenate([targets["left_label"], targets["right_label"]])
    p = np.concatenate([rows["left_label_malignant"], rows["right_label_malignant"]])
    label = roc_auc_score(y[y >= 0], p[y >= 0])
    y = np.concatenate([targets["left_birads"], targets["right_birads"]])
    p = np.stack([np.concatenate([rows[f"left_birads_{k}"], rows[f"right_birads_{k}"]]) for k in "135"], 1)
    birads = roc_auc_score(y[y >= 0], p[y >= 0], multi_class="ovr", average="macro")
    got = monitor(rows, targets, (LABEL, BIRADS))
    assert got == pytest.approx({"label_auc": label, "birads_auc": birads, "auc": (label + birads) / 2})
    assert monitor(rows, targets, (BIRADS,))["auc"] == pytest.approx(birads)


def test_classes_that_are_not_there_leave_the_monitor_defined():
    rows, targets = rows_and_targets()
    for side in ("left", "right"):
        targets[f"{side}_birads"] = np.where(targets[f"{side}_birads"] == 1, -1, targets[f"{side}_birads"])
        targets[f"{side}_label"] = np.zeros(40, int)
    got = monitor(rows, targets, (LABEL, BIRADS))
    assert np.isnan(got["label_auc"]) and got["auc"] == got["birads_auc"] and 0 < got["auc"] < 1


def test_task_and_network_name_views_and_sides_alike():
    assert (breast_task.VIEWS, breast_task.SIDES) == (network.VIEWS, network.SIDES)
