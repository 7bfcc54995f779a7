"""What a reader of the heat maps should know, at the top of their page."""

from collections.abc import Iterable

from jaxmed.explain.overlay import ATTENTION, CROSS, SALIENCY, WINDOWS

ALWAYS = (
    "First the picture as the network gets it, then the same under its heat map. Grad-CAM (Selvaraju et al. 2017) shows which "
    "cells of a late map raised the logit of the class named above the map; every map is scaled to its own maximum. "
    "That maximum is given as the peak: a map with a far lower peak than its neighbours hardly counted. An empty map means "
    "that nothing in it speaks for that class.",
    "The maps are as coarse as the layer they come from (the number of cells is given) and smoothed for display. They show "
    "what the score reacts to, not where a lesion ends, and they are no check of the decision.",
)  # fmt: skip
OF_KIND = {
    ATTENTION: "Maps of queries show where the learned queries look at one scale, whatever the class: their mean attention. "
    "Colours run from the smallest to the largest value; both stand above the map, in units of equal attention everywhere.",
    CROSS: "Each view asks the other: the outlined window of one view (the one with most Grad-CAM; the one with the highest "
    "score where Grad-CAM is empty; or --window; row,column from 0) looks at the other view, and the map there is the mean "
    "attention of its tokens in the first cross-attention block. Colours run from the smallest to the largest value; both are "
    "given above the map in units of equal attention everywhere. Attention says where values are fetched, not that they speak "
    "for a class.",
    WINDOWS: "The stages of the pruned Swin show in how many of a stage's blocks a place was computed: 1 in all, 0 (no colour) "
    "in none, so that its features are those of the stage before. Shifted and unshifted blocks cut different windows. A window "
    "is kept for its activity, whatever the class: r is the share that is left out.",
    SALIENCY: "Saliency is the network's own map, one per class, scaled to its maximum, which is a probability. The outlined "
    "regions are those that the network looked at in full resolution, with their attention weights, which sum to 1 over the "
    "regions of a view.",
}  # fmt: skip


def notes_for(kinds: Iterable[str]) -> tuple[str, ...]:
    """The sentences about maps of these kinds."""
    kinds = set(kinds)
    return ALWAYS + tuple(note for kind, note in OF_KIND.items() if kind in kinds)
