import importlib.util
from pathlib import Path

import pytest
from flax import nnx

import jaxmed
from jaxmed.config import preset_text
from jaxmed.errors import UserError


@pytest.fixture(scope="module")
def classifier():
    spec = importlib.util.spec_from_file_location("classifier", Path(__file__).parents[2] / "configs/classifier.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_may_be_said_first_or_by_name(classifier):
    a, b = classifier.get_config("busi,model=vgg16_bn"), classifier.get_config("model=vgg16_bn,data=busi")
    assert a == b and a.data.source == "busi" and a.model.name == "vgg16_bn"
    assert classifier.get_config().data.source == "phantom"


def test_every_baseline_is_registered_and_its_roles_take_weights(classifier):
    for name in classifier.PUBLISHED.keys() | classifier.ROLES.keys():
        config = classifier.get_config(f"model={name},data=busi")
        model = nnx.eval_shape(lambda name=name: jaxmed.create_model(name))
        assert set(config.pretrained) == set(model.roles or ("encoder",))
        assert (config.published.AUC > 90) if name in classifier.PUBLISHED else not config.published


@pytest.mark.parametrize(("name", "size"), [("swin_tiny_patch4_window7_224", 64), ("cswin_tiny_224", 224)])
def test_phantoms_have_the_size_that_the_network_takes(classifier, name, size):
    config = classifier.get_config(f"model={name}")
    assert config.data.size == size and f"{size} x {size}" in preset_text(config)


def test_unknown_words_and_models_are_refused(classifier):
    with pytest.raises(UserError, match="it takes model=NAME and data=SOURCE"):
        classifier.get_config("busi,experts=image")
    with pytest.raises(UserError, match="nearest: .*convnext_tiny"):
        classifier.get_config("model=convnext_tinny")
