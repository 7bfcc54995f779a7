"""Runs that learn masks, through every verb of the command line."""

import csv
import json

import cv2
import numpy as np
import pytest

from jaxmed.data.sources import make_source
from jaxmed.errors import UserError
from jaxmed.evaluate.mask_files import read_mask_files
from jaxmed.train import modes, setup
from jaxmed.train.explain import explain
from jaxmed.train.loop import fit
from jaxmed.train.mask_pictures import native_mask
from jaxmed.train.show import show
from tests.train import tiny_masks_config


def config(kind="both", **changes):
    config = tiny_masks_config.get_config(kind)
    config.update(changes)
    return config


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", params=["both", "masks"])
def trained(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(request.param)
    modes.train(config(request.param), workdir)
    return request.param, workdir


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three phantoms of three sizes without masks, and one of the network's size with a mask, each in a folder."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "plain").mkdir()
    (root / "masked").mkdir()
    source = make_source(config().data)
    for k, size in enumerate(((40, 70), (64, 32), (90, 90))):
        cv2.imwrite(str(root / f"plain/{k}.png"), cv2.resize(source.read(k)["image"], size[::-1]))
    case = {name: cv2.resize(array, (32, 32)) for name, array in source.read(3).items()}
    cv2.imwrite(str(root / "masked/a.png"), case["image"])
    cv2.imwrite(str(root / "masked/a_mask.png"), 255 * case["mask"])
    return root


def test_a_run_writes_scores_masks_and_a_report(trained):
    kind, workdir = trained
    table = rows(workdir / "predictions.csv")
    tested = [row for row in table if row["split"] == "test"]
    assert ("prob_malignant" in tested[0]) == (kind == "both") == ("upa_d4_cls" in tested[0])
    assert (workdir / "features.npz").exists() == (kind == "both")
    assert all(row["target"] in ("benign", "malignant") and float(row["mask_pixels"]) == 32 * 32 for row in table)
    saved = [file.load() for file in read_mask_files(workdir)]
    assert [case.case_id for case in saved] == [row["case_id"] for row in tested]
    for case, row in zip(saved, tested, strict=True):
        assert (case.predicted & case.true).sum() == float(row["mask_tp"])
        assert case.true.sum() == float(row["lesion_pixels"]) and case.picture.shape == (32, 32)
    history = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert ("val/accuracy" in history[0]) == (kind == "both") and "val/iou" in history[0]
    assert (workdir / "report.html").exists()


def test_eval_repeats_the_stored_rows_and_writes_the_same_masks(trained, tmp_path):
    kind, workdir = trained
    modes.evaluate_checkpoint(config(kind), workdir, "test", str(tmp_path / "out"))
    stored = [row for row in rows(workdir / "predictions.csv") if row["split"] == "test"]
    assert rows(tmp_path / "out/predictions.csv") == stored
    for one, two in zip(read_mask_files(workdir), read_mask_files(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(one.load().predicted, two.load().predicted)


def test_predict_writes_a_mask_of_the_size_of_each_input(trained, pictures, tmp_path):
    kind, workdir = trained
    modes.predict(config(kind), workdir, str(pictures / "plain"), str(tmp_path))
    table = rows(tmp_path / "predictions.csv")
    assert [row["case_id"] for row in table] == ["0.png", "1.png", "2.png"]
    for row, size in zip(table, ((40, 70), (64, 32), (90, 90)), strict=True):
        mask = cv2.imread(str(tmp_path / row["mask_file"]), cv2.IMREAD_UNCHANGED)
        assert mask.shape == size and set(np.unique(mask)) <= {0, 255}
        assert float(row["predicted_pixels"]) == (mask == 255).sum() and float(row["mask_pixels"]) == mask.size
        assert row["iou"] == "nan" and row["target"] == ""
    if kind == "both":
        assert all(float(row[f"prob_{row['predicted_class']}"]) >= 0.5 for row in table)
    else:
        assert "predicted_class" not in table[0]


def test_explain_shows_what_speaks_for_the_class_and_refuses_a_network_without(trained, tmp_path):
    kind, workdir = trained
    if kind == "both":
        assert explain(config(), workdir, count=2, output=str(tmp_path)).exists()
        assert len(list(tmp_path.glob("phantom_*.png"))) == 2
    else:
        with pytest.raises(UserError, match="speaks for a class, and this network has none"):
            explain(config("masks"), workdir, count=2, output=str(tmp_path))


def test_predict_scores_inputs_that_have_a_mask(trained, pictures, tmp_path):
    kind, workdir = trained
    modes.predict(config(kind), workdir, str(pictures / "masked"), str(tmp_path))
    (row,) = rows(tmp_path / "predictions.csv")
    mask = cv2.imread(str(tmp_path / row["mask_file"]), cv2.IMREAD_UNCHANGED) > 0
    true = cv2.imread(str(pictures / "masked/a_mask.png"), cv2.IMREAD_UNCHANGED) > 0
    assert float(row["iou"]) == pytest.approx((mask & true).sum() / (mask | true).sum())


def test_with_test_time_flips_a_mirror_image_has_the_mirrored_mask_and_the_same_class(trained, pictures, tmp_path):
    kind, workdir = trained
    image, found = cv2.imread(str(pictures / "masked/a.png"), cv2.IMREAD_UNCHANGED), {}
    (tmp_path / "in").mkdir()
    for name, turned in (("plain", image), ("mirrored", image[::-1, ::-1])):
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), turned)
    for flips in ("none", "hv"):
        modes.predict(config(kind, test_time_flips=flips), workdir, str(tmp_path / "in"), str(tmp_path / flips))
        table = {row["case_id"]: row for row in rows(tmp_path / flips / "predictions.csv")}
        masks = [cv2.imread(str(tmp_path / flips / table[f"{name}.png"]["mask_file"]), 0) for name in ("plain", "mirrored")]
        found[flips] = masks[0], masks[1][::-1, ::-1], *(float(row.get("prob_benign", 0)) for row in table.values())
    assert (found["hv"][0] != found["hv"][1]).mean() < 0.01  # a pixel may lie on the threshold
    assert found["hv"][2] == pytest.approx(found["hv"][3], abs=1e-5)
    assert (found["none"][0] != found["none"][1]).any()  # the network alone is not so


def test_the_native_mask_is_the_networks_own_where_the_size_is_the_same_and_smooth_elsewhere():
    ramp = np.repeat(np.arange(0, 256, 17, dtype=np.uint8)[None], 16, 0)
    np.testing.assert_array_equal(native_mask(ramp, (16, 16)), ramp >= 128)
    large = native_mask(ramp, (160, 161))
    assert large.shape == (160, 161) and abs(large.mean() - 0.5) < 0.02


def test_variants_test_the_same_folds_and_end_in_one_table(tmp_path, capsys):
    both = config(epochs=1, data={"num_cases": 32})
    both.cv.folds = 2
    both.cv.variants = {"narrow": {"model": {"options": {"width": 8}}}, "mask": {"loss": {"classification": 0.0}}}
    modes.cross_validate(both, tmp_path)
    tables = {name: rows(tmp_path / name / "predictions.csv") for name in both.cv.variants}
    tested = {name: [row for row in table if row["split"] == "test"] for name, table in tables.items()}
    folds = {name: [(row["case_id"], row["fold"]) for row in found] for name, found in tested.items()}
    assert folds["narrow"] == folds["mask"] and len({case for case, _ in folds["mask"]}) == both.data.num_cases
    assert len(read_mask_files(tmp_path / "mask/fold_01")) == sum(fold == "1" for _, fold in folds["mask"])
    table = {(row["variant"], row["metric"]): row["value"] for row in rows(tmp_path / "variants.csv")}
    metrics = json.loads((tmp_path / "narrow/metrics.json").read_text())["test"]
    assert float(table["narrow", "mask/lesions/iou"]) == metrics["mask/lesions/iou"]["value"]
    assert ("narrow", "accuracy") in table and ("mask", "accuracy") not in table  # no class head, no accuracy
    assert f"{metrics['accuracy']['value']:.3f} (" in capsys.readouterr().out.split("variant ")[-1]
    with pytest.raises(UserError, match="--mode=cv"):
        modes.train(both, tmp_path / "train")


def test_a_run_stops_early_at_the_same_epoch_after_an_interruption_and_says_why(tmp_path, capsys):
    for epochs, done in ((2, 2), (20, 3), (20, 3)):  # cut off before it stops, resumed, and asked again
        changed = config(epochs=epochs)
        changed.early_stop.update(patience=2, min_delta=1.0)  # the first epoch stays the best one
        progress = fit(setup.prepare(changed, tmp_path, setup.prepare_data(changed, tmp_path)))
        assert (progress.epochs_done, progress.stalled) == (done, done - 1)
    out = capsys.readouterr().out
    assert "stopped early: val/score did not improve by more than 1 in 2 epochs" in out
    assert "training is complete: 3 epochs" in out


def test_show_and_check_data_know_masks(capsys):
    show(config())
    assert modes.check_data(config()) == 0
    out = capsys.readouterr().out
    assert "multiply-adds" in out and "masks: phantom (exact)" in out


def test_what_does_not_go_with_masks_is_an_error(tmp_path):
    other = config()
    other.model.name = "resnet18"
    with pytest.raises(UserError, match="resnet18.*makes no masks"):
        setup.build_model(other, 2)
    with pytest.raises(UserError, match="masks are not mixed"):
        setup.prepare_data(config(mix={"mixup": 0.2}), None)
    for name in ("benign", "malignant"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f"{name}.png"), np.full((40, 40), 90, np.uint8))
    with pytest.raises(UserError, match="benign.png: no mask"):
        setup.prepare_data(config(data={"source": "folder", "dir": str(tmp_path)}), None)
