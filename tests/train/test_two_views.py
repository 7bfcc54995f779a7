"""Two-view runs through the verbs of the command line, on phantoms and networks that train in seconds."""

import csv
import dataclasses
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.backbones.swin_pruned import kept_windows
from jaxmed.data.breast import to_uint8
from jaxmed.data.phantom_pairs import PhantomPairsSource
from jaxmed.errors import UserError
from jaxmed.parallel import put_batch, to_host
from jaxmed.tasks.multiview import class_weights
from jaxmed.train import loop, modes, setup
from jaxmed.train.checkpoint import Checkpoints
from jaxmed.train.kinds import kind_of
from jaxmed.train.loop import fit
from jaxmed.train.show import show
from jaxmed.train.warm_up import warm_up
from jaxmed.tree import flatten
from tests.train.tiny_pairs_config import get_config

SIZE = (64, 32)


def config(arg=None, **data):
    config = get_config(arg)
    config.data.update(data)
    return config


def built_once(steps, size):
    """Lets `steps` take again a step that it had before; returns the numbers of windows for which it is asked for one."""
    asked, made, build = [], {}, steps._compile_train

    def compile_train():
        asked.append(str(kept_windows(nnx.merge(steps.graph, steps.template), size)))
        if asked[-1] not in made:
            build()
        steps.train = made.setdefault(asked[-1], steps.train)

    steps._compile_train = compile_train
    return asked


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """(run before its first step, its state then, what `built_once` gives); its compiled steps serve several tests."""
    given, workdir = config(), tmp_path_factory.mktemp("run")
    setup.claim_workdir(given, workdir)
    run = setup.prepare(given, workdir, setup.prepare_data(given, workdir))
    return run, jax.tree.map(np.asarray, to_host(run.state)), built_once(run.steps, SIZE)


@pytest.fixture(scope="module")
def trained(start):
    """(workdir, lines of the log, numbers of windows for which steps were compiled)."""
    run, _, asked = start
    lines = []
    run.log = lines.append
    fit(run)
    asked = list(asked)
    modes.finish(run)
    return run.workdir, lines, asked


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


# --- training and what it writes


def test_every_breast_has_one_row_with_its_study_and_side(trained):
    workdir, source = trained[0], kind_of(config()).open()
    split = {row["case_id"]: row["split"] for row in rows(workdir / "splits.csv")}
    table = rows(workdir / "predictions.csv")
    assert sorted(row["case_id"] for row in table) == sorted(name for name, part in split.items() if part in ("val", "test"))
    known = {item.case_id: item for item in source.breasts}
    for row in table:
        item = known[row["case_id"]]
        assert (row["study_id"], row["side"], row["patient_id"]) == (item.study_id, item.side, item.patient_id)
        assert row["target"] == source.classes[item.label]
        assert float(row["prob_non-malignant"]) + float(row["prob_malignant"]) == pytest.approx(1.0, abs=1e-6)


def test_the_report_speaks_of_breasts_and_resamples_patients(trained):
    report = (trained[0] / "report.html").read_text()
    assert "breasts in" in report and "Breasts" in report and "by the worse breast" not in report
    assert "resamples of patients" in report
    metrics = json.loads((trained[0] / "metrics.json").read_text())["test"]
    assert metrics["studies"]["value"] < metrics["cases"]["value"] and "label/left/auc" in metrics


def test_frozen_stages_keep_their_bits_and_own_no_optimiser_state(trained, start):
    run, before, _ = start
    assert {path.split(".")[1] for path in flatten(before["frozen"])} == {"patch_embed", "layers"}
    after = to_host(run.state["frozen"])
    jax.tree.map(np.testing.assert_array_equal, before["frozen"], after)
    moments = [flatten(part.mu) for part in run.state["opt"] if hasattr(part, "mu")]
    assert moments and all(part.keys() == flatten(before["params"]).keys() for part in moments)


def test_class_weights_are_those_of_the_training_breasts(start):
    run = start[0]
    labels = np.array([run.source.cases[row].label for row in run.indices("train")])
    assert run.task.class_weights == class_weights(labels, 2)
    assert run.task.class_weights == pytest.approx([len(labels) / (2 * np.sum(labels == k)) for k in (0, 1)])


# --- the pruning ratio


def test_the_step_is_compiled_anew_only_where_an_epoch_keeps_another_number_of_windows(trained):
    _, lines, asked = trained
    told = [line for line in lines if "of its final share of windows" in line]
    assert [line.split(" of ")[0] for line in told] == ["epoch 1: training prunes 0%", "epoch 2: training prunes 100%"]
    kept = [(8,), (2,)], [(4,), (1,)]  # of 4 x 2 and 2 x 1 windows, in each of the two streams
    assert asked == [str(2 * stages) for stages in kept]


