"""configs/cnn_vssm.py: every documented argument gives a config whose network exists."""

import importlib.util
import itertools
from pathlib import Path

import pytest
from flax import nnx

import jaxmed
from jaxmed.errors import UserError
from jaxmed.train.kinds import kind_of

MODELS = ("hybrid", "vssm", "resnet18", "resnet50")
SUBSETS = ("1+5", "1+3+5", "1+2+3+4+5")
SOURCES = ("phantom_mammo", "cmmd", "folder_views", "study_records")
# encoder, then the gate 4 D -> D -> 4 and the heads 4 D -> 2 and 4 D -> 3 of two sides
ENCODERS = {"hybrid": (3_638_464, 512), "resnet18": (11_176_512, 512), "resnet50": (23_508_032, 2048), "vssm": (6_963_600, 768)}


@pytest.fixture(scope="module")
def cnn_vssm():
    spec = importlib.util.spec_from_file_location("cnn_vssm", Path(__file__).parents[2] / "configs/cnn_vssm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def abstract(config):
    """The configured network without weights, as the trainer makes it."""
    options = kind_of(config).model_options() | dict(config.model.options)
    return nnx.eval_shape(lambda: jaxmed.create_model(config.model.name, num_classes=len(config.data.classes), **options))


def test_every_combination_of_arguments_resolves(cnn_vssm):
    words = itertools.product(SOURCES, MODELS, ("all", "projection"), ("label+birads", "label", "birads"), SUBSETS)
    names = set()
    for source, model, sharing, tasks, birads in words:
        config = cnn_vssm.get_config(f"{source},model={model},sharing={sharing},tasks={tasks},birads={birads}")
        options = config.model.options
        assert (config.task, config.data.source, config.model.name) == ("four_views", source, f"multiview_{model}")
        assert (options.sharing, options.tasks) == (sharing, tuple(tasks.split("+")))
        assert config.data.birads_subset == tuple(int(k) for k in birads.split("+"))
        assert kind_of(config).model_options() == {"num_birads": len(config.data.birads_subset)}
        assert config.optimizer.learning_rate == (3e-4 if source == "phantom_mammo" else 1e-5 if model == "vssm" else 1e-4)
        names.add(config.name)
    assert len(names) == 4 * 4 * 2 * 3 * 3  # so that no two of them share a workdir


@pytest.mark.parametrize("sharing", ["all", "projection"])
@pytest.mark.parametrize("model", MODELS)
def test_every_network_exists_with_the_number_of_parameters_that_its_parts_have(cnn_vssm, model, sharing):
    encoder, dim = ENCODERS[model]
    network = abstract(cnn_vssm.get_config(f"cmmd,model={model},sharing={sharing}"))
    gate, heads = 4 * dim * dim + dim + 4 * dim + 4, 2 * (4 * dim + 1) * (2 + 3)
    assert jaxmed.count(network) == encoder * (1 if sharing == "all" else 2) + gate + heads
    assert set(network.heads) == {"left_label", "right_label", "left_birads", "right_birads"}


def test_the_arguments_may_be_left_out(cnn_vssm):
    config = cnn_vssm.get_config()
    assert (config.data.source, config.model.name) == ("phantom_mammo", "multiview_hybrid")
    assert config.data.birads_subset == (1, 3, 5)
    assert "reduced preset" in config.preset and not config.published
    full = cnn_vssm.get_config("cmmd")
    assert (full.data.size, full.batch_size, full.epochs, full.preset) == (512, 8, 100, "")


def test_one_task_alone_has_two_heads(cnn_vssm):
    network = abstract(cnn_vssm.get_config("cmmd,model=resnet18,tasks=birads,birads=1+5"))
    assert set(network.heads) == {"left_birads", "right_birads"}
    assert network.heads["left_birads"].bias.shape == (2,)


def test_options_that_the_paper_leaves_open_reach_the_network(cnn_vssm):
    config = cnn_vssm.get_config("cmmd")
    config.model.options.update(cut="layer1", depths=(1,), pre_merge=False, freeze_cnn=True, missing_views_in_norm=False)
    network = abstract(config)
    assert network.frozen == ("backbones.0.resnet",) and not network.missing_views_in_norm
    assert network.gate.fc1.kernel.shape[0] == 4 * 64  # layer1 has 64 channels, and nothing merges after it
    vssm = cnn_vssm.get_config("cmmd,model=vssm")
    vssm.model.options.depths = (2, 2, 4, 2)  # the other reading of "four blocks": MedMamba-T
    assert jaxmed.count(abstract(vssm).backbones[0]) == 14_457_222 - 6 * (768 + 1)  # without its head of 6 classes


@pytest.mark.parametrize(("birads", "auc"), [("1+5", 99.67), ("1+3+5", 97.81), ("1+2+3+4+5", 92.49)])
def test_published_numbers_stand_beside_the_papers_own_system_only(cnn_vssm, birads, auc):
    assert cnn_vssm.get_config(f"cmmd,birads={birads}").published["BI-RADS AUC"] == auc
    for other in ("model=resnet18", "sharing=projection", "tasks=birads"):
        assert not cnn_vssm.get_config(f"cmmd,birads={birads},{other}").published


@pytest.mark.parametrize(("words", "message"), [
    ("cmmd,encoder=resnet18", r"does not know \['encoder'\]; it takes model=, sharing=, tasks=, birads="),
    ("cmmd,model=resnet34", "model=resnet34 is none of hybrid, vssm, resnet18, resnet50"),
    ("cmmd,birads=1+x", r"birads=1\+x is not like 1\+3\+5"),
    ("cmmd,hybrid", "'hybrid' is not key=value"),
])
def test_unknown_words_are_refused(cnn_vssm, words, message):
    with pytest.raises(UserError, match=message):
        cnn_vssm.get_config(words)
