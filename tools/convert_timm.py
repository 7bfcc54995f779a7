#!/usr/bin/env python
"""Converts published ImageNet weights (timm, torchvision) into a folder that jaxmed reads.

The folder holds weights.safetensors (our names and layouts) and weights.json (origin, sha256, licence, preprocessing).
Give it to a run with --config.pretrained.encoder=FOLDER, or to jaxmed.load_weights(model, "FOLDER").
Conversion is strict: every array of the checkpoint is used or on a written ignore list and every parameter of the network is
filled, or nothing is written.
"""

import argparse
import fnmatch
import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxmed
from jaxmed.errors import UserError
from jaxmed.registry import list_models
from jaxmed.weights import hub, manifest, read_state_dict
from jaxmed.weights.convert import Converted, abstract, convert, save
from jaxmed.weights.converted import sha256
from jaxmed.weights.families import need_family
from jaxmed.weights.mismatch import closest

EXAMPLES = """examples:
  python tools/convert_timm.py --list 'resnet18*'
  python tools/convert_timm.py --model resnet18.tv_in1k                        # downloads from the hub
  python tools/convert_timm.py --checkpoint mobilenet_v2-b0353104.pth          # a file the table knows
  python tools/convert_timm.py --checkpoint mine.pth --model resnet50 --source torchvision --out weights/mine --verify
"""
TORCHVISION_NAMES = {"mobilenetv2_100": "mobilenet_v2"}  # the others share timm's names
TOLERANCE = 1e-4  # of the largest value, float32: rounding of another order of summation is about 1e-6


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    args = parser().parse_args(argv)
    try:
        if args.list is not None:
            return print_list(args.list)
        entry, file, source = plan(args)
        check_digest(file)
        arrays = read_state_dict(file)
        weights = convert(arrays, entry["model"], source, file)
        folder = save(args.out or Path("weights") / entry["name"], weights, entry, source, file)
        print_summary(entry, file, source, weights, folder)
        return verify(folder, entry, weights.num_classes, arrays, source) if args.verify else 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--list", nargs="?", const="*", metavar="PATTERN", help="show the weights that can be converted, and stop")
    p.add_argument("--model", metavar="NAME[.TAG]", help="architecture and tag; without a tag, the first one that --list shows")
    p.add_argument("--checkpoint", type=Path, metavar="FILE", help="a local file (.safetensors, .pth, .bin, .npz), not the hub")
    p.add_argument("--source", choices=("timm", "torchvision", "official", "keras"), help="who named the parameters of FILE")
    p.add_argument("--out", type=Path, metavar="DIR", help="the folder to write (default: weights/NAME.TAG)")
    p.add_argument("--verify", action="store_true", help="compare with timm or torchvision, which must be installed")
    return p


def print_list(pattern: str) -> int:
    """One line per entry of the table."""
    rows = [entry for name, entry in manifest.pretrained().items() if fnmatch.fnmatch(name, pattern)]
    for entry in rows:
        place = f"hub {entry['hub']}" if "hub" in entry else f"file {entry['file']}"
        print(f"{entry['name']:36} {entry['licence']:14} {entry['size']} px  {place}")
    print(f"{len(rows)} pretrained weights" + ("" if rows else f" match {pattern!r}"))
    return 0


def plan(args: argparse.Namespace) -> tuple[dict[str, Any], Path, str]:
    """(manifest entry, checkpoint file, naming) of what was asked for; downloads where no file was given."""
    if args.checkpoint is not None:
        entry = local_entry(args.model, args.checkpoint)
        same = args.checkpoint.name == entry.get("file")
        return entry, args.checkpoint, args.source or (entry["file_source"] if same else "timm")
    if args.model is None:
        raise UserError("say which weights: --model NAME[.TAG], --checkpoint FILE or --list")
    entry = named_entry(args.model)
    if "hub" not in entry:
        raise UserError(f"{entry['name']} is not on the hub: download {entry['url']} and pass it with --checkpoint FILE")
    print(f"fetching {entry['hub']} from the hub ...", flush=True)
    return entry, hub.fetch(entry["hub"], entry.get("url", "")), args.source or "timm"


def named_entry(name: str) -> dict[str, Any]:
    """The manifest's entry for NAME.TAG, or the first one for NAME."""
    found = manifest.pretrained().get(name) or next(iter(manifest.by_model(name)), None)
    if found is None:
        near = manifest.nearest(name)
        raise UserError(f"no weights are known as {name!r}" + (f"; did you mean {near}?" if near else "") + " --list shows all")
    return found


