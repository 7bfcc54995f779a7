import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.ops.windows import pad_to_multiple, relative_position_index, shift_mask, window_merge, window_partition


@pytest.mark.parametrize("window", [(2, 2), (4, 2), (4, 6)])
def test_windows_are_cut_row_by_row_and_joined_again(window):
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    windows = window_partition(jnp.asarray(x), window)
    rows, columns = window
    corners = [(r, c) for r in range(0, 4, rows) for c in range(0, 6, columns)]
    expected = [image[r : r + rows, c : c + columns].reshape(-1, 3) for image in x for r, c in corners]
    np.testing.assert_array_equal(windows, np.stack(expected))
    np.testing.assert_array_equal(window_merge(windows, window, 4, 6), x)


@pytest.mark.parametrize(("size", "window", "shift"), [((8, 12), 4, (2, 2)), ((7, 14), 7, (0, 3)), ((6, 6), 3, (1, 1))])
def test_after_a_shift_only_tokens_that_were_neighbours_see_each_other(size, window, shift):
    where = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1)
    shifted = np.roll(where, (-shift[0], -shift[1]), (0, 1))[None]
    tokens = np.asarray(window_partition(jnp.asarray(shifted), (window, window)))
    apart = np.abs(tokens[:, :, None] - tokens[:, None, :]).max(-1) >= window
    np.testing.assert_array_equal(shift_mask(*size, window, shift), np.where(apart, -100.0, 0.0))


def test_equal_offsets_share_a_row_of_the_table():
    index, place = relative_position_index(3), np.stack(np.divmod(np.arange(9), 3), -1)
    offsets = {}
    for q in range(9):
        for k in range(9):
            offsets.setdefault(index[q, k], set()).add(tuple(place[q] - place[k]))
    assert sorted(offsets) == list(range(25)) and all(len(found) == 1 for found in offsets.values())
    assert index[0, 8] == 0 and index[8, 0] == 24  # the query at the top left looks at the bottom right


def test_padding_goes_to_the_bottom_and_right():
    x = jnp.ones((1, 5, 8, 1))
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 8, 8, 1) and float(padded[:, :5].min()) == 1 and float(padded[:, 5:].max()) == 0
    assert pad_to_multiple(padded, 4) is padded
