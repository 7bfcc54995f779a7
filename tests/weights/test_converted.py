"""Converted folders, pretrained names and the manifest."""

import json

import numpy as np
import pytest

import jaxmed
from jaxmed.errors import UserError
from jaxmed.weights import preprocessing, read_facts, read_state_dict, write_folder
from jaxmed.weights.converted import cache_dir
from tests.weights.networks import assert_same, empty, filled, leaves

FACTS = {"name": "densenet121.mine", "leaves": 2, "preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 160}}
ARRAYS = {"a.kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a.bias": np.ones(2, np.float32)}


def test_a_folder_gives_back_what_was_written(tmp_path):
    folder = write_folder(tmp_path / "w", ARRAYS, FACTS)
    assert_same(read_state_dict(folder), ARRAYS)
    assert sorted(p.name for p in folder.iterdir()) == ["weights.json", "weights.safetensors"]


def test_preprocessing_travels_with_the_folder(tmp_path):
    recipe = preprocessing(write_folder(tmp_path / "w", ARRAYS, FACTS))
    assert recipe == {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 160, "interpolation": "bilinear"}


def test_preprocessing_is_imagenets_unless_the_name_says_otherwise(tmp_path):
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "size": 224, "interpolation": "bilinear"}
    (tmp_path / "own.pth").touch()
    assert preprocessing() == preprocessing("") == preprocessing("resnet18.tv_in1k") == imagenet
    assert preprocessing(tmp_path / "own.pth") == imagenet
    assert preprocessing("resnet18.a3_in1k") == preprocessing("some/where/resnet18_a3_0-40c531c8.pth")
    assert preprocessing("resnet18.a3_in1k") == {**imagenet, "size": 160, "interpolation": "bicubic"}


def test_a_pretrained_name_means_its_converted_folder(tmp_path, monkeypatch):
    model = filled("mobilenetv2_100", 5)
    facts = {"leaves": len(leaves(model)), "preprocessing": {}}
    monkeypatch.setenv("JAXMED_CACHE", str(tmp_path))
    write_folder(cache_dir() / "weights" / "mobilenetv2_100.ra_in1k", leaves(model), facts)
    target = empty("mobilenetv2_100", 5)
    report = jaxmed.load_weights(target, "mobilenetv2_100.ra_in1k")  # a folder says itself that its names are ours
    assert_same(leaves(target), leaves(model))
    assert not report.ignored
    report = jaxmed.load_weights(empty("csa_moe", encoder="mobilenetv2_100"), "mobilenetv2_100.ra_in1k", into="encoder")
    assert set(report.ignored) == {"classifier.1.kernel", "classifier.1.bias"}
    assert jaxmed.load_weights(empty("mobilenetv2_100", 2), "mobilenetv2_100.ra_in1k", new_head=True).initialised


def test_a_folder_in_the_wrong_network_is_recognised(tmp_path):
    model = filled("mobilenetv2_100")
    folder = write_folder(tmp_path / "w", leaves(model), {"leaves": len(leaves(model)), "preprocessing": {}})
    with pytest.raises(UserError, match="the weights look like 'mobilenetv2_100'"):
        jaxmed.load_weights(empty("resnet18"), folder)
    with pytest.raises(UserError, match="hint: into='encoder' fills that part"):
        jaxmed.load_weights(empty("csa_moe", encoder="mobilenetv2_100"), folder)


def test_a_name_that_is_not_converted_gives_the_command():
    with pytest.raises(UserError, match=r"python tools/convert_timm\.py --model resnet34\.tv_in1k --out weights/resnet34"):
        jaxmed.load_weights(empty("resnet34"), "resnet34.tv_in1k")


def test_a_name_or_path_nobody_knows_is_an_error():
    with pytest.raises(UserError, match="did you mean resnet18.tv_in1k"):
        preprocessing("resnet18.tv1k")
    with pytest.raises(UserError, match="no such file or folder"):
        jaxmed.load_weights(empty("resnet18"), "nowhere/w.pth")


def test_an_unfinished_or_damaged_folder_is_named(tmp_path):
    folder = write_folder(tmp_path / "w", ARRAYS, FACTS)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"weights\.safetensors: missing, truncated"):
        read_state_dict(folder)
    write_folder(folder, {"a.bias": ARRAYS["a.bias"]}, FACTS)
    with pytest.raises(UserError, match="1 arrays, but weights.json speaks of 2"):
        read_state_dict(folder)
    (folder / "weights.json").write_text("{")
    with pytest.raises(UserError, match=r"weights\.json: damaged"):
        read_facts(folder)
    (folder / "weights.json").unlink()
    with pytest.raises(UserError, match="not a folder of converted weights"):
        preprocessing(folder)


def test_facts_are_plain_json(tmp_path):
    folder = write_folder(tmp_path / "w", ARRAYS, FACTS)
    assert json.loads((folder / "weights.json").read_text()) == FACTS
