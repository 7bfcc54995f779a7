"""Loading is strict: everything fits, or one error says all that does not and nothing changes."""

import re

import numpy as np
import pytest

import jaxmed
from jaxmed.errors import UserError
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, empty, filled, leaves

TINY = dict(depths=(1, 1, 1, 1), growth=4)


@pytest.fixture(scope="module")
def model():
    return filled("densenet121", **TINY)


@pytest.fixture
def weights(model):
    return to_state_dict(model, "timm")


def _fresh(num_classes=3):
    return filled("densenet121", num_classes, seed=1, **TINY)


def _refused(weights, target, **options) -> str:
    before = leaves(target)
    with pytest.raises(UserError) as error:
        jaxmed.load_weights(target, weights, **options)
    assert_same(leaves(target), before)
    return str(error.value)


def test_every_leaf_is_filled_and_counters_are_ignored_by_name(model, weights):
    target = _fresh()
    weights["features.norm5.num_batches_tracked"] = np.int64(3)
    report = jaxmed.load_weights(target, weights, source="timm")
    assert_same(leaves(target), leaves(model))
    assert report.ignored == ("features.norm5.num_batches_tracked",) and report.initialised == ()
    assert report.mapped.keys() == leaves(model).keys()
    assert report.mapped["features.conv0.kernel"] == "features.conv0.weight"


def test_half_precision_weights_become_float32(weights):
    target = _fresh()
    jaxmed.load_weights(target, {key: value.astype(np.float16) for key, value in weights.items()})
    assert {leaf.dtype for leaf in leaves(target).values()} == {np.dtype("float32")}


def test_one_error_lists_unknown_keys_missing_leaves_and_wrong_shapes(weights):
    del weights["features.conv0.weight"]
    weights["features.norm0.bias"] = np.zeros(7, np.float32)
    weights["features.norm0.weight"] = np.zeros((2, 2, 2), np.float32)
    weights |= {"surprise.weight": np.zeros(1), "surprise.bias": np.zeros(1)}
    text = _refused(weights, _fresh())
    assert "keys that nothing uses (2): surprise.weight, surprise.bias" in text
    assert "leaves that no key fills (1): features.conv0.kernel" in text
    assert "features.norm0.bias is [7] where the model needs [8]" in text
    assert "features.norm0.weight is [2, 2, 2] where the model needs [8]" in text


def test_wrong_shapes_are_given_in_the_source_layout(weights):
    weights["features.conv0.weight"] = np.zeros((8, 3, 5, 5), np.float32)
    assert "features.conv0.weight is [8, 3, 5, 5] where the model needs [8, 3, 7, 7]" in _refused(weights, _fresh())


def test_another_number_of_classes_asks_for_a_new_head(model, weights):
    assert "hint: only the classifier differs: new_head=True" in _refused(weights, _fresh(num_classes=5))
    target = _fresh(num_classes=5)
    head = {path: leaf for path, leaf in leaves(target).items() if path.startswith("classifier")}
    report = jaxmed.load_weights(target, weights, new_head=True)
    assert set(report.initialised) == {"classifier.kernel", "classifier.bias"} == head.keys()
    assert set(report.ignored) == {"classifier.weight", "classifier.bias"}
    body = {path: leaf for path, leaf in leaves(model).items() if path not in head}
    assert_same(leaves(target), body | head)


def test_a_new_head_excuses_nothing_but_the_head(weights):
    del weights["features.norm5.weight"]
    assert "features.norm5.scale" in _refused(weights, _fresh(num_classes=5), new_head=True)


def test_a_network_without_classifier_ignores_it_by_name(weights):
    report = jaxmed.load_weights(_fresh(num_classes=None), weights)
    assert set(report.ignored) == {"classifier.weight", "classifier.bias"} and not report.initialised


def test_a_missing_classifier_is_missing(weights):
    del weights["classifier.weight"], weights["classifier.bias"]
    assert "leaves that no key fills (2): classifier.bias, classifier.kernel" in _refused(weights, _fresh())


