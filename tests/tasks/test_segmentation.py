import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.data.cases import Case, Source
from jaxmed.errors import UserError
from jaxmed.evaluate.mask_scores import mask_scores
from jaxmed.tasks.segmentation import HALF, Segmentation
from jaxmed.tasks.segmentation_losses import image_losses, segmentation_loss
from jaxmed.tasks.segmentation_options import MaskAndClassLoss, loss_options

CLASSES = ("normal", "benign", "malignant")
SIZE = 8


def outputs(seed: int = 0, b: int = 4) -> dict:
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    return {"mask_logits": 2 * draw(b, SIZE, SIZE, 1), "logits": draw(b, 3), "features": draw(b, 5), "upa": draw(b, 4, 2)}


def batch(b: int = 4) -> dict:
    mask = np.zeros((b, SIZE, SIZE, 1), np.uint8)
    for k in range(1, b):  # the first has no lesion
        mask[k, : 2 * k, 1:5] = 1
    label = np.minimum(np.arange(b), 2).astype(np.int32)
    numbers = {"label": label, "case_id": np.arange(b, dtype=np.int32), "weight": np.ones(b, np.float32)}
    return {key: jnp.asarray(value) for key, value in ({"mask": mask} | numbers).items()}


class Cases(Source):
    classes = CLASSES

    def __init__(self):
        super().__init__()
        self.cases = [Case(f"case {k}", min(k, 2), f"patient {k}") for k in range(4)]


def test_the_loss_is_the_shares_of_mask_and_class_and_leaves_padding_out():
    task, out, given = Segmentation(CLASSES), outputs(), batch()
    loss, sums = task.loss(out, given)
    probability = jax.nn.sigmoid(out["mask_logits"])
    log_p = np.asarray(jax.nn.log_softmax(out["logits"]))[np.arange(4), given["label"]]
    focal = np.mean((1 - np.exp(log_p)) ** 2 * -log_p)
    assert float(loss) == pytest.approx(0.8 * float(segmentation_loss(probability, given["mask"])) + 0.2 * focal, rel=1e-5)
    assert float(sums["loss"]) == pytest.approx(4 * float(loss), rel=1e-6) and float(sums["count"]) == 4
    padded = {key: jnp.concatenate([value, value[:1]]) for key, value in given.items()}
    padded["weight"] = padded["weight"].at[4].set(0)
    more, _ = task.loss({key: jnp.concatenate([value, value[-1:]]) for key, value in out.items()}, padded)
    assert float(more) == pytest.approx(float(loss), rel=1e-6)


def test_without_a_class_head_the_mask_is_all_there_is():
    task = Segmentation(CLASSES, classifies=False)
    out = {"mask_logits": outputs()["mask_logits"]}
    loss, sums = task.loss(out, batch())
    assert float(loss) == pytest.approx(float(segmentation_loss(jax.nn.sigmoid(out["mask_logits"]), batch()["mask"])), rel=1e-6)
    assert set(sums) == set(task.meters) and not {"accuracy", "classification"} & set(sums)
    case = {key: np.asarray(value) for key, value in task.per_case(out, batch()).items()} | {"case_id": np.arange(4)}
    values = task.validation(case, Cases())
    assert values["score"] == values["iou"] and "accuracy" not in values
    assert task.features(case, Cases()) == {}
    row = task.rows(case, Cases(), np.arange(4), {"split": "test"})[1]
    assert row["target"] == "benign" and not any(key.startswith("prob_") for key in row)


