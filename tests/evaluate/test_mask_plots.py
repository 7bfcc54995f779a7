"""Figures of masks: the right pictures, the right heights, colours that stay apart."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxmed.evaluate.mask_panels import overlay_text, strip_rows
from jaxmed.evaluate.mask_plots import Strip, overlap_histogram, overlay_plot, size_plot
from jaxmed.evaluate.mask_sizes import lesion_size, lesions, size_groups
from jaxmed.evaluate.style import SKY, YELLOW, to_png
from jaxmed.evaluate.table import concatenate
from jaxmed.evaluate.upa import PUBLISHED, upa_levels, upa_plot

from .synthetic import make_lesions, make_table


def test_lesions_are_one_row_per_case_with_means_over_repeats():
    tables = [make_lesions(12, seed=r, repeat=r)[0] for r in range(2)]
    table = lesions(concatenate(tables))
    assert len(table) == 8 and (table.extras["lesion_pixels"] > 0).all()
    expected = np.mean([t.extras["iou"][2] for t in tables])
    assert table.extras["iou"][table.case_id == "test-002"] == pytest.approx(expected)


def test_thirds_are_ranked_by_size_and_have_the_mean_of_their_lesions():
    table = lesions(make_lesions(60)[0])
    groups, order = size_groups(table), np.argsort(lesion_size(table), kind="stable")
    assert [group.number for group in groups] == [14, 13, 13]
    assert groups[0].largest <= groups[1].smallest and groups[1].largest <= groups[2].smallest
    for group, rows in zip(groups, (order[:14], order[14:27], order[27:]), strict=True):
        assert group.mean == pytest.approx(table.extras["iou"][rows].mean())
        assert group.low < group.mean < group.high


def test_two_lesions_have_no_thirds():
    assert size_groups(lesions(make_lesions(3)[0])) == []


@pytest.mark.parametrize("cases", [4, 6, 9, 30, 90])
def test_strips_show_every_lesion_once_from_the_worst_to_the_best(cases):
    table = make_lesions(cases)[0]
    strips = strip_rows(table)
    shown = [row.case_id[0] for name in ("worst", "median", "best") for row in strips.get(name, ())]
    values = [row.extras["iou"][0] for name in ("worst", "median", "best") for row in strips.get(name, ())]
    assert len(set(shown)) == len(shown) and values == sorted(values)
    overlap = np.sort(lesions(table).extras["iou"])
    assert values[0] == overlap[0] and values[-1] == overlap[-1] and len(strips["worst"]) <= 5
    if cases == 90:
        middle = [row.extras["iou"][0] for row in strips["median"]]
        assert min(middle) <= np.median(overlap) <= max(middle)


def test_the_largest_false_alarms_get_a_strip_of_their_own():
    assert [row.case_id[0] for row in strip_rows(make_lesions(9)[0])["false alarms"]] == ["test-003"]
    assert "false alarms" not in strip_rows(make_lesions(3)[0])


def test_the_text_of_a_picture_says_what_the_network_called_it_where_that_is_wrong():
    table = make_lesions(9)[0].take(np.arange(3))
    table.target = np.array([0, 1, 2])  # normal, benign, malignant
    table.probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.3, 0.5, 0.2]])
    texts = [overlay_text(table.take(np.array([i]))).splitlines()[1:] for i in range(3)]
    assert [line[0].split(", ")[1] for line in texts] == ["normal", "benign", "malignant"]
    assert [line[1:] for line in texts] == [[], [], ["called benign"]]
    masks = table.take(np.array([2]))
    masks.probabilities = np.empty((1, 0))
    assert overlay_text(masks).splitlines()[1:] == texts[2][:1]


def test_true_and_drawn_contours_have_their_colours_and_an_empty_mask_has_none():
    _, files = make_lesions(6)
    figure = overlay_plot([Strip("worst", [(files[1], "nothing drawn"), (files[2], "both"), (files[3], "false alarm")])])
    colors = [[to_hex(line.get_edgecolor()[0]).upper() for line in ax.collections] for ax in figure.axes]
    assert colors == [[YELLOW], [YELLOW, SKY], [SKY]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["true mask", "drawn by the network"]


def test_the_contour_lies_on_the_edge_of_the_mask():
    _, files = make_lesions(6)
    ax = overlay_plot([Strip("worst", [(files[2], "")])]).axes[0]
    rows, columns = np.nonzero(files[2].true)
    points = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    assert points.min(0) == pytest.approx((columns.min() - 0.5, rows.min() - 0.5))
    assert points.max(0) == pytest.approx((columns.max() + 0.5, rows.max() + 0.5))


def test_every_lesion_is_a_mark_and_every_third_a_bar():
    table = lesions(make_lesions(45)[0])
    ax = size_plot(table).axes[0]
    marks = np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets()) > 1])
    assert sorted(marks[:, 1]) == pytest.approx(sorted(table.extras["iou"]))
    assert [line.get_ydata()[0] for line in ax.get_lines()] == pytest.approx([group.mean for group in size_groups(table)])


def test_the_histogram_counts_every_lesion_also_those_of_unknown_class():
    table = make_lesions(45)[0]
    table.target[4] = -1
    ax = overlap_histogram(lesions(table)).axes[0]
    assert sum(patch.get_height() for patch in ax.patches) == 30
    assert [ax.get_lines()[k].get_xdata()[0] for k in (0, 1)] == pytest.approx(
        [np.mean(lesions(table).extras["iou"]), np.median(lesions(table).extras["iou"])])


def test_bars_of_decoder_levels_are_mean_weights_beside_the_published():
    table, _ = make_lesions(30)
    assert upa_levels(table) == ["d1", "d2", "d3", "d4"] and upa_levels(make_table(6)) == []
    figure = upa_plot(table, upa_levels(table))
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    means = [table.extras[f"upa_{level}_{task}"].mean() for level in PUBLISHED for task in ("seg", "cls")]
    assert heights == pytest.approx(means)
    published = [line.get_ydata()[0] for line in figure.axes[0].get_lines() if len(set(line.get_ydata())) == 1]
    assert set(PUBLISHED.values()) <= set(published)
    assert to_png(figure).startswith(b"\x89PNG")
