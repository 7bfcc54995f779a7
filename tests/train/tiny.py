"""A network of a few hundred weights with what the trainer needs: a frozen part, a norm, and two kinds of outputs."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxmed import parallel
from jaxmed.config import base_config
from jaxmed.tasks.classification import Classification
from jaxmed.train.optimizer import make_optimizer
from jaxmed.train.state import new_state
from jaxmed.train.step import Steps

CLASSES = ("benign", "malignant")


class Tiny(nnx.Module):
    input_names = ("image",)
    frozen = ("stem",)
    roles = {}

    def __init__(self, width: int = 4):
        rngs = nnx.Rngs(0)
        self.stem = nnx.Conv(3, width, (3, 3), strides=2, rngs=rngs)
        self.blocks = nnx.List([nnx.Conv(width, width, (3, 3), rngs=rngs)])
        self.norm = nnx.BatchNorm(width, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2)
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, image, train=False, aux=False, rngs=None):
        x = self.norm(self.blocks[0](self.stem(image)), use_running_average=not train)
        features = nnx.relu(x).mean((1, 2))
        dropped = self.dropout(features, deterministic=not train, rngs=rngs) if train else features
        return {"logits": self.head(dropped), "features": features} if aux else self.head(dropped)


def make_steps(mesh, width: int = 4):
    """(compiled steps, state at step 0)"""
    model, optimizer = Tiny(width), make_optimizer(base_config().optimizer)
    task = Classification(CLASSES)
    state = parallel.put_state(new_state(model, optimizer, task.meters), mesh)
    layout = parallel.state_shardings(state, mesh)
    return Steps(model, task, optimizer, (0.5,) * 3, (0.25,) * 3, 42, layout), state


def make_batch(seed: int, size: int = 8) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)
    label = (image.mean((1, 2, 3)) > np.median(image.mean((1, 2, 3)))).astype(np.int32)
    rows = np.arange(size, dtype=np.int32)
    return {"image": image, "label": label, "case_id": rows, "weight": np.ones(size, np.float32)}


def run(steps, state, mesh, batches, lr: float = 1e-2):
    losses = []
    for batch in batches:
        state, loss = steps.train(state, parallel.put_batch(batch, mesh), jnp.float32(lr))
        losses.append(float(loss))
    return jax.block_until_ready(state), losses
