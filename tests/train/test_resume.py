"""Runs through the command line, cut off in every way, must end with the bits of a run that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(workdir: Path, *extra: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "jaxmed.main", "--config=tests/train/tiny_config.py", f"--workdir={workdir}", *extra]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen, code: int = 0) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


def results(workdir: Path) -> tuple:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    timing = ("seconds", "images_per_second", "data_wait")
    history = [{k: v for k, v in row.items() if k not in timing} for row in rows]
    return history, (workdir / "predictions.csv").read_text(), (workdir / "metrics.json").read_text()


def saved_step(workdir: Path) -> int:
    """The newest complete checkpoint."""
    return max((int(path.parent.name) for path in workdir.glob("checkpoints/*/host.json")), default=0)


def wait_for_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if saved_step(workdir) >= step:
            return
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    output = finish(start(workdir))
    return workdir, output


def test_a_run_ends_with_a_table_and_every_file_of_the_workdir(uninterrupted):
    workdir, output = uninterrupted
    for name in ("config.json", "splits.csv", "metrics.jsonl", "predictions.csv", "metrics.json", "report.html", "run.json"):
        assert (workdir / name).exists(), name
    assert "Sensitivity" in output and f"report: {workdir / 'report.html'}" in output
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 4
    assert "random start" in output


def test_sigkill_in_the_middle_and_a_restart_give_the_same_bits(uninterrupted, tmp_path):
    process = start(tmp_path)
    wait_for_step(tmp_path, 2, process)
    process.kill()
    process.communicate()
    output = finish(start(tmp_path, "--config.data.workers=2"))
    assert "resuming" in output
    assert results(tmp_path) == results(uninterrupted[0])


def test_sigterm_saves_exits_143_and_the_same_command_resumes(uninterrupted, tmp_path):
    process = start(tmp_path)
    wait_for_step(tmp_path, 1, process)
    process.send_signal(signal.SIGTERM)
    output = finish(process, code=143)
    assert "the same command resumes" in output
    finish(start(tmp_path))
    assert results(tmp_path) == results(uninterrupted[0])


def test_a_finished_run_is_not_trained_again_and_another_config_is_refused(uninterrupted, tmp_path):
    workdir, _ = uninterrupted
    before = results(workdir)
    assert "training is complete" in finish(start(workdir))
    assert results(workdir) == before
    output = finish(start(workdir, "--config.batch_size=8"), code=2)
    assert "batch_size: 16 there, 8 now" in output and "Traceback" not in output


@pytest.mark.slow
def test_five_kills_at_random_moments_give_the_same_bits(tmp_path):
    long = ("--config.epochs=8", "--config.checkpoint_minutes=0.002")
    finish(start(tmp_path / "whole", *long))
    rng, kills = random.Random(0), 0
    while kills < 5:
        process = start(tmp_path / "cut", *long)
        wait_for_step(tmp_path / "cut", min(saved_step(tmp_path / "cut") + 3, 35), process)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        kills += 1
    finish(start(tmp_path / "cut", *long))
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
