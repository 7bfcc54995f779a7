"""Layers of the segmentation baselines against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmed.nn.clinical_fusion import ClinicalFusion
from jaxmed.nn.context_bridge import REDUCTIONS, ScaleReduce, to_maps, to_tokens
from jaxmed.nn.mix_ffn import MixFFNSkip
from jaxmed.nn.object_context import ObjectContext, gather_regions
from jaxmed.nn.receptive_field import ReceptiveField
from tests.weights.networks import leaves

RNG = np.random.default_rng(0)
BN = 1 / np.sqrt(1 + 1e-5)  # a fresh batch norm when it infers


def normal(*shape):
    return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def filled(layer):
    """Normal numbers in every parameter but the scales and biases of fresh batch norms."""
    for path, leaf in nnx.to_flat_state(nnx.state(layer, nnx.Param)):
        if path[-2] != "bn":
            leaf.set_value(0.3 * normal(*leaf.shape))
    return layer


def weights(layer):
    return {name: np.asarray(value, np.float64) for name, value in leaves(layer).items()}


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def layer_norm(x, w, name):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.scale"] + w[f"{name}.bias"]


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


MAPS = [normal(2, 16, 24, 2), normal(2, 8, 12, 4), normal(2, 4, 6, 10), normal(2, 2, 3, 16)]


def test_maps_become_tokens_pixel_by_pixel_and_come_back():
    tokens = to_tokens(MAPS, 2)
    assert tokens.shape == (2, 16 * 24 + 2 * 8 * 12 + 5 * 4 * 6 + 8 * 2 * 3, 2)
    np.testing.assert_array_equal(tokens[:, 16 * 24 : 16 * 24 + 2].reshape(2, 4), MAPS[1][:, 0, 0])
    for back, x in zip(to_maps(tokens, [x.shape[1:] for x in MAPS]), MAPS, strict=True):
        np.testing.assert_array_equal(back, x)


def test_shrunken_maps_are_cut_into_tokens_channels_first():
    layer = filled(ScaleReduce((2, 4, 10, 16), rngs=nnx.Rngs(0)))
    w, rows = weights(layer), []
    for k, (x, r) in enumerate(zip(MAPS[:-1], REDUCTIONS, strict=True)):
        patches = np.asarray(x, np.float64).reshape(2, 2, r, 3, r, -1)
        small = np.einsum("bhiwjc,ijco->bohw", patches, w[f"sr.{k}.kernel"]) + w[f"sr.{k}.bias"][:, None, None]
        flat = small.reshape(2, -1)
        count = flat.shape[1] // 2
        rows += [flat[:, [t, count + t]] for t in range(count)]
    kept = np.asarray(MAPS[-1], np.float64).reshape(2, -1, 2)
    close(jax.jit(lambda maps: layer(maps))(MAPS), layer_norm(np.concatenate([np.stack(rows, 1), kept], 1), w, "norm"))


def test_mix_ffn_adds_the_convolution_to_what_it_sees():
    layer = filled(MixFFNSkip(3, rngs=nnx.Rngs(0)))
    w, x = weights(layer), normal(2, 4, 5, 3)
    hidden = np.asarray(x, np.float64) @ w["fc1.kernel"] + w["fc1.bias"]
    padded = np.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + 4, j : j + 5] * w["dwconv.kernel"][i, j, 0] for i in range(3) for j in range(3)]
    wide = layer_norm(sum(taps) + w["dwconv.bias"] + hidden, w, "norm1")
    activated = wide * np.asarray(jax.scipy.stats.norm.cdf(wide))
    close(layer(x), activated @ w["fc2.kernel"] + w["fc2.bias"])


def test_regions_are_means_over_soft_masks():
    x, logits = normal(2, 3, 4, 5), normal(2, 3, 4, 2)
    share = softmax(np.asarray(logits, np.float64).reshape(2, 12, 2), 1)
    close(gather_regions(x, logits), np.einsum("bpk,bpc->bkc", share, np.asarray(x).reshape(2, 12, 5)))


def test_object_context_mixes_regions_by_their_likeness_to_each_pixel():
    layer = filled(ObjectContext(5, 3, rngs=nnx.Rngs(0)))
    w, x, regions = weights(layer), normal(2, 3, 4, 5), normal(2, 2, 5)

    def conv(name, y):
        return np.maximum(np.asarray(y, np.float64) @ w[f"{name}.conv.kernel"][0, 0] * BN, 0)

    scores = np.einsum("bhwd,bkd->bhwk", conv("phi", x), conv("psi", regions)) / np.sqrt(3)
    context = conv("rho", np.einsum("bhwk,bkc->bhwc", softmax(scores, -1), conv("delta", regions)))
    close(layer(x, regions), conv("join", np.concatenate([x, context], -1)))


def test_clinical_findings_and_image_meet_twice():
    layer = filled(ClinicalFusion(6, 4, rngs=nnx.Rngs(0)))
    w, image, clinical = weights(layer), normal(2, 6), normal(2, 4)

    def fc(name, y):
        return np.asarray(y, np.float64) @ w[f"{name}.kernel"] + w[f"{name}.bias"]

    a, b = fc("fc1", image), fc("fc2", clinical)
    shared = (a[:, 35:] + b[:, 15:]) / 2
    a, b = fc("fc3", np.concatenate([a[:, 20:35], shared], 1)), fc("fc4", np.concatenate([b[:, 10:15], shared], 1))
    close(layer(image, clinical), np.concatenate([a[:, 10:15], (a[:, 15:] + b[:, 15:]) / 2, b[:, 10:15]], 1))


@pytest.mark.parametrize("axis", [1, 2])
def test_the_receptive_field_reaches_eleven_pixels_and_no_further(axis):
    layer = filled(ReceptiveField(2, 3, rngs=nnx.Rngs(0)))  # 7 wide, dilated by 7, then 3 wide: 3 + 7 + 1
    run = jax.jit(lambda x: layer(x))
    x = normal(1, 31, 31, 2)
    changed = x.at[0, 15, 15].add(10.0)
    rows = np.flatnonzero(np.any(np.asarray(run(changed) != run(x)), axis=(0, 3 - axis, 3)))
    assert rows[0] == 4 and rows[-1] == 26
