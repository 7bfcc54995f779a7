"""What networks show of themselves, beside Grad-CAM: pruned windows, attention between views, saliency and regions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from jaxmed.explain.cross_attention import cross_map, query_box, window_size
from jaxmed.explain.overlay import ATTENTION, Box, HeatMap
from jaxmed.explain.pruned import window_maps
from jaxmed.explain.saliency import region_boxes, saliency_maps

Pictures = Mapping[str, np.ndarray]
Boxes = dict[str, tuple[Box, ...]]


def own_maps(model: nnx.Module, case: Mapping[str, Any], pictures: Pictures, classes: tuple[str, ...]) -> list[HeatMap]:
    """Of one case of what `Explainer` gives; `classes` are the network's."""
    out, names = case["outputs"], list(pictures)
    maps = [_attention(weights, names[0]) for weights in case["queries"]]
    if "saliency" in out:
        maps += saliency_maps(dict(zip(names, _by_picture(out["saliency"], 3), strict=True)), classes)
    maps += [cross_map(view, place.astype(int), weights) for view, (place, weights) in case.get("across", {}).items()]
    if "windows" in out:
        windows = out["windows"]
        maps += window_maps(model, windows if isinstance(windows, Mapping) else {names[0]: windows})
    return maps


def own_boxes(model: nnx.Module, case: Mapping[str, Any], pictures: Pictures) -> Boxes:
    """Regions of GMIC, and the windows that ask in the cross-attention."""
    out, boxes = case["outputs"], {}
    if "rois" in out:
        parts = zip(pictures, _by_picture(out["rois"], 2), _by_picture(out["attention"], 1), strict=True)
        boxes = {name: region_boxes(model, rois.astype(int), weights) for name, rois, weights in parts}
    for view, (place, weights) in case.get("across", {}).items():
        boxes[view] = (query_box(place.astype(int), window_size(model), weights.shape, pictures[view].shape),)
    return boxes


def own_facts(case: Mapping[str, Any], pictures: Pictures, boxes: Boxes) -> dict[str, str]:
    """Columns of cases.csv: attention over the stages of each encoder, and the boxes as "row column height width text"."""
    stages = zip(pictures, case["outputs"].get("stage_attention", ()), strict=False)
    facts = {f"stages_{name}": " ".join(f"{x:.3f}" for x in row) for name, row in stages}
    return facts | {
        f"boxes_{name}": "; ".join(f"{b.row:g} {b.column:g} {b.height:g} {b.width:g} {b.text}" for b in found)
        for name, found in boxes.items()
    }


def gate_of(case: Mapping[str, Any], pictures: Pictures, picture: str) -> float | None:
    """A gate weighs the network's pictures."""
    gate = case["outputs"].get("gate")
    return float(gate[list(pictures).index(picture)]) if gate is not None and len(gate) == len(pictures) > 1 else None


def _by_picture(x: np.ndarray, ndim: int) -> np.ndarray:
    """[pictures, ...] also of a network with one picture, whose arrays have `ndim` axes."""
    return x[None] if x.ndim == ndim else x


def _attention(weights: np.ndarray, picture: str) -> HeatMap:
    """The peak in units of equal attention everywhere."""
    layer, peak = f"queries on {weights.shape[0]} x {weights.shape[1]} tokens", float(weights.max())
    return HeatMap("queries", picture, weights / peak, peak / float(weights.mean()), layer, ATTENTION)
