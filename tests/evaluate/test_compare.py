"""Several runs on the same cases: fold-averaged AUC, paired differences with p values, files, and what is refused."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from jaxmed.errors import UserError
from jaxmed.evaluate.compare import compare, main
from jaxmed.evaluate.compare_bootstrap import (
    delong_check,
    difference,
    draw_shared,
    fold_averaged_auc,
    p_value,
    smallest_p,
)
from jaxmed.evaluate.compare_runs import ComparedRun, parse_runs, read_runs, shared_clusters
from jaxmed.evaluate.delong import delong_test
from jaxmed.evaluate.predictions import Predictions, concatenate
from jaxmed.evaluate.repeats import summarise_repeats
from jaxmed.evaluate.workdir import Workdir

from .synthetic import CLASSES, make_table, write_workdir


def fold(number, *, seed=0, repeat=0, n=40, **options) -> Predictions:
    """Cases of a fold of its own, whose scores depend on the seed."""
    table = make_table(n, seed=seed, fold=number, repeat=repeat, case_seed=number, gates=False, **options)
    for column in (table.case_id, table.group):
        column[:] = [name.replace("test", f"f{number}") for name in column]
    return table


def run_of(name, tables, **info) -> ComparedRun:
    table = concatenate(tables)
    return ComparedRun(name, Workdir(name, table, run=info), table)


def compared(*runs, resamples=200) -> dict:
    return compare(runs, runs[0].name, resamples)


def test_the_averaged_auc_is_the_mean_of_the_folds_own_and_never_of_pooled_scores():
    folds = [fold(k) for k in range(3)]
    for k, table in enumerate(folds):
        table.probabilities[:, 1] = 0.3 * table.probabilities[:, 1] + 0.3 * k  # every fold on a scale of its own
    result = compared(run_of("a", folds), run_of("b", [fold(k, seed=1) for k in range(3)]))
    each = [roc_auc_score(table.target, table.probabilities[:, 1]) for table in folds]
    assert list(result["runs"]["a"]["auc_per_fold"].values()) == pytest.approx(each)
    assert result["runs"]["a"]["metrics"]["auc"].value == pytest.approx(np.mean(each))
    other = result["runs"]["b"]["metrics"]["auc"].value
    assert result["differences"]["b"]["auc"].value == pytest.approx(other - np.mean(each))


def test_folds_are_averaged_inside_each_resample_of_patients():
    """A resample drawn by hand: whole groups, repeated as often as they were drawn, in the fold that they belong to."""
    run = run_of("a", [fold(k, group_size=2) for k in range(2)])
    cluster_of = shared_clusters([run])
    draws = draw_shared(run.table, cluster_of, 3)
    _, drawn = fold_averaged_auc(run.parts, cluster_of, draws)
    for sample in range(3):
        areas = []
        for part in run.parts:
            rows = np.repeat(np.arange(len(part)), [draws[sample, cluster_of[case]] for case in part.case_id])
            areas.append(roc_auc_score(part.target[rows], part.probabilities[rows, 1]))
        assert drawn[sample] == pytest.approx(np.mean(areas))


def test_equal_runs_do_not_differ_and_p_is_1():
    folds = [fold(k) for k in range(2)]
    found = compared(run_of("a", folds), run_of("b", folds))["differences"]["b"]
    assert (found["auc"].value, found["auc"].low, found["auc"].high) == (0, 0, 0)
    assert found["p_value"] == found["p_holm"] == 1


def test_p_counts_the_resamples_beyond_zero_and_the_data_as_one_more():
    assert p_value(np.array([0.1, 0.2, 0.3, -0.1])) == pytest.approx(2 * (1 + 1) / 5)
    assert p_value(np.array([-0.1] * 9)) == pytest.approx(smallest_p(9)) == pytest.approx(0.2)
    assert p_value(np.array([0.0, 0.1, -0.1])) == 1
    assert p_value(np.array([0.1, np.nan, 0.3])) == pytest.approx(2 / 3)  # undefined resamples do not count
    assert np.isnan(p_value(np.array([np.nan])))


def simulated(rng, skills, n=100) -> list[Predictions]:
    """Scores of the same n cases by networks of known AUC: skill * truth + noise of the case + noise of the network."""
    base, case = make_table(n, gates=False), rng.normal(size=n)
    tables = []
    for skill in skills:
        score = norm.cdf(skill * base.target + case + 0.5 * rng.normal(size=n))
        tables.append(replace(base, probabilities=np.stack([1 - score, score], axis=1)))
    return tables


def area_of(skill: float) -> float:
    return norm.cdf(skill / np.sqrt(2 * (1 + 0.25)))


def paired(tables, resamples=300):
    runs = [run_of(str(k), [table]) for k, table in enumerate(tables)]
    cluster_of = shared_clusters(runs)
    draws = draw_shared(tables[0], cluster_of, resamples)
    areas = [fold_averaged_auc(run.parts, cluster_of, draws) for run in runs]
    return areas, difference(areas[0], areas[1], draws.shape[1])


def test_intervals_cover_a_known_difference_and_p_finds_it_but_not_where_there_is_none():
    rng = np.random.default_rng(0)
    apart = [paired(simulated(rng, (2.0, 0.8)))[1] for _ in range(60)]
    alike = [paired(simulated(rng, (1.2, 1.2)))[1] for _ in range(60)]
    true = area_of(2.0) - area_of(0.8)
    assert 0.86 < np.mean([found.low < true < found.high for found, _ in apart]) <= 1
    assert np.mean([p < 0.05 for _, p in apart]) > 0.9
    assert np.mean([found.low < 0 < found.high for found, _ in alike]) > 0.86
    assert np.mean([p < 0.05 for _, p in alike]) < 0.14


def test_the_same_resample_for_both_runs_gives_narrower_intervals_than_separate_ones():
    tables = simulated(np.random.default_rng(1), (1.5, 1.3))
    ((_, first), (_, second)), (found, _) = paired(tables, 1000)
    apart = first - np.random.default_rng(0).permutation(second)
    assert found.high - found.low < 0.7 * np.subtract(*np.percentile(apart, [97.5, 2.5]))


def test_cases_of_a_patient_stay_together_even_if_only_one_run_knows_the_patient():
    tables = simulated(np.random.default_rng(2), (1.5, 1.0), n=60)
    runs = [run_of(str(k), [table]) for k, table in enumerate(tables)]
    assert len(set(shared_clusters(runs).values())) == 60
    known = np.array([f"p{k // 2}" for k in range(60)])
    runs[1] = run_of("1", [replace(tables[1], patient_id=known, group=tables[1].group[::-1])])  # other group names
    cluster_of = shared_clusters(runs)
    assert cluster_of["test-000"] == cluster_of["test-001"] != cluster_of["test-002"]
    assert len(set(cluster_of.values())) == 30


def test_delongs_test_stands_beside_the_bootstrap_only_for_one_fold_of_independent_cases():
    first, second = simulated(np.random.default_rng(3), (1.6, 1.2), n=80)
    mixed = second.take(np.random.default_rng(0).permutation(80))  # the rows of a run may come in any order
    entry = compared(run_of("a", [first]), run_of("b", [mixed]), resamples=2000)["differences"]["b"]
    test = delong_test(first.target == 1, second.probabilities[:, 1], first.probabilities[:, 1])
    assert entry["delong"]["p_value"] == pytest.approx(test.p_value)
    assert entry["auc"].value == pytest.approx(test.difference)
    assert (entry["auc"].low, entry["auc"].high) == pytest.approx((test.low, test.high), abs=0.02)
    pairs = np.array([f"g{k // 2}" for k in range(80)])
    assert delong_check([replace(first, group=pairs)], [second]) is None
    assert delong_check([fold(0), fold(1)], [fold(0), fold(1)]) is None
    leaky = run_of("b", [second], data={"split_kind": "leaky (by image)"})
    assert compared(run_of("a", [first]), leaky)["differences"]["b"]["delong"] is None


def test_runs_may_have_been_repeated_differently_often():
    once = run_of("a", [fold(k) for k in range(2)])
    twice = run_of("b", [fold(k, seed=r, repeat=r) for r in range(2) for k in range(2)])
    areas = np.array([roc_auc_score(t.target, t.probabilities[:, 1]) for t in twice.parts]).reshape(2, 2)
    found = compared(once, twice)
    assert list(found["runs"]["b"]["auc_per_fold"].values()) == pytest.approx(areas.mean(0))
    assert found["runs"]["b"]["metrics"]["auc"].value == pytest.approx(areas.mean())
    assert found["runs"]["b"]["metrics"]["auc"].sd == pytest.approx(areas.mean(1).std(ddof=1))


def test_p_values_are_adjusted_for_the_number_of_runs():
    tables = simulated(np.random.default_rng(4), (1.6, 1.0, 1.3))
    found = compared(*(run_of(str(k), [table]) for k, table in enumerate(tables)))["differences"]
    low, high = sorted((entry["p_value"], entry["p_holm"]) for entry in found.values())
    assert low[1] == pytest.approx(min(1, 2 * low[0])) and high[1] == pytest.approx(max(low[1], high[0]))


def test_the_numbers_of_a_run_are_those_of_its_own_report():
    folds = [fold(k, group_size=2) for k in range(2)]
    mine = compared(run_of("a", folds), run_of("b", [fold(k, seed=1, group_size=2) for k in range(2)]))["runs"]["a"]
    assert mine["metrics"] == {name: summarise_repeats(folds)[name] for name in mine["metrics"]}


@pytest.fixture
def folders(tmp_path):
    """Three cross-validated runs on the same two folds."""
    return {
        name: write_workdir(tmp_path / name, [fold(k, seed=seed, skill=skill) for k in range(2)], features=False)
        for seed, (name, skill) in enumerate({"x": 1.3, "dv": 0.6, "sv": 0.3}.items())
    }


def named(folders) -> str:
    return "--runs=" + ",".join(f"{name}={folder}" for name, folder in folders.items())


def test_the_command_prints_the_tables_and_writes_every_file(tmp_path, folders, capsys):
    output = tmp_path / "out"
    main([named(folders), "--reference=dv", f"--output={output}"])
    printed = capsys.readouterr().out
    assert "80 cases of split 'test' in 2 folds, 80 independent groups" in printed and "AUC minus dv" in printed
    result = json.loads((output / "compare.json").read_text())
    assert list(result["differences"]) == ["x", "sv"] and result["bootstrap"]["smallest_p"] == smallest_p()
    with open(output / "compare.csv", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert float(rows["x"]["difference"]) == result["differences"]["x"]["auc"]["value"]
    assert float(rows["x"]["auc_fold_1"]) == result["runs"]["x"]["auc_per_fold"]["1"] and rows["dv"]["p_value"] == ""
    page = (output / "compare.html").read_text()
    assert "Patients (or groups of linked" in page and "Holm" in page and page.count("<img src=\"data:image/png") == 2
    for name in ("forest", "roc"):
        assert (output / "figures" / f"{name}.png").stat().st_size > 10_000


def test_breasts_and_several_classes_are_compared_alike(tmp_path):
    classes = ("normal", "benign", "malignant")
    folders = {}
    for seed, name in enumerate("ab"):
        table = make_table(60, classes, seed=seed, gates=False)
        table.extras |= {"study_id": np.array([f"s{k // 2}" for k in range(60)]), "side": np.array(["left", "right"] * 30)}
        folders[name] = write_workdir(tmp_path / name, [table], features=False)
    main([named(folders), f"--output={tmp_path / 'out'}"])
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    areas = [roc_auc_score(table.target == k, table.probabilities[:, k]) for k in range(3)]
    assert result["runs"]["b"]["metrics"]["auc"]["value"] == pytest.approx(np.mean(areas))
    assert result["unit"] == "breast" and result["clusters"] == 30
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "against the rest, mean over classes, was computed for each trained network" in page


def changed(table, row=0, **columns) -> Predictions:
    table = replace(table, **{name: getattr(table, name).copy() for name in columns})
    for name, value in columns.items():
        getattr(table, name)[row] = value
    return table


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ([fold(0), fold(1).take(np.arange(2, 40))], r"fold 1: 2 cases \(f1-000, f1-001\) only in a, not in b"),
        ([fold(0), changed(fold(1), case_id="new")], r"fold 1: 1 case \(f1-000\) only in a.*\n.*\(new\) only in b"),
        ([fold(0), changed(fold(1), row=3, target=0)], "fold 1: 1 case .f1-003. with another target; f1-003 is malignant in a "
         "and benign in b"),
        ([fold(0), changed(fold(1), row=3, target=-1)], r"fold 1: 1 case \(f1-003\) only in a"),
        ([fold(0)], "a has fold 0, fold 1; b has fold 0"),
        ([changed(fold(0), row=[0, 1], fold=1), fold(1)], "same cases in other folds; f0-000 is in fold 0 of a and in fold 1"),
        ([fold(0, split="clinic"), fold(1, split="clinic")], "different test sets .a: 'test', b: 'clinic'.*--split"),
        ([fold(0, classes=("no", "yes"))], "classes: a has benign, malignant; b has no, yes"),
    ],
)  # fmt: skip
def test_runs_on_other_cases_are_refused_by_run_fold_and_case(tmp_path, tables, said):
    folders = {
        name: write_workdir(tmp_path / name, rows, features=False)
        for name, rows in {"a": [fold(0), fold(1)], "b": tables}.items()
    }
    with pytest.raises(UserError, match=f"(?s){said}"):
        read_runs(folders)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a=x", "two runs or more"), ("a=x,b", "'b' is not NAME=DIR"), ("a=x,a=y", "'a' appears twice"), ("a=x,=y", "not NAME")],
)
def test_a_list_of_runs_that_cannot_be_read_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        parse_runs(text)


def test_a_wrong_reference_or_split_is_refused(folders):
    with pytest.raises(UserError, match="--reference=y is none of the runs x, dv, sv"):
        main([named(folders), "--reference=y"])
    with pytest.raises(UserError, match=r"predictions.csv \(x\) has no case of split 'val'.*it has test"):
        main([named(folders), "--split=val"])


def test_a_fold_without_a_class_makes_the_difference_undefined_instead_of_wrong(tmp_path):
    one_class = fold(1).take(fold(1).target == 0)
    a, b = run_of("a", [fold(0), one_class]), run_of("b", [fold(0, seed=1), one_class])
    found = compared(a, b)["differences"]["b"]
    assert np.isnan(found["auc"].value) and np.isnan(found["p_value"])
    folders = {run.name: write_workdir(tmp_path / run.name, [run.table], features=False) for run in (a, b)}
    main([named(folders), f"--output={tmp_path / 'out'}"])
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["differences"]["b"]["p_value"] is None
    assert CLASSES == a.table.classes and not (tmp_path / "out" / "figures" / "roc.png").exists()
