import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.ops.window_pruning import Windows, kept, token_magnitude
from jaxmed.ops.windows import shift_mask, window_partition

MAPS = [(8, 12, 4, 0), (8, 12, 4, 2), (7, 9, 4, 2), (4, 12, 4, 2), (14, 7, 7, 3)]  # height, width, size, shift


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def cut(x, windows):
    """All windows [b, n, t, c], by numpy: pad, roll, cut."""
    grid, s = windows.grid, windows.size
    x = np.pad(x, ((0, 0), (0, grid[0] * s - x.shape[1]), (0, grid[1] * s - x.shape[2]), (0, 0)))
    x = np.roll(x, [-n for n in windows.shifts], (1, 2))
    return np.asarray(window_partition(jnp.asarray(x), (s, s))).reshape(len(x), windows.count, s * s, -1)


@pytest.mark.parametrize("size", MAPS)
def test_taken_windows_are_those_of_the_padded_and_shifted_map(size):
    windows, x = Windows(*size), normal(2, *size[:2], 3)
    index = np.stack([np.random.default_rng(i).permutation(windows.count)[:2] for i in range(2)])
    expected = np.take_along_axis(cut(x, windows), index[:, :, None, None], 1)
    np.testing.assert_array_equal(windows.take(jnp.asarray(x), jnp.asarray(index)), expected)
    np.testing.assert_array_equal(np.asarray(windows.inside(jnp.asarray(index)))[..., None] * expected, expected)


@pytest.mark.parametrize("size", MAPS)
def test_written_windows_come_back_and_the_rest_keeps_its_bits(size):
    windows, x = Windows(*size), jnp.asarray(normal(2, *size[:2], 3))
    index = jnp.asarray([[1], [0]])
    new = jnp.asarray(normal(2, 1, windows.size**2, 3)) * windows.inside(index)[..., None]
    out = windows.put(x, index, new)
    np.testing.assert_array_equal(windows.take(out, index), new)
    np.testing.assert_array_equal(windows.put(out, index, windows.take(x, index)), x)
    others = jnp.asarray([[w for w in range(windows.count) if w != i] for i in (1, 0)])
    np.testing.assert_array_equal(windows.take(out, others), windows.take(x, others))


@pytest.mark.parametrize("size", [s for s in MAPS if s[3]])
def test_the_mask_of_chosen_windows_is_their_part_of_the_shift_mask(size):
    windows = Windows(*size)
    whole = shift_mask(*(n * windows.size for n in windows.grid), windows.size, windows.shifts)
    index = np.array([[windows.count - 1, 0], [1, 0]])
    np.testing.assert_array_equal(windows.mask(jnp.asarray(index)), whole[index])
    assert Windows(*size[:3]).mask(jnp.asarray(index)) is None


@pytest.mark.parametrize("size", MAPS)
def test_scores_are_those_of_the_paper_and_of_sparsevit_over_the_tokens_that_exist(size):
    windows, x = Windows(*size), normal(2, *size[:2], 3)
    tokens, there = cut(x, windows), cut(np.ones_like(x), windows)[..., 0]
    expected = {
        "xpruning": np.linalg.norm(tokens, axis=-1).sum(-1) / there.sum(-1),
        "sparsevit": np.linalg.norm(np.abs(tokens).mean(-1), axis=-1) * np.sqrt(windows.size**2 / there.sum(-1)),
    }
    for score, value in expected.items():
        found = windows.scores(token_magnitude(jnp.asarray(x), score), score)
        np.testing.assert_allclose(found, value, rtol=1e-5)
    with pytest.raises(UserError, match="score='l1' is none of 'xpruning', 'sparsevit'"):
        token_magnitude(jnp.asarray(x), "l1")


def test_the_highest_scores_are_kept_in_order_and_fewer_are_a_part_of_more():
    windows, x = Windows(8, 12, 2), jnp.asarray(normal(3, 8, 12, 5))
    magnitude = token_magnitude(x, "xpruning")
    scores = np.asarray(windows.scores(magnitude, "xpruning"))
    order = np.argsort(-scores, kind="stable")
    for keep in (1, 7, 24):
        np.testing.assert_array_equal(windows.top(magnitude, "xpruning", keep), order[:, :keep])


def test_among_equal_scores_the_first_windows_stay():
    windows = Windows(4, 8, 2)
    np.testing.assert_array_equal(windows.top(jnp.ones((1, 4, 8)), "xpruning", 5), [[0, 1, 2, 3, 4]])


def test_scores_pass_no_gradient():
    windows, x = Windows(4, 8, 2, 1), jnp.asarray(normal(1, 4, 8, 3))

    def best(x):
        return windows.scores(token_magnitude(x, "sparsevit"), "sparsevit").max()

    assert not np.any(jax.grad(best)(x))


def test_the_numbers_of_kept_windows_at_full_size():
    counts = {0.0: [3072, 768, 192, 48], 0.3: [2150, 537, 134, 33], 0.5: [1536, 384, 96, 24]}
    assert {ratio: [kept(n, ratio) for n in counts[0.0]] for ratio in counts} == counts


def test_one_window_always_stays_and_rounding_costs_none():
    assert kept(1, 0.3) == kept(4, 0.99) == 1
    assert kept(10, 0.9) == 1 and kept(10, 0.7) == 3 and kept(100, 0.42) == 58  # 10 (1 - 0.7) is 3.0000000000000004
