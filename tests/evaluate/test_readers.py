"""Human readers beside the model: their table, the model at their operating points, averages, files and errors."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from jaxmed.errors import UserError
from jaxmed.evaluate.reader_bootstrap import AT_SENSITIVITY, AT_SPECIFICITY, Comparison, matched_points
from jaxmed.evaluate.readers import compare_readers, main
from jaxmed.evaluate.reads import read_readers
from jaxmed.evaluate.table import concatenate

from .synthetic import CLASSES, make_table, write_workdir


def model_table(n=80, **options):
    return make_table(n, gates=False, **options)


def write(path, rows, header=("case_id", "reader", "read", "experience")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def answers_of(target, rng, sensitivity=0.8, specificity=0.7):
    return np.where(rng.random(len(target)) < np.where(target == 1, sensitivity, 1 - specificity), 1, 0)


@pytest.fixture
def readers(tmp_path):
    """Four readers of all 80 cases of `model_table`, two senior and two junior; and their answers [4, 80]."""
    model, rng, rows, found = model_table(), np.random.default_rng(0), [], []
    for k in range(4):
        found.append(answers_of(model.target, rng, 0.6 + 0.1 * k, 0.9 - 0.1 * k))
        experience = "senior" if k < 2 else "junior"
        rows += [(name, f"reader {k}", CLASSES[a], experience) for name, a in zip(model.case_id, found[-1], strict=True)]
    return write(tmp_path / "readers.csv", rows), np.array(found)


def test_a_readers_metrics_are_those_of_the_confusion_matrix(readers):
    path, answers = readers
    model = model_table()
    result = compare_readers(model, read_readers(path, model), resamples=50)
    assert result["cases"] == 80 and result["scale"] == "yes/no"
    assert list(result["readers"]) == [f"reader {k}" for k in range(4)]
    for k, reader in enumerate(result["readers"].values()):
        hits, alarms = answers[k][model.target == 1].mean(), answers[k][model.target == 0].mean()
        metrics = {name: estimate.value for name, estimate in reader["metrics"].items()}
        assert metrics["recall"] == pytest.approx(hits) and metrics["specificity"] == pytest.approx(1 - alarms)
        assert metrics["accuracy"] == pytest.approx((answers[k] == model.target).mean())
        assert metrics["auc"] == pytest.approx((hits + 1 - alarms) / 2)  # balanced accuracy
        assert reader["metrics"]["accuracy"].low < metrics["accuracy"] < reader["metrics"]["accuracy"].high
        assert "auc" not in reader["difference"]
        model_right = (model.probabilities[:, 1] > 0.5) == model.target
        test = reader["mcnemar"]
        assert test["model_only"] == (model_right & (answers[k] != model.target)).sum()
        assert test["reader_only"] == (~model_right & (answers[k] == model.target)).sum()
        assert test["p_value"] <= test["p_holm"] <= 1
        expected = model_right.mean() - metrics["accuracy"]
        assert reader["difference"]["accuracy"].value == pytest.approx(expected)


def test_matched_points_take_the_best_threshold_at_least_as_good_as_the_reader():
    positive = np.array([0, 0, 0, 0, 1, 1, 1, 1], bool)
    score = np.array([0.1, 0.2, 0.3, 0.8, 0.25, 0.6, 0.7, 0.9])

    def at(specificity, recall):
        reader = {"specificity": np.array([specificity]), "recall": np.array([recall])}
        found = matched_points(positive, score, reader, np.ones((1, 8), int))
        return found[AT_SPECIFICITY][0], found[AT_SENSITIVITY][0]

    assert at(0.75, 0.75) == (0.75, 0.75)  # thresholds between 0.3 and 0.6
    assert at(0.76, 0.76) == (0.25, 0.5)  # nothing is interpolated: the next threshold is much stricter
    assert at(0.0, 0.0) == (1.0, 1.0)
    assert at(1.0, 1.0) == (0.25, 0.5)
    assert np.isnan(at(np.nan, 0.5)).all()


def test_matched_points_of_counted_cases_are_those_of_repeated_cases():
    rng = np.random.default_rng(0)
    positive, score = rng.random(30) < 0.5, rng.random(30).round(1)
    counts = rng.multinomial(30, np.full(30, 1 / 30), size=5)
    reader = {"specificity": np.full(5, 0.6), "recall": np.full(5, 0.7)}
    found = matched_points(positive, score, reader, counts)
    for row in range(5):
        repeated = np.repeat(np.arange(30), counts[row])
        one = {name: value[:1] for name, value in reader.items()}
        again = matched_points(positive[repeated], score[repeated], one, np.ones((1, 30), int))
        for name, value in again.items():
            assert found[name][row] == pytest.approx(value[0])


def test_averages_are_means_over_readers_with_wider_intervals_than_patients_alone(readers):
    path, _ = readers
    model = model_table()
    reads = read_readers(path, model)
    result = compare_readers(model, reads, resamples=400)
    sizes = {name: group["readers"] for name, group in result["averages"].items()}
    assert sizes == {"senior": 2, "junior": 2, "all readers": 4}
    values = [reader["metrics"]["recall"].value for reader in result["readers"].values()]
    mean = result["averages"]["all readers"]["metrics"]["recall"]
    assert mean.value == pytest.approx(np.mean(values)) and mean.sd == pytest.approx(np.std(values, ddof=1))
    drawn = Comparison(model, reads.readers, resamples=400).human_drawn["recall"].mean(axis=0)
    assert mean.high - mean.low > 1.3 * np.subtract(*np.percentile(drawn, [97.5, 2.5]))
    gap = result["averages"]["senior"]["difference"][AT_SPECIFICITY]
    each = [result["readers"][f"reader {k}"]["difference"][AT_SPECIFICITY].value for k in range(2)]
    assert gap.value == pytest.approx(np.mean(each)) and gap.low < gap.value < gap.high


def test_resampling_keeps_patients_together(readers):
    """Twin cases of one patient carry no new information: the interval must not be narrower than without twins."""
    path, _ = readers
    model = model_table(160, group_size=2)
    rows = [(name, "r", "1" if k // 2 % 3 else "0", "") for k, name in enumerate(model.case_id)]
    path = write(path, rows)
    apart = replace(model, group=model.case_id)
    widths = []
    for table in (model, apart):
        difference = compare_readers(table, read_readers(path, table), resamples=600)["readers"]["r"]["metrics"]["recall"]
        widths.append(difference.high - difference.low)
    assert widths[0] > 1.2 * widths[1]
    notes = " ".join(compare_readers(model, read_readers(path, model), resamples=20)["notes"])
    assert "not independent" in notes


def test_ratings_give_an_area_and_a_threshold(tmp_path):
    model, rng = model_table(), np.random.default_rng(1)
    ratings = np.clip(np.round(3 + 1.2 * (model.target - 0.5) + rng.normal(size=len(model))), 1, 5).astype(int)
    path = write(tmp_path / "r.csv", [(name, "a", str(r), "") for name, r in zip(model.case_id, ratings, strict=True)])
    for start in (3, 4):
        result = compare_readers(model, read_readers(path, model, positive_from=start), resamples=50)
        metrics = result["readers"]["a"]["metrics"]
        assert result["scale"] == "ratings"
        assert metrics["auc"].value == pytest.approx(roc_auc_score(model.target, ratings))
        assert metrics["recall"].value == pytest.approx((ratings[model.target == 1] >= start).mean())
        assert "auc" in result["readers"]["a"]["difference"]


def test_readers_may_read_different_cases(tmp_path):
    model = model_table()
    rows = [(name, "a", str(t), "") for name, t in zip(model.case_id[:40], model.target[:40], strict=True)]
    rows += [(name, "b", str(1 - t), "") for name, t in zip(model.case_id[20:60], model.target[20:60], strict=True)]
    result = compare_readers(model, read_readers(write(tmp_path / "r.csv", rows), model), resamples=50)
    assert result["cases"] == 60 and [reader["cases"] for reader in result["readers"].values()] == [40, 40]
    assert [reader["metrics"]["accuracy"].value for reader in result["readers"].values()] == [1, 0]
    first = model.take(np.arange(40))
    right = ((first.probabilities[:, 1] > 0.5) == first.target).mean()
    assert result["readers"]["a"]["model"]["accuracy"].value == pytest.approx(right)
    assert any("different cases" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("nobody", "a", "0", "")], "line 2: 'nobody'.*such as 'test-000'"),
        ([("test-000", "a", "0", ""), ("test-000", "a", "1", "")], "line 3: a has read case test-000 already"),
        ([("test-000", "", "0", "")], "line 2: reader is empty"),
        ([("test-000", "a", "maybe", "")], "line 2: read 'maybe' is on no scale"),
        ([("test-000", "a", "0", ""), ("test-001", "a", "3", "")], "line 2: read '0' is on no scale"),
        ([("test-000", "a", "benign", ""), ("test-001", "a", "1", "")], "mixes scales"),
        ([("test-000", "a", "0", "senior"), ("test-001", "a", "0", "junior")], "line 3: experience of a is 'junior'"),
        ([], "no rows"),
    ],
)
def test_wrong_files_are_refused_with_the_line(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        read_readers(write(tmp_path / "r.csv", rows), model_table())


def test_missing_files_columns_and_classes_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_readers(tmp_path / "gone.csv", model_table())
    path = write(tmp_path / "r.csv", [("test-000", "0")], ("case_id", "read"))
    with pytest.raises(UserError, match="no column 'reader'"):
        read_readers(path, model_table())
    path = write(tmp_path / "r.csv", [("test-000", "a", "0", "")])
    with pytest.raises(UserError, match="two classes"):
        read_readers(path, model_table(30, classes=("a", "b", "c")))
    with pytest.raises(UserError, match="positive_from=1"):
        read_readers(path, model_table(), positive_from=1)


def test_the_command_writes_the_tables_and_the_figure(tmp_path, readers, capsys):
    path, _ = readers
    repeats = [model_table(seed=seed, repeat=seed) for seed in range(2)]
    workdir = write_workdir(tmp_path / "run", repeats, features=False)
    main([f"--workdir={workdir}", f"--readers={path}"])
    printed = capsys.readouterr().out
    text = (workdir / "readers.md").read_text()
    assert text in printed and "mean of 2 senior" in text and "balanced accuracy" in text and "2 in all" in text
    result = json.loads((workdir / "readers.json").read_text())
    model = concatenate(repeats).average_repeats()
    accuracy = ((model.probabilities[:, 1] > 0.5) == model.target).mean()
    assert result["model"]["accuracy"]["value"] == pytest.approx(accuracy)
    with open(workdir / "readers_table.csv", newline="") as file:
        rows = {(row["who"], row["what"], row["metric"]): row for row in csv.DictReader(file)}
    assert float(rows["reader 0", "reader", "recall"]["value"]) == result["readers"]["reader 0"]["metrics"]["recall"]["value"]
    assert ("reader 0", "reader", "auc (yes/no reads: balanced accuracy)") in rows
    assert (workdir / "figures" / "readers_roc.png").stat().st_size > 10_000
