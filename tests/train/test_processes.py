"""Two processes on one machine, joined over loopback, must train like one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def launch(workdir: Path, processes: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jaxmed.main", "--config=tests/train/tiny_config.py", f"--workdir={workdir}"]
    command += ["--config.epochs=2", f"--config.distributed={processes > 1}"]
    shared = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(processes), "JAX_PLATFORMS": "cpu"
    }
    running = [
        subprocess.Popen(command, cwd=ROOT, env=shared | {"JAX_PROCESS_ID": str(i)}, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
        for i in range(processes)
    ]
    try:
        for process in running:
            output, _ = process.communicate(timeout=400)
            assert process.returncode == 0, output
    finally:
        for process in running:
            process.kill()


@pytest.mark.slow
def test_two_processes_give_the_losses_and_predictions_of_one(tmp_path):
    for processes in (1, 2):
        launch(tmp_path / str(processes), processes)
    one, two = (
        [json.loads(line) for line in (tmp_path / str(n) / "metrics.jsonl").read_text().splitlines()] for n in (1, 2)
    )
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        for key in ("train/loss", "val/loss", "train/gate_core"):
            np.testing.assert_allclose(a[key], b[key], rtol=1e-4, err_msg=key)  # float32 sums in another order
    predictions = [(tmp_path / str(n) / "predictions.csv").read_text().splitlines() for n in (1, 2)]
    assert [row.split(",")[0] for row in predictions[0]] == [row.split(",")[0] for row in predictions[1]]
