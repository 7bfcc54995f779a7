"""Imports torchvision for parity tests, also where its CUDA build lies beside a CPU build of torch."""

import sys

import pytest

_library = None


def import_torchvision():
    """(torch, torchvision.transforms); skips the test where one is not installed."""
    global _library
    torch = pytest.importorskip("torch")
    try:
        pytest.importorskip("torchvision")
    except RuntimeError:  # "operator torchvision::nms does not exist": its compiled part did not load
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            _library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return torch, pytest.importorskip("torchvision.transforms")