def test_infinite_and_nan_values_are_refused(weights):
    weights["features.norm5.bias"][1] = np.nan
    assert "NaN or infinite values (1): features.norm5.bias" in _refused(weights, _fresh())


def test_the_same_array_in_two_spellings_is_refused(weights):
    name = "features.denseblock1.denselayer1.norm1.weight"
    weights[name.replace("norm1", "norm.1")] = weights[name]
    assert "given twice, in two spellings (1): features.denseblock1.denselayer1.norm.1.weight" in _refused(weights, _fresh())


def test_the_spelling_of_old_densenet_files_is_read(model, weights):
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in weights.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    target = _fresh()
    jaxmed.load_weights(target, old, source="torchvision")
    assert_same(leaves(target), leaves(model))


def test_another_architecture_is_recognised():
    text = _refused(to_state_dict(filled("resnet34", 10), "timm"), _fresh())
    assert "hint: the weights look like 'resnet34' (source='timm'): 100% of their arrays fit it" in text


def test_a_variant_that_is_not_registered_is_said_to_be_of_its_family():
    text = _refused(to_state_dict(filled("resnet34", depths=(1, 2, 1, 1)), "timm"), _fresh())
    assert "hint: the keys look like a resnet" in text


def test_names_of_another_source_are_recognised():
    weights = to_state_dict(filled("mobilenetv2_100"), "torchvision")
    with pytest.raises(UserError, match="hint: the keys are named as source='torchvision' names them"):
        jaxmed.load_weights(empty("mobilenetv2_100"), weights, source="timm")


def test_a_source_without_rules_is_named(weights):
    assert "'timm', 'torchvision'" in _refused(weights, _fresh(), source="keras")


def test_a_role_fills_every_encoder_with_copies_of_its_own():
    encoder = filled("mobilenetv2_100", 7)
    system = empty("csa_moe", encoder="mobilenetv2_100")
    report = jaxmed.load_weights(system, to_state_dict(encoder, "timm"), source="timm", into="encoder")
    body = {path: leaf for path, leaf in leaves(encoder).items() if not path.startswith("classifier")}
    assert report.mapped.keys() == {f"encoders.{i}.{path}" for i in range(3) for path in body}
    assert set(report.ignored) == {"classifier.weight", "classifier.bias"}
    for i in range(3):
        assert_same(leaves(system.encoders[i]), body)
    buffers = {system.encoders[i].features[0][1].scale.get_value().unsafe_buffer_pointer() for i in range(3)}
    assert len(buffers) == 3  # the trainer donates its buffers


def test_a_role_is_filled_strictly_or_not_at_all():
    system = filled("csa_moe", encoder="mobilenetv2_100", experts=("image", "core"))
    text = _refused(to_state_dict(filled("resnet18", depths=(1, 1, 1, 1)), "timm"), system, into="encoder")
    assert "does not fit MobileNetV2" in text


def test_a_role_or_a_system_nobody_knows_is_named():
    system = empty("csa_moe", encoder="mobilenetv2_100")
    with pytest.raises(UserError, match="no part named into='decoder'; its parts: 'encoder'"):
        jaxmed.load_weights(system, {"a": np.ones(1)}, into="decoder")
    with pytest.raises(UserError, match="no key rules for CSAMoE.*into='encoder'"):
        jaxmed.load_weights(system, {"a": np.ones(1)})


def test_the_report_reads_as_a_summary(weights):
    weights |= {f"features.norm{i}.num_batches_tracked": np.int64(1) for i in range(9)}
    text = str(jaxmed.load_weights(_fresh(num_classes=5), weights, new_head=True))
    assert "ignored 11 keys: *.num_batches_tracked (9), classifier.bias, classifier.weight" in text
    assert "left as initialised 2 leaves: classifier.bias, classifier.kernel" in text
