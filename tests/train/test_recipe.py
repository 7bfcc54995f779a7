"""The training recipe beside the plain one: schedules, mixing, sampling, rate factors, running means."""

import json

import jax
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.parallel import put_batch, to_host
from jaxmed.train import setup
from jaxmed.train.finish import load_best, sampled_priors
from jaxmed.train.loop import evaluate, fit
from jaxmed.train.state import evaluated
from tests.train import tiny_config

CYCLED = {"learning_rate": np.float32(1e-3), "b1": np.float32(0.9)}


def config(**changes):
    config = tiny_config.get_config("single")
    config.epochs = 2
    config.optimizer.update(schedule="one_cycle", cycle_b1=True, weight_decay=1e-4)
    config.optimizer.factors = {"fc": 0.5}
    config.mix.update(mixup=0.8, cutmix=1.0, smoothing=0.1)
    config.ema = 0.9
    config.data.update(sampler="balanced", epoch_factor=2.0, augmentation="strong")
    config.data.augment = {"crop_scale": (0.7, 1.0), "auto_augment": True, "hflip": 0.5, "erasing": 0.25}
    config.update(changes)
    return config


def prepared(workdir, made=None):
    made = made or config()
    return setup.prepare(made, workdir, setup.prepare_data(made, workdir), quiet=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = prepared(tmp_path_factory.mktemp("recipe"))
    fit(run)
    return run


def test_an_epoch_has_two_draws_per_case_and_the_rate_follows_the_cycle(trained):
    rows = [json.loads(line) for line in (trained.workdir / "metrics.jsonl").read_text().splitlines()]
    cases = len(trained.indices("train"))
    assert rows[0]["step"] == trained.steps_per_epoch == -(-2 * cases // 16)
    assert 0 < rows[0]["lr"] < 3e-3 and rows[1]["lr"] == pytest.approx(0.0, abs=1e-12)
    assert np.isfinite(rows[0]["train/loss"])


def steps(run, start, count):
    with run.train_batches(start=start) as stream:
        for _ in range(count):
            run.state, _ = run.steps.train(run.state, put_batch(next(stream), run.mesh), **CYCLED)
    return run


def test_two_steps_and_a_restored_run_with_two_more_give_the_bits_of_four(tmp_path):
    run = steps(prepared(tmp_path), 0, 2)
    run.checkpoints.save(run.state, {}, keep=set())
    run.checkpoints.wait()
    whole = to_host(steps(run, 2, 2).state)
    run.state = run.checkpoints.restore(2, run.state, run.mesh)
    resumed = to_host(steps(run, 2, 2).state)
    for one, two in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, two)


def test_evaluation_looks_at_the_running_mean(trained):
    parameters, mean = trained.state["params"]["fc"]["kernel"], trained.state["ema"]["fc"]["kernel"]
    assert not np.array_equal(parameters, mean)
    assert evaluated(trained.state)["params"] is trained.state["ema"]
    before = evaluate(trained, "val")["prob_malignant"]
    load_best(trained)
    assert np.isfinite(before).all() and "ema" in trained.state


def test_a_factor_of_zero_stops_a_part(tmp_path):
    still = config()
    still.optimizer.factors = {"convs": 0.0}
    run = prepared(tmp_path, still)
    before = to_host(run.state["params"])
    with run.train_batches(start=0) as stream:
        after, _ = run.steps.train(run.state, put_batch(next(stream), run.mesh), **CYCLED)
    np.testing.assert_array_equal(before["convs"]["0"]["kernel"], after["params"]["convs"]["0"]["kernel"])
    assert not np.array_equal(before["fc"]["kernel"], after["params"]["fc"]["kernel"])


def test_the_priors_of_a_balanced_sampler_are_those_of_draws_and_of_cases(trained):
    priors = sampled_priors(trained)
    labels = np.array([trained.source.cases[i].label for i in trained.indices("train")])
    assert priors["learned"] == [0.5, 0.5]
    np.testing.assert_allclose(priors["true"], np.bincount(labels) / len(labels))


@pytest.mark.parametrize("section, change, message", [
    ("optimizer", {"schedule": "steps"}, "schedule='steps' is unknown"),
    ("data", {"sampler": "random"}, "sampler='random' is none of"),
    ("data", {"augmentation": "wild"}, "augmentation='wild' is none of"),
    ("mix", {"mixup": -1.0}, "mix.mixup=-1.0 must be 0 or more"),
])  # fmt: skip
def test_what_does_not_exist_is_said_before_training(tmp_path, section, change, message):
    wrong = config()
    wrong[section].update(change)
    with pytest.raises(UserError, match=message):
        fit(prepared(tmp_path, wrong))
