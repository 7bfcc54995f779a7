"""One step of the paper's full recipe: three ResNet-18 at 224 pixels, batch 32 (several GB of memory)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from jaxmed import parallel
from jaxmed.train.setup import prepare, prepare_data

ROOT = Path(__file__).parents[2]


def csa_moe_config(arg):
    spec = importlib.util.spec_from_file_location("csa_moe", ROOT / "configs/csa_moe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


@pytest.mark.slow
def test_one_step_of_the_full_recipe(tmp_path, busi_dir):
    config = csa_moe_config("busi")
    config.data.dir = str(busi_dir)
    assert (config.data.size, config.batch_size, config.model.name) == (224, 32, "csa_moe_resnet18")
    run = prepare(config, tmp_path, prepare_data(config, tmp_path))
    with run.train_batches(start=0) as stream:
        state, loss = run.steps.train(run.state, parallel.put_batch(next(stream), run.mesh), np.float32(5e-5))
    assert np.isfinite(float(loss)) and int(state["step"]) == 1
    assert float(state["meters"]["count"]) == 32


@pytest.mark.parametrize(
    ("arg", "model", "experts"),
    [
        ("busi", "csa_moe_resnet18", ("image", "core", "boundary")),
        ("busi,model=moe_resnet18", "moe_resnet18", ("image", "core", "boundary")),
        ("folder,experts=image+boundary", "csa_moe_resnet18", ("image", "boundary")),
        ("busi,model=csa_moe_vgg16,head=mlp", "csa_moe_vgg16", ("image", "core", "boundary")),
        ("busi,model=densenet121", "densenet121", None),
    ],
)
def test_the_papers_tables_are_variants_of_one_config(arg, model, experts):
    config = csa_moe_config(arg)
    assert config.model.name == model and config.model.options.get("experts") == experts
    assert (config.optimizer.learning_rate, config.epochs, config.batch_size) == (5e-5, 30, 32)
    assert config.published.AUC > 90
