"""Ensembles: eval and predict with several runs' outputs, averaged."""

import csv
import json

import cv2
import numpy as np
import pytest

from jaxmed.data.sources import make_source
from jaxmed.errors import UserError
from jaxmed.train import modes
from tests.train import tiny_masks_config


def config(seed=42, **changes):
    config = tiny_masks_config.get_config()
    config.seeds.update(init=seed, order=seed)
    config.update({"epochs": 2, **changes})
    return config


def rows(path):
    with path.open() as file:
        return {row["case_id"]: row for row in csv.DictReader(file) if row["split"] != "val"}


def logits(table):
    """Of the second class against the first."""
    return np.array([np.log(float(row["prob_malignant"]) / float(row["prob_benign"])) for row in table.values()])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs on one split; the second keeps a running mean of its parameters."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two", "three")]
    for seed, (folder, ema) in enumerate(zip(folders, (0.0, 0.5, 0.0), strict=True)):
        modes.train(config(seed, ema=ema), folder)
    return folders


def test_eval_averages_the_logits_of_all_runs_and_says_so(runs, tmp_path):
    first, *others = runs
    modes.evaluate_checkpoint(config(), first, "test", str(tmp_path), [str(other) for other in others])
    single = [rows(folder / "predictions.csv") for folder in runs]
    together = rows(tmp_path / "predictions.csv")
    assert list(together) == list(single[0]) == list(single[2])
    np.testing.assert_allclose(logits(together), np.mean([logits(table) for table in single], axis=0), atol=1e-4)
    assert np.abs(logits(single[0]) - logits(single[1])).max() > 0.01  # they do differ
    told, *parts = (json.loads((folder / "run.json").read_text()) for folder in (tmp_path, *runs))
    assert told["ensemble"] == [part["best_epoch"] for part in parts] and "ensemble" not in parts[0]
    assert told["seconds"] == pytest.approx(sum(part["seconds"] for part in parts), abs=0.2)
    assert "Outputs of 3 such networks, trained apart, were averaged (ensemble)" in (tmp_path / "report.html").read_text()


def test_predict_averages_masks_and_classes(runs, tmp_path):
    (tmp_path / "in").mkdir()
    image = make_source(config().data).read(0)["image"]
    cv2.imwrite(str(tmp_path / "in/a.png"), cv2.resize(image, (32, 32)))
    found = {}
    for name, (folder, *others) in {"a": runs[:1], "b": runs[1:2], "both": runs[:2]}.items():
        modes.predict(config(), folder, str(tmp_path / "in"), str(tmp_path / name), [str(other) for other in others])
        table = rows(tmp_path / name / "predictions.csv")
        found[name] = logits(table), cv2.imread(str(tmp_path / name / table["a.png"]["mask_file"]), 0) > 0
    assert found["both"][0] == pytest.approx((found["a"][0] + found["b"][0]) / 2, abs=1e-4)
    agreed = found["a"][1] == found["b"][1]  # where both say the same, so does their mean
    np.testing.assert_array_equal(found["both"][1][agreed], found["a"][1][agreed])


def test_runs_that_do_not_go_together_are_refused(runs, tmp_path):
    def ensemble(*others):
        modes.evaluate_checkpoint(config(), runs[0], "test", str(tmp_path / "out"), [str(other) for other in others])

    with pytest.raises(UserError, match="a run counts once"):
        ensemble(runs[0])
    with pytest.raises(UserError, match="config.json is missing"):
        ensemble(tmp_path / "nowhere")
    modes.train(config(epochs=1, model={"options": {"width": 12}}), tmp_path / "wide")
    with pytest.raises(UserError, match="wide is another network: options is .*12"):
        ensemble(tmp_path / "wide")
    modes.train(config(epochs=1, seeds={"split": 1}), tmp_path / "divided")
    with pytest.raises(UserError, match="has another split: .* is in '(train|val)' there"):
        ensemble(tmp_path / "divided")
    assert not (tmp_path / "out").exists()
