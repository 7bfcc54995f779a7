"""The verbs of the command line, on a network that trains in seconds."""

import csv
import json

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxmed.data.sources import make_source
from jaxmed.errors import UserError
from jaxmed.train import modes, setup
from jaxmed.train.loop import fit
from jaxmed.train.show import show
from tests.train import tiny_config


def config(kind="experts", **data):
    config = tiny_config.get_config(kind)
    config.epochs = 2
    config.data.update(data)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trained")
    modes.train(config(), workdir)
    return workdir


def test_a_workdir_takes_its_own_config_also_from_before_a_key_was_there_and_no_other(tmp_path):
    path = tmp_path / "config.json"
    other_words = config(workers=1)
    other_words.preset, other_words.published = "reduced preset: 8 epochs", ConfigDict({"model": "x", "AUC": 90.0})
    setup.claim_workdir(other_words, tmp_path)
    setup.claim_workdir(config(), tmp_path)
    stored = json.loads(path.read_text())
    older = {key: value for key, value in stored.items() if key != "test_time_flips"}
    older["data"] = {key: value for key, value in stored["data"].items() if key != "also_train"}
    path.write_text(json.dumps(older))
    setup.claim_workdir(config(), tmp_path)
    assert json.loads(path.read_text()) == stored
    path.write_text(json.dumps(older))
    with pytest.raises(UserError, match="data.size: 32 there, 48 now"):
        setup.claim_workdir(config(size=48), tmp_path)
    changed = config()
    changed.test_time_flips = "h"
    with pytest.raises(UserError, match="test_time_flips: '' there, 'h' now"):
        setup.claim_workdir(changed, tmp_path)
    assert json.loads(path.read_text()) == older


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six phantoms as PNG files with masks, and cases.csv."""
    root = tmp_path_factory.mktemp("folder")
    source = make_source(config().data)
    lines = ["image,mask,label"]
    for i in range(6):
        case = source.read(i)
        cv2.imwrite(str(root / f"{i}.png"), case["image"])
        cv2.imwrite(str(root / f"{i}_mask.png"), case["mask"] * 255)
        lines.append(f"{i}.png,{i}_mask.png,{source.classes[source.cases[i].label]}")
    (root / "cases.csv").write_text("\n".join(lines) + "\n")
    return root


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_predictions_hold_every_validation_and_test_case_with_gate_weights(trained):
    table = rows(trained / "predictions.csv")
    split = rows(trained / "splits.csv")
    expected = sorted(row["case_id"] for row in split if row["split"] in ("val", "test"))
    assert sorted(row["case_id"] for row in table) == expected
    for row in table:
        assert float(row["prob_benign"]) + float(row["prob_malignant"]) == pytest.approx(1.0, abs=1e-6)
        assert sum(float(row[f"gate_{name}"]) for name in ("image", "core", "boundary")) == pytest.approx(1.0, abs=1e-6)


def test_eval_of_the_test_split_repeats_the_stored_predictions(trained, tmp_path):
    modes.evaluate_checkpoint(config(), trained, "test", str(tmp_path / "out"))
    stored = {row["case_id"]: row for row in rows(trained / "predictions.csv") if row["split"] == "test"}
    again = {row["case_id"]: row for row in rows(tmp_path / "out/predictions.csv")}
    assert again == stored
    assert (tmp_path / "out/report.html").exists()


def test_eval_on_another_data_set_covers_all_its_cases(trained, folder, tmp_path):
    other = config(source="folder", dir=str(folder / "cases.csv"))
    modes.evaluate_checkpoint(other, trained, "all", str(tmp_path / "out"))
    assert len(rows(tmp_path / "out/predictions.csv")) == 6


def test_predict_reads_a_csv_or_a_folder_and_says_whose_masks(trained, folder, tmp_path, capsys):
    modes.predict(config(), trained, str(folder / "cases.csv"), str(tmp_path / "csv"))
    modes.predict(config(), trained, str(folder), str(tmp_path / "folder"))
    assert "masks:" in capsys.readouterr().out
    probabilities = [
        sorted(float(row["prob_malignant"]) for row in rows(tmp_path / kind / "predictions.csv")) for kind in ("csv", "folder")
    ]
    assert len(probabilities[0]) == 6
    np.testing.assert_allclose(*probabilities, rtol=1e-6)


def test_predict_without_masks_names_the_mask_and_the_way_out(trained, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 40), 90, np.uint8))
    with pytest.raises(UserError, match=r"mask.*experts=\(\"image\",\)"):
        modes.predict(config(), trained, str(tmp_path), str(tmp_path / "out"))


def test_predict_without_input_or_without_a_trained_run_says_what_is_missing(trained, tmp_path):
    with pytest.raises(UserError, match="--input"):
        modes.predict(config(), trained, None, None)
    with pytest.raises(UserError, match="trained run"):
        modes.predict(config(), tmp_path, str(tmp_path), None)


def test_repeats_give_mean_and_sd_over_networks(tmp_path):
    repeated = config("single")
    repeated.cv.repeats = 2
    modes.cross_validate(repeated, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert metrics["networks"]["value"] == 2 and len(metrics["auc"]["runs"]) == 2
    seeds = [json.loads((tmp_path / f"repeat_0{k}/config.json").read_text())["seeds"] for k in (0, 1)]
    assert [s["init"] for s in seeds] == [42, 43] and seeds[0]["split"] == seeds[1]["split"]
    assert (tmp_path / "repeat_00/splits.csv").read_text() == (tmp_path / "repeat_01/splits.csv").read_text()


def test_folds_test_every_case_once(tmp_path):
    folds = config("single")
    folds.cv.folds, folds.epochs = 3, 1
    modes.cross_validate(folds, tmp_path)
    tested = [row["case_id"] for row in rows(tmp_path / "predictions.csv") if row["split"] == "test"]
    assert len(tested) == len(set(tested)) == folds.data.num_cases


def test_show_prints_parameters_flops_and_memory(capsys):
    show(config())
    out = capsys.readouterr().out
    assert "multiply-adds" in out and "temporary" in out and "encoders.0" in out


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_cases(tmp_path):
    broken = config("single")
    broken.optimizer.learning_rate = float("inf")
    run = setup.prepare(broken, tmp_path, setup.prepare_data(broken, tmp_path))
    with pytest.raises(UserError, match=r"loss became nan at step \d+. The batch held: phantom \d+"):
        fit(run)


def test_bfloat16_trains_and_keeps_float32_parameters(tmp_path):
    mixed = config("single")
    mixed.dtype, mixed.epochs = "bfloat16", 1
    run = setup.prepare(mixed, tmp_path, setup.prepare_data(mixed, tmp_path))
    fit(run)
    assert {leaf.dtype.name for part in ("params", "stats") for leaf in _leaves(run.state[part])} == {"float32"}


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else [value]
