"""Four-view runs through the verbs of the command line, on phantoms and an encoder that trains in seconds."""

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.split_table import Split
from jaxmed.data.studies import BIRADS, LABELS, VIEWS, StudySource
from jaxmed.errors import UserError
from jaxmed.parallel import put_batch
from jaxmed.tasks.multiview import class_weights
from jaxmed.train import modes, setup
from jaxmed.train.checkpoint import Checkpoints
from jaxmed.train.kinds import kind_of
from jaxmed.train.loop import fit
from tests.data.dicom_files import half_bright, write_dicom
from tests.train import tiny_views_config

ROOT = Path(__file__).parents[2]
SIDES = ("left", "right")
LEFT_OUT = {  # views that studies of the user's CSV do not have
    "whole": (), "one": ("L_CC",), "side": ("L_CC", "L_MLO"), "three": ("L_CC", "L_MLO", "R_CC"), "cross": ("L_CC", "R_MLO"),
}  # fmt: skip


def config(**data):
    config = tiny_views_config.get_config()
    config.data.update(data)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What one `--mode=train` prepared, trained and tested; its compiled steps serve several tests."""
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "prepare", lambda *args: made.append(setup.prepare(*args)) or made[0])
        modes.train(config(), tmp_path_factory.mktemp("trained"))
    return made[0]


@pytest.fixture(scope="module")
def trained(run):
    return run.workdir


def again(run, workdir, **changes):
    """The run in an empty workdir, with a state that may be used up."""
    state = jax.tree.map(jnp.copy, run.state)
    return dataclasses.replace(run, workdir=workdir, checkpoints=Checkpoints(workdir / "checkpoints"), state=state, **changes)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV without labels of PNG phantoms with views left out."""
    root, source = tmp_path_factory.mktemp("csv"), PhantomMammoSource({"num_cases": 16, "phantom_size": 64})
    complete = [row for row, study in enumerate(source.studies) if study.present.all()]
    lines = ["study_id,view,image"]
    for row, (study, gone) in zip(complete, LEFT_OUT.items(), strict=False):
        for view, pixels in zip(VIEWS, source.read(row)["views"], strict=True):
            if view not in gone:
                cv2.imwrite(str(root / f"{study}_{view}.png"), pixels)
                lines.append(f"{study},{view},{study}_{view}.png")
    (root / "cases.csv").write_text("\n".join(lines) + "\n")
    return root / "cases.csv"


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def known_breasts(source, studies=None):
    """case_ids of the breasts that have a picture and a target, from the table of studies alone."""
    return sorted(
        f"{study.study_id}:{side}"
        for study in source.studies
        for k, side in enumerate(SIDES)
        if (studies is None or study.study_id in studies)
        and study.present[2 * k : 2 * k + 2].any()
        and (study.label[k] >= 0 or study.birads[k] in source.birads_classes)
    )


def assert_probabilities(table):
    for row in table:
        for columns in (("prob_", LABELS), ("birads_prob_", ("BI-RADS 1", "BI-RADS 3", "BI-RADS 5"))):
            assert sum(float(row[columns[0] + name]) for name in columns[1]) == pytest.approx(1.0, abs=1e-6)


# --- training and what it writes


def test_every_breast_with_a_picture_and_a_known_target_has_one_row(trained):
    table, split = rows(trained / "predictions.csv"), rows(trained / "splits.csv")
    source = kind_of(config()).open()
    for name in ("val", "test"):
        studies = {row["case_id"] for row in split if row["split"] == name}
        found = [row for row in table if row["split"] == name]
        assert sorted(row["case_id"] for row in found) == known_breasts(source, studies)
        assert len(found) < 2 * len(studies)  # some breasts lie outside the BI-RADS subset
    targets = {f"{study.study_id}:{side}": (LABELS[study.label[k]], f"BI-RADS {study.birads[k]}")
               for study in source.studies for k, side in enumerate(SIDES)}  # fmt: skip
    for row in table:
        assert (row["target"], row["birads_target"]) == targets[row["case_id"]]


