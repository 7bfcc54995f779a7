import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.ops.roi import cells_to_pixels, crop_rois, crop_window, greedy_windows


def brute_force(saliency, window, count):
    """Every window of every step, by loops over numpy float64."""
    corners = []
    for maps in saliency.astype(np.float64):
        low, high = maps.min((0, 1)), maps.max((0, 1))
        left = ((maps - low) / np.where(high > low, high - low, 1)).sum(-1)
        corners.append([])
        for _ in range(count):
            best, where = -1.0, None
            for r in range(left.shape[0] - window[0] + 1):
                for c in range(left.shape[1] - window[1] + 1):
                    score = left[r : r + window[0], c : c + window[1]].mean()
                    if score > best:
                        best, where = score, (r, c)
            corners[-1].append(where)
            left[where[0] : where[0] + window[0], where[1] : where[1] + window[1]] = 0
    return np.array(corners)


@pytest.mark.parametrize(("shape", "window", "count"), [((3, 9, 7, 2), (4, 3), 5), ((2, 12, 8, 1), (2, 2), 6)])
def test_windows_are_those_of_a_search_through_all_of_them(shape, window, count):
    saliency = np.random.default_rng(0).random(shape).astype(np.float32)
    found = jax.jit(greedy_windows, static_argnums=(1, 2))(jnp.asarray(saliency), window, count)
    np.testing.assert_array_equal(found, brute_force(saliency, window, count))


def test_among_equal_windows_the_first_row_by_row_is_taken():
    saliency = np.zeros((1, 6, 6, 1), np.float32)
    saliency[0, [1, 1, 4], [1, 4, 0]] = 1
    np.testing.assert_array_equal(greedy_windows(jnp.asarray(saliency), (1, 1), 4)[0], [[1, 1], [1, 4], [4, 0], [0, 0]])
    np.testing.assert_array_equal(greedy_windows(jnp.asarray(saliency), (2, 2), 2)[0], [[0, 0], [0, 3]])


def test_a_constant_map_adds_nothing_and_alone_gives_the_first_window():
    one = np.random.default_rng(1).random((1, 8, 8, 1)).astype(np.float32)
    both = np.concatenate([one, np.full_like(one, 0.7)], -1)
    np.testing.assert_array_equal(greedy_windows(jnp.asarray(both), (3, 3), 3), greedy_windows(jnp.asarray(one), (3, 3), 3))
    np.testing.assert_array_equal(greedy_windows(jnp.full((1, 4, 4, 2), 0.3), (2, 2), 2), np.zeros((1, 2, 2)))


def test_window_and_pixels_are_shares_of_the_image():
    assert crop_window(256, (2944, 1920), (46, 30)) == (4, 4)
    assert crop_window(256, (2688, 896), (42, 14)) == (4, 4)
    assert crop_window(16, (128, 64), (2, 1)) == (1, 1)
    assert crop_window(512, (128, 64), (2, 1)) == (2, 1)
    cells = np.array([[45, 29], [7, 1]])
    np.testing.assert_array_equal(cells_to_pixels(jnp.asarray(cells), (46, 30), (2944, 1920)), cells * 64)
    np.testing.assert_array_equal(cells_to_pixels(jnp.asarray([[1, 2]]), (3, 3), (100, 70)), [[33, 47]])


@pytest.mark.parametrize("size", [3, 7, 10])
def test_crops_keep_the_pixels_and_fill_what_lies_outside(size):
    image = np.random.default_rng(3).standard_normal((2, 8, 9, 1)).astype(np.float32)
    corners = np.array([[[0, 0], [5, 6], [2, 8]], [[7, 1], [1, 2], [3, 3]]])
    found = np.asarray(crop_rois(jnp.asarray(image), jnp.asarray(corners), size))
    for b, k in np.ndindex(2, 3):
        r, c = corners[b, k]
        content = image[b, r : r + size, c : c + size]
        expected = np.full((size, size, 1), image[b].min())
        expected[size - content.shape[0] :, size - content.shape[1] :] = content
        np.testing.assert_array_equal(found[b, k], expected)
