"""The start of small transformers without pretrained weights."""

import jax.numpy as jnp
import numpy as np

import jaxmed
from jaxmed.train.start import wide_start
from jaxmed.tree import flatten, tree_of

SMALL = dict(depths=(1, 1), dims=(16, 32), num_heads=(1, 2), window_size=4)


def test_matrices_get_one_over_root_of_their_inputs_and_only_patch_biases_are_drawn():
    model = jaxmed.create_model("dv_swin_pruned", **SMALL)
    model.head.kernel.set_value(jnp.zeros_like(model.head.kernel.get_value()))
    before = {path: np.asarray(leaf) for path, leaf in flatten(tree_of(model)).items()}
    wide_start(model, 0)
    after = flatten(tree_of(model))
    for path, leaf in before.items():
        if path == "head.kernel":
            assert not after[path].any()
        elif path.endswith("kernel") and leaf.ndim == 2:
            np.testing.assert_allclose(after[path], leaf / leaf.std() / np.sqrt(len(leaf)), rtol=1e-4)
        elif not path.endswith("patch_embed.proj.bias"):
            np.testing.assert_array_equal(after[path], leaf)
    biases = np.concatenate([after[f"{view}.patch_embed.proj.bias"] for view in ("cc", "mlo")])
    assert 0.6 < biases.std() < 1.5 and len(set(biases.tolist())) == 32