def test_probabilities_sum_to_one_and_both_breasts_of_a_study_share_its_gate(trained):
    table, gates = rows(trained / "predictions.csv"), {}
    assert_probabilities(table)
    for row in table:
        gates.setdefault(row["study_id"], []).append([float(row[f"gate_{view}"]) for view in VIEWS])
    assert max(len(found) for found in gates.values()) == 2
    for found in gates.values():
        assert sum(found[0]) == pytest.approx(1.0, abs=1e-6) and all(weights == found[0] for weights in found)


def test_metrics_of_every_task_and_side_and_a_report_are_written(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert list(metrics) == ["test", "val"]
    for task in ("label", "birads"):
        for side in (*SIDES, "both"):
            assert f"{task}/{side}/auc" in metrics["test"] and metrics["test"][f"{task}/{side}/cases"]["value"] > 0
    report = (trained / "report.html").read_text()
    assert "BI-RADS" in report and "R_MLO" in report
    run = json.loads((trained / "run.json").read_text())
    assert run["tasks"] == ["label", "birads"] and run["data"]["source"] == "phantom_mammo"


def test_the_training_history_has_both_tasks_and_the_studies_with_missing_views_were_in_it(trained):
    history = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    keys = ("train/loss", "train/label_loss", "train/birads_loss", "val/loss", "val/auc", "val/label_auc", "val/gate_R_CC")
    assert len(history) == 2 and all(np.isfinite([row[key] for key in keys]).all() for row in history)
    train = {row["case_id"] for row in rows(trained / "splits.csv") if row["split"] == "train"}
    missing = [4 - study.present.sum() for study in kind_of(config()).open().studies if study.study_id in train]
    assert {1, 2} <= set(missing)


def test_a_finished_run_repeats_its_metrics_without_training(trained, capsys):
    names = ("metrics.json", "predictions.csv", "metrics.jsonl")
    before = [(trained / name).read_text() for name in names]
    modes.train(config(), trained)
    assert [(trained / name).read_text() for name in names] == before
    out = capsys.readouterr().out
    assert "training is complete: 2 epochs" in out and "epoch   1/2" not in out


def test_the_papers_protocol_tests_on_the_cases_that_chose_the_epoch_and_says_so(trained, tmp_path):
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    shutil.copy(trained / "metrics.jsonl", tmp_path)
    paper = config(paper_protocol=True)
    modes.train(paper, tmp_path)
    assert {row["split"] for row in rows(tmp_path / "predictions.csv")} == {"test"}
    assert list(json.loads((tmp_path / "metrics.json").read_text())) == ["test"]
    assert {row["split"] for row in rows(tmp_path / "splits.csv")} == {"train", "test"}
    data = json.loads((tmp_path / "run.json").read_text())["data"]
    assert any("the test cases also chose the epoch" in text for text in data["warnings"])
    split = setup.prepare_data(paper, tmp_path).split
    np.testing.assert_array_equal(split.indices("val"), split.indices("test"))


# --- prediction and other data


def test_studies_without_one_two_or_three_views_are_predicted_and_sides_without_pictures_get_no_row(trained, table, tmp_path):
    modes.predict(config(), trained, str(table), str(tmp_path))
    found = rows(tmp_path / "predictions.csv")
    expected = {f"{study}:{side}" for study in LEFT_OUT for side in SIDES} - {"side:left", "three:left"}
    assert {row["case_id"] for row in found} == expected and len(found) == len(expected)
    assert {row["split"] for row in found} == {"predict"} and {row["target"] + row["birads_target"] for row in found} == {""}
    assert_probabilities(found)
    for row in found:
        assert row["views"].split("+") == [view for view in VIEWS if view not in LEFT_OUT[row["study_id"]]]


def test_eval_on_other_data_keeps_the_birads_categories_that_were_learned(trained, tmp_path):
    other = config(phantom_seed=4, num_cases=16, birads_subset=(1, 5))
    modes.evaluate_checkpoint(other, trained, "all", str(tmp_path))
    found = rows(tmp_path / "predictions.csv")
    source = kind_of(config(phantom_seed=4, num_cases=16)).open()
    assert sorted(row["case_id"] for row in found) == known_breasts(source)
    assert "BI-RADS 3" in {row["birads_target"] for row in found}
    assert json.loads((tmp_path / "config.json").read_text())["data"]["birads_subset"] == [1, 3, 5]
    assert other.data.birads_subset == (1, 5)  # the caller's config stays as it was


# --- what a batch learns from


def batch_of(run, source, indices):
    elements = [run.kind.loader(source, run.data.cache, run.steps).plain()(row) for row in indices]
    return put_batch({key: np.stack([element[key] for element in elements]) for key in elements[0]}, run.mesh)


def relabelled(source, index, label, birads):
    """The same studies, of which one has other labels in the table."""
    studies = list(source.studies)
    studies[index] = dataclasses.replace(studies[index], label=label, birads=birads)
    return StudySource(studies, (), {"birads_subset": source.birads_classes})


def test_labels_of_a_side_without_pictures_change_neither_loss_nor_gradients(run, tmp_path):
    source = run.source
    index = next(k for k, study in enumerate(source.studies) if not study.present[:2].any())
    right, rows = (source.studies[index].label[1], source.studies[index].birads[1]), [index, *range(7)]
    results = []
    for label, birads in (((0, right[0]), (1, right[1])), ((1, right[0]), (5, right[1])), ((0, 1 - right[0]), (1, right[1]))):
        batch = batch_of(run, relabelled(source, index, label, birads), rows)
        state, loss = run.steps.train(again(run, tmp_path).state, batch, learning_rate=jnp.float32(1e-3))
        results.append((float(loss), [np.asarray(leaf) for leaf in jax.tree.leaves(state["opt"])]))  # Adam's moments
    (loss, moments), (same_loss, same_moments), (other_loss, other_moments) = results
    assert np.isfinite(loss) and loss == same_loss != other_loss
    assert all(np.array_equal(a, b) for a, b in zip(moments, same_moments, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(moments, other_moments, strict=True))


@pytest.mark.parametrize("keep_label", [False, True])
def test_a_breast_outside_the_subset_keeps_its_label_only_if_asked(run, keep_label):
    given = config(birads_subset=(1, 5), keep_label=keep_label)
    kind = kind_of(given)
    source, everything = kind.open(), {study.study_id: study for study in kind_of(config(birads_subset=BIRADS)).open().studies}
    targets = kind.loader(source, run.data.cache, run.steps).targets
    outside = 0
    for row, study in enumerate(source.studies):
        whole = everything[study.study_id]
        for k, side in enumerate(SIDES):
            inside = whole.birads[k] in (1, 5)
            assert targets[f"{side}_birads"][row] == ({1: 0, 5: 1}[whole.birads[k]] if inside else -1)
            assert targets[f"{side}_label"][row] == (whole.label[k] if inside or keep_label else -1)
            outside += not inside and whole.label[k] >= 0
    assert outside and kind.model_options() == {"num_birads": 2}


def test_class_weights_are_those_of_the_training_breasts(run):
    source, train = run.source, run.indices("train")
    labels = [[source.studies[k].label[side] for k in train] for side in (0, 1)]
    birads = [[{1: 0, 3: 1, 5: 2}.get(source.studies[k].birads[side], -1) for k in train] for side in (0, 1)]
    expected = {"label": class_weights(np.array(labels), 2), "birads": class_weights(np.array(birads), 3)}
    assert {task.name: task.class_weights for task in run.task.tasks} == expected
    assert [task.classes for task in run.task.tasks] == [LABELS, ("BI-RADS 1", "BI-RADS 3", "BI-RADS 5")]
    plain = config()
    plain.loss.class_weights = False
    model = setup.build_model(plain, 2)
    assert {task.class_weights for task in kind_of(plain).task(model, source, train).tasks} == {()}


# --- what cannot work


def test_training_on_studies_without_labels_says_what_to_do(table):
    unlabelled = config(source="folder_views", dir=str(table))
    with pytest.raises(UserError, match=r"'folder_views': no breast has a label or one of .*\(1, 3, 5\).*--mode=predict"):
        setup.prepare_data(unlabelled, None)
    assert len(kind_of(unlabelled).open(predict=True)) == len(LEFT_OUT)


def test_a_network_of_single_images_is_refused():
    wrong = config()
    wrong.model.name, wrong.model.options = "resnet18", {}
    with pytest.raises(UserError, match=r"'resnet18' does not look at four views: choose one of multiview_\*"):
        setup.build_model(wrong, 2)


def test_an_unknown_task_names_those_that_there_are():
    wrong = config()
    wrong.task = "four_vews"
    with pytest.raises(UserError, match="config.task='four_vews' is unknown; choose one of classification, four_views"):
        kind_of(wrong)


@pytest.mark.parametrize("part", ["monitor", "plateau"])
def test_an_unknown_monitor_names_those_that_there_are(run, tmp_path, part):
    wrong = config()
    (wrong if part == "monitor" else wrong.plateau).monitor = "val/auroc"
    with pytest.raises(UserError, match="monitor 'val/auroc' is no key of metrics.jsonl; choose one of .*val/label_auc"):
        fit(again(run, tmp_path, config=wrong))


def test_a_monitor_that_is_not_defined_cannot_choose_an_epoch(run, tmp_path):
    wrong, benign = config(), [max(study.label) < 1 for study in run.source.studies]
    wrong.monitor = "val/label_auc"
    split = Split([row | {"split": "val"} if row["split"] != "test" and calm else row | {"split": "train"}
                   for row, calm in zip(run.data.split.rows, benign, strict=True)])  # fmt: skip
    divided = dataclasses.replace(run.data, split=split)
    with pytest.raises(UserError, match="val/label_auc is not defined on this validation split.*val/loss.*data.val_fraction"):
        fit(again(run, tmp_path, config=wrong, data=divided))


# --- the user's DICOM files, through the whole command


def dicom_folder(root, faults):
    """One sound study, and studies of one file with a fault each."""
    for k, view in enumerate(VIEWS):
        pixels = half_bright((64, 48), right=view[0] == "R", top=1000 + 200 * k)
        write_dicom(root / f"sound_{view}.dcm", pixels, ImageLaterality=view[0], ViewPosition=view[2:])
    for k, fault in enumerate(faults):
        own = {"StudyInstanceUID": f"1.2.{k}", "PatientID": f"q{k}"}
        tags = {"no_pixels": {"PixelData": None}, "ct": {"Modality": "CT"}, "no_side": {"ImageLaterality": None}}.get(fault, {})
        path = write_dicom(root / f"{fault}.dcm", half_bright((64, 48), top=3000), **own, **tags)
        if fault == "truncated":
            path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])


@pytest.mark.parametrize(("faults", "code"), [
    ({"ct": "modality 'CT' is not mammography", "no_side": "left or the right breast"}, 2),
    ({"truncated": "may be truncated", "no_pixels": "no pixel data"}, 1),
])
def test_check_data_names_every_bad_dicom_file_and_what_is_wrong_with_it(tmp_path, faults, code):
    dicom_folder(tmp_path, faults)
    command = [sys.executable, "-m", "jaxmed.main", "--config=configs/cnn_vssm.py:folder_views", "--mode=check_data",
               f"--config.data.dir={tmp_path}", "--config.data.size=64"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    lines = (done.stdout + done.stderr).splitlines()
    assert done.returncode == code and "Traceback" not in done.stderr, lines
    for fault, reason in faults.items():
        assert any(str(tmp_path / f"{fault}.dcm") in line and reason in line for line in lines), lines
    assert not any("sound" in line for line in lines)
