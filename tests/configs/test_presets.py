"""What a run says about its reduced preset is what it did, also where the command line changed a number."""

import runpy
from pathlib import Path

import pytest

from jaxmed.config import preset_text

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_preset_names_the_runs_own_numbers(path):
    config = runpy.run_path(str(path))["get_config"]()
    before = preset_text(config)
    assert f"{config.epochs} epochs" in before and "{" not in before
    config.epochs, config.optimizer.learning_rate = 87, 1.25e-3
    two_sides = isinstance(config.data.size, tuple)
    config.data.size = (96, 48) if two_sides else 96
    after = preset_text(config)
    assert "87 epochs" in after and "learning rate 0.00125" in after
    assert f"96 x {48 if two_sides else 96} pixels" in after