def test_side_masks_count_as_asked_and_at_their_own_size():
    out = outputs()
    sides = {"side_logits_1": out["mask_logits"], "side_logits_2": jnp.zeros((4, SIZE // 2, SIZE // 2, 1))}
    alone, weighed = (Segmentation(CLASSES, False, MaskAndClassLoss(side=side)) for side in (0.0, 0.4))
    plain, _ = alone.loss(out | sides, batch())
    small = segmentation_loss(jnp.full((4, 4, 4, 1), 0.5), batch()["mask"][:, 1::2, 1::2])
    want = float(plain) + 0.2 * (float(plain) + float(small))
    assert float(weighed.loss(out | sides, batch())[0]) == pytest.approx(want, rel=1e-5)


def test_the_official_schedule_follows_the_number_of_the_update():
    out, given = outputs(), batch()
    task = Segmentation(CLASSES, how=MaskAndClassLoss(schedule="official"), steps_per_epoch=10)

    def parts(step):
        loss, sums = task.loss(out, given | {"step": jnp.int32(step)})
        return float(loss), float(sums["segmentation"]) / 4, float(sums["classification"]) / 4

    for step, shares in ((9, (0.827, 0.173)), (10, (0.834, 0.166)), (200, (0.8, 0.2))):
        loss, mask, label = parts(step)
        assert loss == pytest.approx(shares[0] * mask + shares[1] * label, rel=1e-5)


def test_a_row_has_the_scores_of_the_thresholded_mask_and_the_weights_of_each_level():
    task, out, given = Segmentation(CLASSES), outputs(), batch()
    case = {key: np.asarray(value) for key, value in jax.jit(task.per_case)(out, given).items()} | {"case_id": np.arange(4)}
    rows = task.rows(case, Cases(), np.array(["g0", "g1", "g2", "g3"]), {"split": "test", "fold": 0, "repeat": 0})
    predicted, true = np.asarray(out["mask_logits"][..., 0]) >= 0, np.asarray(given["mask"][..., 0]) > 0
    assert list(rows[0])[:7] == ["case_id", "patient_id", "group", "split", "fold", "repeat", "target"]
    assert list(rows[0])[7:10] == [f"prob_{name}" for name in CLASSES]  # the last one is the positive class
    for k, row in enumerate(rows):
        for name, value in mask_scores(predicted[k], true[k]).items():
            np.testing.assert_equal(row[name], value)
        assert row["upa_d1_seg"] == float(out["upa"][k, 0, 0]) and row["upa_d4_cls"] == float(out["upa"][k, 3, 1])
        assert sum(row[f"prob_{name}"] for name in CLASSES) == pytest.approx(1, abs=1e-6)
    assert {key: case[key].shape for key in ("mask_bytes", "features")} == {"mask_bytes": (4, SIZE, SIZE), "features": (4, 5)}


def test_validation_averages_over_lesions_and_over_all_images():
    task, out, given = Segmentation(CLASSES), outputs(), batch()
    out["mask_logits"] = out["mask_logits"].at[0].set(-1.0)  # nothing drawn where nothing is: counts 1
    case = {key: np.asarray(value) for key, value in task.per_case(out, given).items()} | {"case_id": np.arange(4)}
    values = task.validation(case, Cases())
    scores = [mask_scores(case["mask_bytes"][k] >= HALF, np.asarray(given["mask"])[k, ..., 0] > 0) for k in range(4)]
    assert values["iou"] == pytest.approx(np.mean([score["iou"] for score in scores[1:]]))
    assert values["dice"] == pytest.approx(np.mean([score["dice"] for score in scores[1:]]))
    assert values["iou_all"] == pytest.approx(np.mean([score["iou"] for score in scores])) and scores[0]["iou"] == 1
    accuracy = np.mean(np.argmax(out["logits"], -1) == given["label"])
    assert values["score"] == pytest.approx(0.7 * values["iou"] + 0.3 * accuracy)


def test_without_true_masks_a_row_knows_the_drawn_size_alone():
    task, given = Segmentation(CLASSES), batch()
    del given["mask"]
    case = {key: np.asarray(value) for key, value in task.per_case(outputs(), given).items()} | {"case_id": np.arange(4)}
    row = task.rows(case, Cases(), np.arange(4), {"split": "predict"})[2]
    assert row["predicted_pixels"] == (outputs()["mask_logits"][2] >= 0).sum() and row["mask_pixels"] == SIZE**2
    assert np.isnan([row["iou"], row["mask_tp"], row["lesion_pixels"]]).all()


def test_losses_of_single_images_average_to_that_of_the_batch():
    probability, mask = jax.nn.sigmoid(outputs()["mask_logits"]), batch()["mask"]
    each = image_losses(probability, mask)
    assert float(each.mean()) == pytest.approx(float(segmentation_loss(probability, mask)), rel=1e-6)
    alone = [float(segmentation_loss(probability[k : k + 1], mask[k : k + 1])) for k in range(4)]
    np.testing.assert_allclose(each, alone, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 1.0}, "config.loss.delta is unknown"), ({"alpha": -0.1}, "alpha=-0.1 must be 0 or more"),
        ({"schedule": "cosine"}, "schedule='cosine'"), ({"null_masks": "skip"}, "null_masks='skip'"),
    ],
)  # fmt: skip
def test_wrong_loss_options_are_errors(options, message):
    with pytest.raises(UserError, match=message):
        loss_options(options)
