"""Live torchvision and timm networks against ours, through the converter. Run with -m parity."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmed
from jaxmed.weights import read_state_dict, to_state_dict
from tests.weights.networks import FILES, assert_same, empty

pytestmark = pytest.mark.parity
TOLERANCE = 1e-4  # of the largest value, float32: two orders of summation
CASES = [
    ("timm", "resnet50", "resnet50"), ("torchvision", "resnet34", "resnet34"), ("timm", "densenet169", "densenet169"),
    ("torchvision", "densenet121", "densenet121"), ("timm", "vgg11", "vgg11"), ("torchvision", "vgg13", "vgg13"),
    ("timm", "mobilenetv2_100", "mobilenetv2_100"), ("torchvision", "mobilenetv2_100", "mobilenet_v2"),
    ("timm", "resnext50_32x4d", "resnext50_32x4d"), ("torchvision", "resnext101_64x4d", "resnext101_64x4d"),
    ("timm", "vgg11_bn", "vgg11_bn"), ("timm", "densenet161", "densenet161"),
    ("timm", "efficientnet_b1", "efficientnet_b1"), ("timm", "tf_efficientnet_b3", "tf_efficientnet_b3"),
    ("timm", "tf_efficientnet_lite2", "tf_efficientnet_lite2"), ("timm", "convnext_tiny", "convnext_tiny"),
    ("timm", "swin_small_patch4_window7_224", "swin_small_patch4_window7_224"),
    ("torchvision", "swin_tiny_patch4_window7_224", "swin_t"),
    ("torchvision", "swin_base_patch4_window7_224", "swin_b"),
    ("timm", "vit_tiny_patch16_224", "vit_tiny_patch16_224"), ("torchvision", "vit_base_patch16_224", "vit_b_16"),
    ("timm", "hiera_small_224", "hiera_small_224"), ("timm", "pvt_v2_b1", "pvt_v2_b1"),
    ("timm", "focalnet_tiny_srf", "focalnet_tiny_srf"),
]  # fmt: skip


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    try:  # a CPU build of torch beside a CUDA build of torchvision misses these two operators
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:
        library = None
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    yield torch
    del library


def _live(source: str, name: str, num_classes: int):
    import timm
    import torchvision

    if source == "timm":
        return timm.create_model(name, num_classes=num_classes)
    return torchvision.models.get_model(name, num_classes=num_classes)


def _shake(torch, twin):
    """Random statistics and scales: freshly made ones are all 0 and 1, which would hide a swapped pair."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in twin.state_dict().items():
            if value.ndim == 1 and value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator)
                value.copy_(0.75 + 0.5 * noise if name.endswith(("weight", "running_var")) else 0.2 * (noise - 0.5))
    return twin.eval()


def _assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def _both(torch, twin, model) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)
    with torch.no_grad():
        theirs = twin(torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))).numpy()
    return np.asarray(jax.jit(lambda image: model(image))(image)), theirs


@pytest.mark.parametrize(("source", "name", "theirs"), CASES)
def test_logits_of_a_live_network_and_the_way_back(torch, source, name, theirs):
    twin = _shake(torch, _live(source, theirs, 4))
    model = empty(name, 4)
    jaxmed.load_weights(model, twin.state_dict(), source=source)  # tensors go in as they are
    _assert_close(*_both(torch, twin, model))
    back = to_state_dict(model, source)
    constants = ("num_batches_tracked", "relative_position_index", "attn_mask")
    assert_same(back, {k: v.numpy() for k, v in twin.state_dict().items() if not k.endswith(constants)})


def test_torchvisions_mobilenet_weights_give_torchvisions_logits(torch):
    file = Path(os.environ.get("JAXMED_MOBILENET_PTH", "mobilenet_v2-b0353104.pth"))
    if not file.is_file():
        pytest.skip("set JAXMED_MOBILENET_PTH to torchvision's mobilenet_v2-b0353104.pth")
    twin = _live("torchvision", "mobilenet_v2", 1000)
    twin.load_state_dict(torch.load(file, weights_only=True))
    model = empty("mobilenetv2_100", 1000)
    jaxmed.load_weights(model, file, source="torchvision")
    _assert_close(*_both(torch, twin.eval(), model))


@pytest.mark.parametrize("legacy", [False, True])
def test_the_reader_agrees_with_torch_on_a_fresh_file(torch, tmp_path, legacy):
    table = {"a": torch.randn(3, 4).T, "b": torch.randn(5).to(torch.bfloat16), "c": torch.arange(10)[2:8:2]}
    torch.save({"state_dict": table}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    found = read_state_dict(tmp_path / "w.pth")
    for key, value in table.items():
        np.testing.assert_array_equal(found[key].astype(np.float32), value.float().numpy())


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth"])
def test_torch_itself_reads_the_stored_files(torch, file):
    found = read_state_dict(FILES / file)
    for key, value in torch.load(FILES / file, weights_only=True).items():
        np.testing.assert_array_equal(found[key].astype(np.float64), value.detach().double().numpy())


VERIFIED = [
    ("torchvision", "densenet121"), ("timm", "mobilenetv2_100"), ("timm", "hiera_tiny_224"), ("timm", "vit_tiny_patch16_224"),
    ("timm", "swin_tiny_patch4_window7_224"), ("timm", "pvt_v2_b0"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "name"), VERIFIED)
def test_the_converters_own_check_passes(torch, tmp_path, capsys, source, name):
    import importlib.util

    spec = importlib.util.spec_from_file_location("convert_timm", Path(__file__).parents[2] / "tools" / "convert_timm.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    twin = _shake(torch, _live(source, name, 4))
    torch.save(twin.state_dict(), tmp_path / "w.pth")
    args = ["--checkpoint", tmp_path / "w.pth", "--model", name, "--source", source, "--out", tmp_path / "w", "--verify"]
    assert tool.main([str(arg) for arg in args]) == 0
    said = capsys.readouterr().out
    assert ("map 4" in said or "vit" in name) and "features" in said and "logits" in said and "ok" in said
    assert "not compared" not in said
