import jax.numpy as jnp
import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.train.flips import flip_axes, mean_over_flips

RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(RNG.normal(size=(2, 4, 6, 1)), jnp.float32)
KERNEL = jnp.asarray(RNG.normal(size=(1, 4, 6, 1)), jnp.float32)


def forward(inputs):
    """Neither output is the same for a mirror image: a map per pixel, and a number per case inside a further block."""
    return {"mask_logits": inputs[0] * KERNEL, "parts": {"logits": (inputs[0] * KERNEL).sum((1, 2))}}


@pytest.mark.parametrize(("flips", "turns"), [("h", ("", "h")), ("v", ("", "v")), ("hv", ("", "h", "v", "hv"))])
def test_the_mean_is_over_the_outputs_turned_back(flips, turns):
    out = mean_over_flips(forward, [IMAGE], flip_axes(flips, "segmentation"))
    image, kernel = np.asarray(IMAGE), np.asarray(KERNEL)
    kernels = [kernel[:, :: -1 if "v" in turn else 1, :: -1 if "h" in turn else 1] for turn in turns]
    np.testing.assert_allclose(out["mask_logits"], image * np.mean(kernels, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out["parts"]["logits"], (image * np.mean(kernels, 0)).sum((1, 2)), rtol=1e-5, atol=1e-5)


def test_nothing_changes_without_flips():
    for flips in ("", "none"):
        out = mean_over_flips(forward, [IMAGE], flip_axes(flips, "four_views"))
        np.testing.assert_array_equal(out["mask_logits"], IMAGE * KERNEL)


def test_a_wrong_word_and_views_that_are_oriented_alike_are_errors():
    with pytest.raises(UserError, match="'both' is unknown; choose one of none, h, v, hv"):
        flip_axes("both", "segmentation")
    with pytest.raises(UserError, match="two_views.*oriented alike"):
        flip_axes("h", "two_views")
