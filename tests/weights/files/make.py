"""Makes the small checkpoint files beside this script (needs torch; run once, the files are committed)."""

import json
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import torch

HERE = Path(__file__).parent


def tensors() -> OrderedDict:
    """One of each kind a checkpoint may hold; `flipped` and `column` are views of one storage."""
    base = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    return OrderedDict(
        float=base,
        flipped=base.T,
        column=base[:, 1],
        half=torch.tensor([0.5, -2.0], dtype=torch.float16),
        bfloat=torch.tensor([1.5, -3.0], dtype=torch.bfloat16),
        double=torch.tensor([1e-300], dtype=torch.float64),
        long=torch.tensor(7),
        bool=torch.tensor([True, False]),
        empty=torch.zeros(0, 4),
        parameter=torch.nn.Parameter(torch.tensor([8.0, 9.0])),
    )


def published_keys() -> dict:
    """Names and shapes of live networks, 1000 classes."""
    import timm
    import torchvision

    networks = {
        "timm/mobilenetv2_100": timm.create_model("mobilenetv2_100"),
        "timm/vgg16": timm.create_model("vgg16"),
        "torchvision/mobilenetv2_100": torchvision.models.mobilenet_v2(),
    }
    return {
        name: {key: list(value.shape) for key, value in network.state_dict().items() if "num_batches" not in key}
        for name, network in networks.items()
    }


def main() -> None:
    """Writes everything."""
    torch.save(tensors(), HERE / "zip.pth")
    torch.save(tensors(), HERE / "legacy.pth", _use_new_zipfile_serialization=False)
    wrapped = {"model": {f"module.{k}": v for k, v in tensors().items()}, "args": Namespace(lr=0.1), "epoch": 3}
    torch.save(wrapped, HERE / "wrapped.pth")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), HERE / "script.pt")
    rows = [f'"{name}": {json.dumps(keys)}' for name, keys in published_keys().items()]
    (HERE / "published_keys.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
