"""configs/x_pruning.py: every row of the paper's tables resolves, learns at the documented rates, and has its size."""

import importlib.util
import itertools
from pathlib import Path

import pytest
from flax import nnx

import jaxmed
from jaxmed.data.breasts import PAIR, SIZE
from jaxmed.errors import UserError
from jaxmed.registry import model_options
from jaxmed.train.groups import rate_factors
from jaxmed.train.kinds import kind_of
from jaxmed.train.setup import build_model, make_recipe
from jaxmed.train.state import split_model
from jaxmed.tree import flatten

SOURCES = ("phantom_pairs", "vindr_mammo", "cbis_ddsm", "folder_pairs")
TRAINED = {  # parameters that learn, with a head of two classes
    "sv_res18": 11_176_512 + 1_026, "sv_vit": 26_027_064 + 1_538, "sv_sparsevit": 26_027_064 + 1_538, "gmic": 14_110_322,
    "dv_res18": 22_353_024 + 2_050, "dv_vit": 52_054_128 + 3_074, "dv_sparsevit": 52_054_128 + 3_074, "dv_gmic": 28_220_642,
    "x_pruning": 69_786_482, "x_res18": 41_661_826,
}  # fmt: skip
OPEN = {"prune_ratio", "score", "rescore", "frozen_stages", "remat", "drop_path", "dropout", "head", "fusion_dim"}


@pytest.fixture(scope="module")
def x_pruning():
    spec = importlib.util.spec_from_file_location("x_pruning", Path(__file__).parents[2] / "configs/x_pruning.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def abstract(config):
    return nnx.eval_shape(lambda: build_model(config, len(config.data.classes)))


def test_every_source_and_model_resolves_to_a_run_of_its_own(x_pruning):
    names = set()
    for source, model in itertools.product(SOURCES, TRAINED):
        config = x_pruning.get_config(f"{source},model={model}")
        assert (config.task, config.data.source, config.cv.folds) == ("two_views", source, 5)
        assert set(config.model.options) <= set(model_options(config.model.name))
        assert ("reduced preset" in config.preset) == (source == "phantom_pairs")
        names.add(config.name)
    assert len(names) == len(SOURCES) * len(TRAINED)


@pytest.mark.parametrize("model", TRAINED)
def test_rows_of_the_tables_have_their_number_of_parameters_and_rates(x_pruning, model):
    config = x_pruning.get_config(f"cbis_ddsm,model={model}")
    network = abstract(config)
    assert network.input_names == PAIR and jaxmed.count(network, trainable=True) == TRAINED[model]
    params = split_model(network)["params"]
    rates = flatten(rate_factors(params, make_recipe(config).factors))
    new = {path.split(".")[-2] for path, factor in rates.items() if factor == 1.0}
    if model.endswith("gmic"):
        assert set(rates.values()) == {1.0}
    else:  # 2e-5 for what ImageNet knows, 1e-4 for heads, fusion and cross-attention
        assert set(rates.values()) == {0.2, 1.0} and new & {"head", "fc"}
        parts = ("exchange", "fusion", "project", "head")
        assert all(factor == 1.0 for path, factor in rates.items() if path.startswith(parts))
        assert all(factor == 0.2 for path, factor in rates.items() if ".layers." in path or ".layer4." in path)
    assert kind_of(config).example(network, 4)["cc"].shape == (4, *SIZE, 1)


def test_what_the_paper_leaves_open_is_a_key(x_pruning):
    config = x_pruning.get_config("cbis_ddsm")
    crossing = {name for name in model_options("x_pruning") if name.startswith("ctb_")}
    assert OPEN | crossing <= set(config.model.options)
    assert (config.batch_size, config.prune_warmup_epochs, config.loss.class_weights) == (4, 5, True)
    assert (config.optimizer.weight_decay, config.optimizer.decay_all, config.optimizer.warmup) == (0.05, False, 0.05)
    config.model.options.update(ctb_dim=384, ctb_heads=12, ctb_depth=5, ctb_plain=True, ctb_after_merge=False, head="linear")
    assert jaxmed.count(abstract(config), trainable=True) == 69_790_322


def test_published_numbers_stand_beside_their_set_alone(x_pruning):
    assert x_pruning.get_config("vindr_mammo").published["AUC"] == 81.2
    assert x_pruning.get_config("cbis_ddsm,model=dv_gmic").published.to_dict() == {
        "model": "dv_gmic, CBIS-DDSM, mean of 5 folds", "AUC": 76.5, "Acc": 70.1, "F1": 70.8,
    }
    assert x_pruning.get_config("vindr_mammo,model=x_res18").published["Acc"] == 85.2
    for arg in ("folder_pairs", "phantom_pairs", "cbis_ddsm,model=x_res18"):
        assert not x_pruning.get_config(arg).published


@pytest.mark.parametrize(("arg", "message"), [
    ("cbis_ddsm,encoder=swin", r"does not know \['encoder'\]; it takes model="),
    ("cbis_ddsm,model=x_vit", "model=x_vit is none of sv_res18, sv_vit"),
])
def test_unknown_words_are_refused(x_pruning, arg, message):
    with pytest.raises(UserError, match=message):
        x_pruning.get_config(arg)
