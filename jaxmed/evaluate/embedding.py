"""t-SNE of the feature that feeds the classifier (paper, Fig. 7)."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from jaxmed.evaluate.metrics import predicted_class
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.style import BLACK, MARKERS, class_colors, new_figure, styled

FEWEST = 10  # cases below which a map of neighbourhoods means nothing


def perplexity_for(cases: int) -> float:
    """30, less for few cases: about a third of them, as each needs several times that many neighbours."""
    return float(np.clip((cases - 1) / 3, 2, 30))


def tsne(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Two-dimensional map of the features, seed 42, started from their principal components where there are two."""
    init = "pca" if min(features.shape) >= 2 else "random"
    model = TSNE(perplexity=perplexity_for(len(features)), init=init, random_state=42)
    with threadpool_limits(1):  # on a busy machine its threads wait for each other: 40 s instead of 1 s
        return model.fit_transform(features)


def match_features(table: Predictions, features: dict[str, np.ndarray]) -> tuple[Predictions, np.ndarray]:
    """The rows of a table (one per case) that have a feature, and these features, in the same order."""
    row_of = {name: row for row, name in enumerate(features["case_id"].tolist())}
    keep = np.array([name in row_of for name in table.case_id.tolist()], bool)
    matched = table.take(keep)
    return matched, features["features"][[row_of[name] for name in matched.case_id.tolist()]]


@styled
def tsne_plot(points: Float[np.ndarray, "n 2"], table: Predictions) -> Figure:
    """One point per case, coloured by its true class; a ring marks a case that the network got wrong."""
    figure = new_figure(9.6, 5.6)
    ax = figure.subplots()
    wrong = predicted_class(table.probabilities) != table.target
    handles = []
    for k, (name, color) in enumerate(zip(table.classes, class_colors(table.classes), strict=True)):
        rows = table.target == k
        style = {"marker": MARKERS[k % len(MARKERS)], "color": color}
        ax.scatter(*points[rows].T, s=34, alpha=0.75, linewidths=0, **style)
        handles.append(Line2D([], [], linestyle="", markersize=7, label=f"{name} ({rows.sum()})", **style))
    ring = {"facecolors": "none", "edgecolors": BLACK, "linewidths": 1.4}
    ax.scatter(*points[wrong].T, s=120, **ring)
    handles.append(Line2D([], [], linestyle="", marker="o", markersize=10, markerfacecolor="none",
                          markeredgecolor=BLACK, label=f"wrong ({wrong.sum()})"))
    ax.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), title="truth", alignment="left")
    return figure
