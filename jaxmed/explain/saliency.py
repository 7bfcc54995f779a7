"""GMIC's own explanations: a saliency map per class, and the regions that it looks at in full resolution."""

from collections.abc import Mapping, Sequence

import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from jaxmed.explain.overlay import SALIENCY, Box, HeatMap
from jaxmed.models.gmic import GMIC


def saliency_maps(saliency: Mapping[str, Float[np.ndarray, "h w c"]], classes: Sequence[str]) -> list[HeatMap]:
    """A map per picture and class, each scaled to its own maximum, which is a probability."""
    return [
        _scaled(f"{picture} saliency", picture, one, name)
        for picture, maps in saliency.items()
        for name, one in zip(classes, np.moveaxis(maps, -1, 0), strict=True)
    ]


def _scaled(name: str, picture: str, saliency: Float[np.ndarray, "h w"], explains: str) -> HeatMap:
    peak = float(saliency.max())
    return HeatMap(name, picture, saliency / peak if peak > 0 else saliency, peak, "saliency", SALIENCY, explains)


def region_boxes(
    model: nnx.Module, rois: Int[np.ndarray, "k 2"], attention: Float[np.ndarray, " k"]
) -> tuple[Box, ...]:
    """The crops with their attention weights. rois: row and column of the upper left pixels."""
    size = next(module.crop_size for _, module in nnx.iter_modules(model) if isinstance(module, GMIC))
    places = zip(rois.tolist(), attention.tolist(), strict=True)
    return tuple(Box(row, column, size, size, f"{weight:.2f}") for (row, column), weight in places)