def local_entry(name: str | None, file: Path) -> dict[str, Any]:
    """What is known about a local file: by --model, by its file name, or, for anybody's own weights, by architecture alone."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if name is None:
        known = manifest.by_file(file.name)
        return known if known else _unknown(file)
    if name in manifest.pretrained():
        return manifest.pretrained()[name]
    model = name.split(".")[0]
    if model not in list_models():
        known = dict.fromkeys(entry["model"] for entry in manifest.pretrained().values())
        raise UserError(f"no network is named {model!r}; there are {', '.join(known)}")
    named = name if "." in name else f"{name}.local"
    return {**manifest.defaults(), "name": named, "model": model, "licence": "not stated (local file)"}


def _unknown(file: Path) -> dict[str, Any]:
    found = closest(read_state_dict(file))
    hint = f"; it looks like --model {found[0]} --source {found[1]}" if found else ""
    raise UserError(f"{file}: the table does not know this file name: say --model NAME{hint}")


def check_digest(file: Path) -> None:
    """Refuses a file that has a published name and another content."""
    wanted = (manifest.by_file(file.name) or {}).get("sha256", "")
    found = sha256(file)
    if not found.startswith(wanted):
        facts = f"its sha256 begins with {found[:8]} and should with {wanted[:8]}"
        raise UserError(f"{file}: truncated or changed ({facts}); fetch it again, or rename it if you changed it yourself")


def print_summary(entry: dict[str, Any], file: Path, source: str, weights: Converted, folder: Path) -> None:
    """What was converted, and how to use it."""
    recipe, classes = manifest.recipe(entry), weights.num_classes
    print(f"{entry['name']}: {file.name} ({source} names) -> {folder}")
    print("  " + str(weights.report).replace("\n", "\n  "))
    print(f"  parameters and statistics: {sum(leaf.size for leaf in weights.leaves.values()):,} numbers")
    print(f"  classifier: {'none' if classes is None else f'{classes} classes'}")
    print(f"  preprocessing: {recipe['size']} px, {recipe['interpolation']}, mean {recipe['mean']}, std {recipe['std']}")
    print(f"  licence: {entry['licence']}")
    if "NC" in entry["licence"]:
        print("  note: this licence excludes commercial use")
    print(f"  use it: --config.pretrained.encoder={folder}")


def verify(folder: Path, entry: dict[str, Any], num_classes: int | None, arrays: dict, source: str) -> int:
    """Runs both networks on one random image and prints the largest difference of each map and of the logits."""
    image = np.random.default_rng(0).standard_normal((1, entry["size"], entry["size"], 3)).astype(np.float32)
    ours = run_ours(folder, entry["model"], num_classes, image)
    rows = compare(torch_twin(entry["model"], num_classes, arrays, source), image, ours)
    for what, (worst, module) in rows.items():
        print(f"  {what:8} {str(ours[what].shape):20} differs by {worst:.1e} of its largest value from {module}")
    worst = max(worst for worst, _ in rows.values())
    verdict = "ok" if worst <= TOLERANCE else "FAILED"
    print(f"verified against the live network: largest difference {worst:.1e}, limit {TOLERANCE:.0e}: {verdict}")
    return int(verdict != "ok")


def run_ours(folder: Path, model: str, num_classes: int | None, image: np.ndarray) -> dict[str, np.ndarray]:
    """Feature maps (NHWC) and logits of the converted weights, at full precision."""
    import jax
    from flax import nnx

    network = jaxmed.create_model(model, num_classes=num_classes)
    jaxmed.load_weights(network, folder)
    graph, state = nnx.split(network)

    def run(state, image):
        network = nnx.merge(graph, state)
        return network.features(image), network(image)

    with jax.default_matmul_precision("highest"):
        maps, logits = jax.jit(run)(state, image)
    named = {f"map {k}": np.asarray(m) for k, m in enumerate(maps, 1)}
    return named | ({} if num_classes is None else {"logits": np.asarray(logits)})


def torch_twin(model: str, num_classes: int | None, arrays: dict[str, np.ndarray], source: str) -> Any:
    """The same architecture in PyTorch, holding the checkpoint itself."""
    try:
        import torch

        library = __import__("torchvision.models" if source == "torchvision" else "timm", fromlist=["models"])
    except ImportError as error:
        raise UserError(f'--verify needs torch, torchvision and timm: pip install "jaxmed[parity]" ({error})') from error
    classes = 0 if num_classes is None else num_classes
    if source == "torchvision":
        twin = library.get_model(TORCHVISION_NAMES.get(model, model), num_classes=max(classes, 1))
    else:
        twin = library.create_model(model, num_classes=classes)
    spell = need_family(abstract(model)).naming(source).spell
    weights = {spell(key): torch.from_numpy(np.array(value)) for key, value in arrays.items()}
    left = twin.load_state_dict(weights, strict=False)  # batch counters may be absent; everything else must be there
    missing = [key for key in left.missing_keys if not key.endswith("num_batches_tracked")]
    if num_classes is not None and (missing or left.unexpected_keys):
        raise UserError(f"{source}'s own {model} refuses the checkpoint: {missing + left.unexpected_keys}")
    return twin.eval()


def compare(twin: Any, image: np.ndarray, ours: dict[str, np.ndarray]) -> dict[str, tuple[float, str]]:
    """{array: (largest difference over largest value, the module it was compared with)}.

    A map is compared with the module whose output, or its ReLU (torchvision applies some without a module), is nearest.
    """
    import torch

    best = {what: (float("inf"), "no module of this shape") for what in ours}

    def look(name: str, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        theirs = np.moveaxis(output.detach().numpy().copy(), 1, -1)  # a later in-place ReLU may overwrite the tensor
        for what in (w for w in ours if w != "logits" and ours[w].shape == theirs.shape):
            rectified = (gap(ours[what], np.maximum(theirs, 0)), f"relu of {name}")
            best[what] = min(best[what], (gap(ours[what], theirs), name), rectified)

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in twin.named_modules() if name
    ]  # fmt: skip
    with torch.no_grad():
        logits = twin(torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 1)))).numpy()
    for hook in hooks:
        hook.remove()
    return best | ({"logits": (gap(ours["logits"], logits), "its logits")} if "logits" in ours else {})


def gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference as a fraction of the largest value."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


if __name__ == "__main__":
    sys.exit(main())
