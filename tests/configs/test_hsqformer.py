"""configs/hsqformer.py: every argument gives a network and the recipe of the paper."""

import importlib.util
from pathlib import Path

import pytest
from flax import nnx

from jaxmed import count
from jaxmed.errors import UserError
from jaxmed.train.kinds import kind_of
from jaxmed.train.setup import build_model, make_recipe

ROOT = Path(__file__).parents[2]


def get_config(arg=None):
    spec = importlib.util.spec_from_file_location("hsqformer", ROOT / "configs/hsqformer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg)


@pytest.mark.parametrize("size", ["s", "b", "l"])
def test_the_sizes_have_the_papers_recipe(size):
    config = get_config(f"folder,size={size}")
    assert (config.data.size, config.optimizer.learning_rate, config.mix.mixup) == (224, 1.5e-4, 0.8)
    assert config.ema == (0.9999 if size == "l" else 0.0) and config.published["model"].startswith(f"hsqformer_{size}")
    assert make_recipe(config).factors == {"swintransformer": 2 / 3, "convnext": 2 / 3}


def test_the_config_builds_the_counted_network():
    model = nnx.eval_shape(lambda: build_model(get_config("folder"), 2))
    assert count(model) == 160_904_172


def test_the_first_command_trains_a_small_network_whose_routers_are_metered():
    config = get_config()
    assert (config.data.source, config.data.size, config.published.to_dict()) == ("phantom_liver", 64, {})
    model = nnx.eval_shape(lambda: build_model(config, 2))
    task = kind_of(config).task(model)
    assert task.routers == (("projector", 4, 4), ("query", 4, 4))
    assert {"router_load_query3_0", "router_entropy_projector0"} <= set(task.meters)


@pytest.mark.parametrize("arg", ["size=xl", "heads=3"])
def test_unknown_arguments_are_named(arg):
    with pytest.raises(UserError, match="size|heads"):
        get_config(arg)
