"""Networks of single images on two views: each view by itself, the mean of their probabilities, weights by role."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit, softmax

import jaxmed
from jaxmed.errors import UserError
from jaxmed.models.each_view import EachView, joined
from jaxmed.tasks.classification import Classification
from jaxmed.weights import to_state_dict
from tests.weights.networks import assert_same, filled, leaves

TINY = dict(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_heads=(1, 2, 4, 8), window_size=4)
BATCH = {"label": jnp.array([0, 1, 1]), "weight": jnp.ones(3)}


def views(b=3):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal((b, 64, 32, 3)), jnp.float32) for _ in range(2)]


@pytest.fixture(scope="module")
def seen():
    """(answers to each view alone, answers to both) of one pruned Swin."""
    encoder = filled("swin_pruned_tiny", 2, **TINY, drop_path=0.0)  # at the start all windows' scores are nearly equal
    model, (cc, mlo) = EachView(encoder), views()
    alone = [jax.jit(lambda m, x: m(x, aux=True))(encoder, x) for x in (cc, mlo)]
    return alone, jax.jit(lambda m, cc, mlo: m(cc, mlo, aux=True))(model, cc, mlo)


def test_each_view_is_seen_as_if_it_were_alone(seen):
    alone, out = seen
    assert out["member_logits"].shape == (3, 2, 2) and out["features"].shape == (3, 2 * 64)
    for k, view in enumerate(("cc", "mlo")):
        np.testing.assert_allclose(out["member_logits"][:, k], alone[k]["logits"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["features"][:, 64 * k :][:, :64], alone[k]["features"], rtol=1e-4, atol=1e-5)
        for a, b in zip(out["windows"][view], alone[k]["windows"], strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_breasts_probability_is_the_mean_and_each_view_learns_from_its_label(seen):
    alone, out = seen
    each = softmax(np.stack([one["logits"] for one in alone], 1).astype(np.float64), -1)
    np.testing.assert_allclose(softmax(np.asarray(out["logits"], np.float64), -1), each.mean(1), rtol=1e-4)
    losses = Classification(("benign", "malignant")).losses(out, BATCH)
    np.testing.assert_allclose(losses, -np.log(each[np.arange(3), :, [0, 1, 1]]).sum(1), rtol=1e-4)


def test_probabilities_of_independent_findings_are_averaged_each_by_itself():
    members = np.random.default_rng(1).standard_normal((4, 2, 3)) * 5
    np.testing.assert_allclose(expit(np.asarray(joined(jnp.asarray(members), "sigmoid"), np.float64)), expit(members).mean(1),
                               rtol=1e-5)  # fmt: skip


def test_weights_fill_the_encoder_by_its_role_and_leave_a_head_of_other_classes_alone():
    source = filled("swin_tiny_patch4_window7_224", 7, **TINY)
    model = EachView(filled("swin_pruned_tiny", 2, seed=1, **TINY))
    head = np.asarray(model.encoder.head["fc"].kernel.get_value())
    jaxmed.load_weights(model, to_state_dict(source), into="encoder", new_head=True)
    assert_same({k: v for k, v in leaves(model.encoder).items() if not k.startswith("head.")},
                {k: v for k, v in leaves(source).items() if not k.startswith("head.")})  # fmt: skip
    np.testing.assert_array_equal(model.encoder.head["fc"].kernel.get_value(), head)


def test_frozen_paths_and_counts_are_the_encoders():
    encoder = nnx.eval_shape(lambda: jaxmed.create_model("swin_pruned_tiny", 2))
    model = nnx.eval_shape(lambda: EachView(jaxmed.create_model("swin_pruned_tiny", 2)))
    assert model.frozen == tuple(f"encoder.{path}" for path in encoder.frozen)
    assert jaxmed.count(model, trainable=True) == 26_027_064 + 1_538
    with pytest.raises(UserError, match="the views are two arrays"):
        jax.eval_shape(lambda m: m(views()[0], views(2)[0]), model)
