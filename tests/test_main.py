"""Mistakes on the command line end as one readable line and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = "--config=configs/csa_moe.py"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "--config is missing"),
        (["--config=configs/nope.py"], "configs/nope.py"),
        (["--config=jaxmed/config.py"], "--config has no function get_config"),
        ([CONFIG, "--config.data.bogus=1"], "--config.data.bogus=1 is not a key of this config"),
        ([CONFIG, "--config.data.size=32", "--config.model.size=1"], "error: --config.model.size=1 is not a key"),
        ([CONFIG, "--config.data.sizes=1"], "--config.data.sizes=1 is not a key of this config (did you mean size?)"),
        ([CONFIG + ":phantom,foo"], "'foo' is not key=value"),
        ([CONFIG + ":busi,model=resnet77"], "no model is named 'resnet77'"),
        ([CONFIG + ":busi", "--mode=check_data"], "data.dir"),
        ([CONFIG, "--ensemble=runs/a"], "--ensemble belongs to --mode=eval and --mode=predict, not to train"),
    ],
)
def test_a_mistake_is_one_line(words, expected, tmp_path):
    command = [sys.executable, "-m", "jaxmed.main", *words, f"--workdir={tmp_path}/run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr and "Traceback" not in done.stderr
