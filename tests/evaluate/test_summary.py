"""metrics.json and the terminal table; what a workdir may lack."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxmed.errors import UserError
from jaxmed.evaluate.breasts import of_task
from jaxmed.evaluate.metrics import METRICS, metric_values
from jaxmed.evaluate.summary import format_table, write_metrics
from jaxmed.evaluate.workdir import read_history, read_workdir

from .synthetic import VIEW_RUN, make_breasts, make_history, make_table, write_workdir


def test_metrics_json_holds_every_split_and_metric(workdir):
    metrics = write_metrics(workdir)
    assert json.loads((workdir / "metrics.json").read_text()) == metrics
    assert list(metrics) == ["test", "val"]
    for split in metrics.values():
        assert set(METRICS) | {"cases", "groups", "networks"} == set(split)
        assert all({"value", "low", "high", "method"} <= set(entry) for entry in split.values())
    assert (metrics["test"]["cases"]["value"], metrics["test"]["groups"]["value"]) == (60, 30)
    table = make_table(60, group_size=2)
    assert metrics["test"]["auc"]["value"] == metric_values(table.target, table.probabilities)["auc"]


def test_the_table_ends_with_the_test_split_and_names_the_methods(workdir):
    text = format_table(write_metrics(workdir))
    assert text.index("val: 40 cases, all independent (used to choose the epoch: optimistic)") < text.index("test: 60")
    assert "[1] cluster bootstrap over 30 patients or duplicate groups" in text and "DeLong" in text
    assert max(map(len, text.splitlines())) <= 120


def test_an_undefined_metric_is_written_as_null_and_printed_in_words(tmp_path):
    table = make_table(20)
    metrics = write_metrics(write_workdir(tmp_path, [table.take(table.target == 0)], features=False))
    assert metrics["test"]["auc"]["value"] is None
    assert "NaN" not in (tmp_path / "metrics.json").read_text()
    line = next(line for line in format_table(metrics).splitlines() if "AUC" in line)
    assert "not defined" in line and "0.000" not in line


def test_several_networks_add_their_sd(tmp_path):
    tables = [make_table(30, repeat=r, seed=r) for r in range(3)]
    metrics = write_metrics(write_workdir(tmp_path, tables, features=False))
    assert metrics["test"]["auc"]["sd"] > 0 and len(metrics["test"]["auc"]["runs"]) == 3
    text = format_table(metrics)
    assert "3 trained networks" in text and "SD" in text


def test_a_leaky_split_is_named_where_its_cases_are_counted(tmp_path):
    run = {"data": {"split_kind": "leaky, for comparison"}}
    text = format_table(write_metrics(write_workdir(tmp_path, [make_table(30)], run=run)))
    assert "copies are not linked" in text and "DeLong" not in text and "all independent" not in text


def test_predictions_without_any_truth_cannot_be_evaluated(tmp_path):
    table = make_table(6)
    table.target[:] = -1
    with pytest.raises(UserError, match="nothing to evaluate"):
        write_metrics(write_workdir(tmp_path, [table]))


def test_a_resumed_run_counts_the_last_line_of_an_epoch(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "lr": 1}\n{"epoch": 2, "lr": 1}\n{"epoch": 2, "lr": 5}\n{"epoch": 3, "l')
    assert read_history(path) == [{"epoch": 1, "lr": 1}, {"epoch": 2, "lr": 5}]


def test_a_broken_line_inside_the_history_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo\n{"epoch": 3}\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 2"):
        read_history(tmp_path / "metrics.jsonl")


def test_the_histories_of_a_cv_workdir_are_found_in_its_parts(tmp_path):
    write_workdir(tmp_path, [make_table(20, repeat=r) for r in range(2)])
    (tmp_path / "metrics.jsonl").unlink()
    for k in range(2):
        write_workdir(tmp_path / f"repeat_0{k}", [make_table(20)], history=make_history(3))
    history = read_workdir(tmp_path).history
    expected = [(f"repeat_0{k}", epoch) for k in (0, 1) for epoch in (1, 2, 3)]
    assert [(row["repeat"], row["epoch"]) for row in history] == expected


@pytest.mark.parametrize(("name", "content"), [
    ("run.json", "{"), ("config.json", "[1]"), ("features.npz", "not an archive"),
])
def test_a_broken_file_is_named(workdir, name, content):
    (workdir / name).write_text(content)
    with pytest.raises(UserError, match=name):
        read_workdir(workdir)


def test_predictions_alone_are_enough(workdir):
    for name in ("run.json", "config.json", "features.npz", "metrics.jsonl"):
        (workdir / name).unlink()
    assert not math.isnan(write_metrics(workdir)["test"]["auc"]["value"])


@pytest.fixture(scope="module")
def breasts(tmp_path_factory):
    tables = [make_breasts(40), make_breasts(20, split="val", seed=1)]
    return write_workdir(tmp_path_factory.mktemp("breasts"), tables, run=VIEW_RUN, features=False)


def test_tasks_and_sides_get_entries_that_scikit_learn_confirms(breasts):
    metrics = write_metrics(breasts)["test"]
    table = read_workdir(breasts).table.select(split="test")
    birads = of_task(table, "birads").known()
    right = birads.take(birads.extras["side"] == "right")
    said = right.probabilities.argmax(1)
    assert metrics["birads/right/macro_f1"]["value"] == pytest.approx(sk.f1_score(right.target, said, average="macro"))
    area = sk.roc_auc_score(birads.target, birads.probabilities, multi_class="ovr")
    assert metrics["birads/both/auc"]["value"] == pytest.approx(area)
    assert metrics["birads/right/cases"]["value"] == len(right)
    assert "cluster bootstrap over" in metrics["birads/both/auc"]["method"]
    for name in METRICS:
        assert metrics[f"label/both/{name}"] == metrics[name]
    assert metrics["studies"]["value"] == len(set(table.known().extras["study_id"]))


def test_the_terminal_table_lists_tasks_and_sides(breasts):
    text = format_table(write_metrics(breasts))
    table = read_workdir(breasts).headline
    studies, groups = len(set(table.extras["study_id"])), len(set(table.patient_id))
    assert f"test: {len(table)} breasts in {studies} studies of {groups} independent groups" in text
    assert [line.split("  ")[1] for line in text.splitlines() if line.startswith(("  label,", "  birads,"))] == [
        f"{task}, {side}" for task in ("label", "birads") for side in ("left", "right", "both")] * 2
    assert max(map(len, text.splitlines())) <= 120


def test_a_missing_class_of_a_further_task_is_printed_in_words(tmp_path):
    table = make_breasts(30)
    table.extras["birads_target"][table.extras["birads_target"] == "BI-RADS 5"] = ""
    metrics = write_metrics(write_workdir(tmp_path, [table], run=VIEW_RUN, features=False))
    assert metrics["test"]["birads/both/auc"]["value"] is None and metrics["test"]["birads/both/accuracy"]["value"] > 0
    assert "not defined: a class is missing among the breasts" in format_table(metrics)


def test_folds_are_averaged_for_tasks_too(tmp_path):
    folds = [make_breasts(30, fold=f, seed=f) for f in range(2)]
    for f, table in enumerate(folds):
        table.case_id[:] = [f"{f}{name}" for name in table.case_id.tolist()]
        table.extras["study_id"] = np.array([f"{f}{name}" for name in table.extras["study_id"].tolist()])
    entry = write_metrics(write_workdir(tmp_path, folds, run=VIEW_RUN, features=False))["test"]["birads/left/auc"]
    areas = []
    for table in folds:
        birads = of_task(table, "birads").known()
        left = birads.take(birads.extras["side"] == "left")
        areas.append(metric_values(left.target, left.probabilities)["auc"])
    assert entry["value"] == pytest.approx(np.mean(areas)) and entry["runs"] == pytest.approx(areas)
