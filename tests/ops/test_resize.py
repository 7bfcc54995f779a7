import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.ops.resize import resize

SIZES = [((4, 6), (8, 12)), ((5, 3), (9, 9)), ((8, 7), (3, 5)), ((2, 2), (1, 7)), ((1, 4), (5, 4))]
OPTIONS = [("bilinear", True), ("bilinear", False), ("nearest", False)]


def pixel(image, y, x, method, align_corners, size):
    """One output by torch's documented formula, in float64."""
    (h, w, _), points = image.shape, []
    for i, n, m in ((y, h, size[0]), (x, w, size[1])):
        if method == "nearest":
            points.append(i * n // m)
        elif align_corners:
            points.append(i * (n - 1) / (m - 1) if m > 1 else 0.0)
        else:
            points.append(max((i + 0.5) * n / m - 0.5, 0.0))
    if method == "nearest":
        return image[points[0], points[1]]
    rows, columns = (np.maximum(0, 1 - abs(np.arange(n) - min(p, n - 1))) for p, n in zip(points, (h, w), strict=True))
    return np.einsum("h,w,hwc->c", rows, columns, image)


@pytest.mark.parametrize(("method", "align_corners"), OPTIONS)
@pytest.mark.parametrize(("size", "wanted"), SIZES)
def test_every_pixel_is_the_formula_of_torch(size, wanted, method, align_corners):
    x = np.random.default_rng(0).normal(size=(2, *size, 3))
    places = np.ndindex(2, *wanted)
    expected = np.reshape([pixel(x[b], r, c, method, align_corners, wanted) for b, r, c in places], (2, *wanted, 3))
    got = resize(jnp.asarray(x, jnp.float32), wanted, method, align_corners)
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_a_small_table_of_torchs_own_numbers():
    x = jnp.asarray([1.0, 2.0, 4.0]).reshape(1, 1, 3, 1)
    across = lambda *options: np.asarray(resize(x, (1, 6), *options)).ravel()  # noqa: E731
    np.testing.assert_allclose(across("bilinear", False), [1, 1.25, 1.75, 2.5, 3.5, 4], atol=1e-6)
    np.testing.assert_allclose(across("bilinear", True), [1, 1.4, 1.8, 2.4, 3.2, 4], atol=1e-6)
    np.testing.assert_allclose(across("nearest"), [1, 1, 2, 2, 4, 4])


@pytest.mark.parametrize(("method", "align_corners"), OPTIONS)
def test_the_gradient_is_the_transpose(method, align_corners):
    """The map is linear: <resize(x), g> = <x, gradient> for every x and g."""
    rng = np.random.default_rng(1)
    x, g = (jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32) for size in ((5, 4), (7, 9)))
    y, back = jax.vjp(lambda x: resize(x, (7, 9), method, align_corners), x)
    np.testing.assert_allclose(jnp.vdot(x, back(g)[0]), jnp.vdot(y, g), rtol=1e-5)


def test_half_precision_stays_half_precision():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    y, back = jax.vjp(lambda x: resize(x, (8, 8)), x)
    assert y.dtype == back(y)[0].dtype == jnp.bfloat16


def test_unknown_methods_and_empty_sizes_are_errors():
    with pytest.raises(UserError, match="bicubic"):
        resize(jnp.ones((1, 4, 4, 1)), (8, 8), "bicubic")
    with pytest.raises(UserError, match="0 x 8"):
        resize(jnp.ones((1, 4, 4, 1)), (0, 8))