def test_evaluation_prunes_by_the_final_ratio_at_any_epoch_and_training_does_not(trained, start):
    run, before, asked = start
    steps = run.steps
    batch = next(iter(run.eval_batches(run.indices("val"))))
    state = {part: before[part] for part in ("params", "frozen", "stats")}
    batch, answers = put_batch(batch, run.mesh), []
    for _ in range(2):  # as it was compiled in the first epoch, and as it is compiled in the last one
        answers.append(np.asarray(steps.evaluate(state, batch)["prob_malignant"]))
        steps.set_warm_up((1.0,) * 4, SIZE)
        steps.evaluate.clear_cache()
    np.testing.assert_array_equal(*answers)
    losses = []
    for factor in (0.0, 1.0):
        steps.set_warm_up((factor,) * 4, SIZE)
        losses.append(float(steps.train(jax.tree.map(jnp.array, before), batch, jnp.float32(0))[1]))
    assert losses[0] != losses[1]
    before = len(asked)
    assert not steps.set_warm_up((0.99,) * 4, SIZE) and len(asked) == before  # as many windows as with 1: nothing to compile


def test_a_resumed_run_has_the_ratio_of_its_epoch_and_gives_the_same_bits(trained, start, tmp_path, monkeypatch):
    workdir, (run, before, _), lines = trained[0], start, []
    fresh = dataclasses.replace(run, workdir=tmp_path, checkpoints=Checkpoints(tmp_path / "checkpoints"), log=lines.append)
    fresh.state = jax.tree.map(jnp.array, before)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):  # stopped in the middle of the second epoch
        patch.setattr(loop.Preemption, "requested", lambda self, step: step == run.steps_per_epoch + 1)
        fit(fresh)
    run.steps.set_warm_up((0.0,) * 4, SIZE)  # as a new process starts: with another ratio than that of the epoch
    lines.clear()
    fit(fresh)
    assert [line for line in lines if "final share" in line][0].startswith("epoch 2: training prunes 100%")
    texts = [(place / "metrics.jsonl").read_text() for place in (workdir, tmp_path)]
    whole, again = ([json.loads(line) for line in text.splitlines()] for text in texts)
    keys = ("epoch", "step", "train/loss", "val/loss", "val/auc")
    assert [[row[key] for key in keys] for row in again] == [[row[key] for key in keys] for row in whole]


# --- other modes and other networks


def test_a_table_of_the_users_pictures_is_predicted_breast_by_breast(trained, tmp_path):
    source, lines = PhantomPairsSource({"num_cases": 3, "phantom_size": 64}), ["study_id,view,image"]
    for row, item in enumerate(source.breasts):
        for view, pixels in source.read(row).items():
            name = f"{item.study_id} {item.side} {view}.png"
            cv2.imwrite(str(tmp_path / name), pixels)
            lines.append(f"{item.study_id},{item.side[0].upper()}_{view.upper()},{name}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    modes.predict(config(), trained[0], str(tmp_path / "cases.csv"), str(tmp_path))
    found = rows(tmp_path / "predictions.csv")
    assert [(row["study_id"], row["side"]) for row in found] == [(item.study_id, item.side) for item in source.breasts]
    assert {row["target"] for row in found} == {""}


def test_the_picture_of_a_row_is_cc_beside_mlo(start):
    run = start[0]
    shown = run.kind.picture(run.source, run.data.cache, run.source.breasts[3].case_id)
    np.testing.assert_array_equal(shown, to_uint8(np.hstack(run.data.cache.load(3))))


def test_a_network_of_single_images_looks_at_each_view(tmp_path):
    given = config("pairs,encoder=tiny", bits=16)
    run = setup.prepare(given, tmp_path, setup.prepare_data(given, None), quiet=True)
    assert warm_up(run.steps, given, epoch=0) == ""  # nothing to prune, nothing to compile again
    batch = put_batch(next(run.train_batches(0)), run.mesh)
    assert batch["cc"].dtype == jnp.uint16
    case = jax.eval_shape(run.steps._evaluate, run.state, batch)
    assert case["prob_malignant"].shape == (8,) and case["features"].shape == (8, 2 * 16)
    state, loss = jax.eval_shape(run.steps._train, run.state, batch, jnp.float32(1e-3))
    assert loss.shape == () and jax.tree.structure(state) == jax.tree.structure(run.state)
    given.model.name = "csa_moe_resnet18"
    with pytest.raises(UserError, match="looks at image, core, boundary: choose a network of two views"):
        nnx.eval_shape(lambda: setup.build_model(given, 2))


def test_show_prints_parameters_flops_and_memory(capsys):
    show(config("pairs,encoder=tiny"))
    out = capsys.readouterr().out
    assert "GFLOPs" in out and "GiB temporary" in out and "encoder " in out and "frozen)" in out


def test_check_data_looks_at_every_breast(capsys):
    assert modes.check_data(config(num_cases=6)) == 0
    assert "breasts, classes non-malignant, malignant" in capsys.readouterr().out
