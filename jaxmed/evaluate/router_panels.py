"""The report's figures of mixture-of-experts layers, with the words around them."""

import math

import numpy as np

from jaxmed.evaluate.panels import Panel, best_epoch, make_panel
from jaxmed.evaluate.routers import entropy_curves, last_value, load_curves, load_labels, loads, router_parts
from jaxmed.evaluate.wording import networks, plural
from jaxmed.evaluate.workdir import Workdir


def router_panels(workdir: Workdir) -> list[Panel]:
    """Load of the experts of each part, then the entropy of all routers; none where no mixture was logged."""
    parts = router_parts(workdir.history)
    panels = [load_panel(workdir, part, layers, experts) for part, (layers, experts) in parts.items()]
    return [*panels, entropy_panel(workdir, parts)] if parts else []


def load_panel(workdir: Workdir, part: str, layers: int, experts: int) -> Panel:
    """Small multiples over the layers of one part."""
    caption = (f"Share of the token slots that the router of each layer gave to each of {plural(experts, 'expert')}, training "
               f"means of each epoch{_ranks(workdir)}; dotted, horizontal: equal shares of 1/{experts}. No layer drops tokens: "
               "experts have no capacity limit, so the drop rate is 0. Look for lines that stay clear of 0: an expert that "
               "gets nothing learns nothing, and the others do all the work.")
    ends = []
    for layer in range(layers):
        values = loads(workdir.history, part, layer, experts)[1][:, -1]
        ends.append(f"layer {layer} {', '.join(f'{share:.2f}' for share in values)}")
    labels = load_labels(workdir.history, experts)
    alt = f"Load of the experts of {part} over epochs; shares at the end, {labels[0]} to {labels[-1]}: {'; '.join(ends)}."
    figure = load_curves(workdir.history, part, layers, experts, best_epoch(workdir))
    return make_panel(workdir, figure, f"router_load_{part}", f"Load per expert: {part}", caption, alt)


def entropy_panel(workdir: Workdir, parts: dict[str, tuple[int, int]]) -> Panel:
    """How sure the routers are."""
    several = networks(workdir)
    means = f" (lines are means over {several}, shades their range)" if several else ""
    caption = ("Entropy of the router's softmax over the experts of its layer, in nats, mean over tokens, training "
               f"means of each epoch{means}. At the dotted line, the logarithm of the number of experts, a router prefers no "
               "expert; at 0 it is sure of every token. Look for curves that fall below the dotted line: the experts then "
               "divide the work by what a token shows.")
    ends = []
    for part, (layers, experts) in parts.items():
        values = [last_value(workdir.history, f"train/router_entropy_{part}{layer}") for layer in range(layers)]
        if not np.isnan(values).all():
            ends.append(f"{part} {np.nanmin(values):.2f} to {np.nanmax(values):.2f} (at most {math.log(experts):.2f})")
    alt = f"Entropy of the routers over epochs; at the end {', '.join(ends)}."
    figure = entropy_curves(workdir.history, parts, best_epoch(workdir))
    return make_panel(workdir, figure, "router_entropy", "How sure the routers are", caption, alt)


def _ranks(workdir: Workdir) -> str:
    several = networks(workdir)
    return (f" (means over {several}, each with its experts in the order of their load, as their numbers mean nothing from one "
            "network to the next)") if several else ""
