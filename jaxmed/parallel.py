"""Devices and processes: the mesh, how arrays lie on it, and how several hosts start as one run.

One process drives all local devices with `jax.jit`; arrays carry `NamedSharding`. A batch is split over the axes `data` and
`fsdp`; the train state is replicated, or split over `fsdp` where that axis is longer than one. BatchNorm over a sharded batch
sees the whole global batch: its statistics are synchronised.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxmed.errors import UserError

BATCH = P(("data", "fsdp"))


def start(distributed: bool) -> None:
    """Joins the processes of one run, before any other use of JAX.

    SLURM, Kubernetes and Cloud TPU are detected by JAX. Elsewhere set JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    if not distributed or jax.distributed.is_initialized():
        return
    count, index = os.environ.get("JAX_NUM_PROCESSES"), os.environ.get("JAX_PROCESS_ID")
    try:
        jax.distributed.initialize(
            num_processes=int(count) if count else None, process_id=int(index) if index else None
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"config.distributed=True, but no cluster was found ({error}). Start through SLURM, Kubernetes or Cloud TPU, "
            "or set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from error


def process() -> tuple[int, int]:
    """(index of this process, number of processes)."""
    return jax.process_index(), jax.process_count()


def is_main() -> bool:
    """Process 0 writes files and prints."""
    return jax.process_index() == 0


def make_mesh(fsdp: int = 1) -> Mesh:
    """All devices of all processes as (data, fsdp); Auto axes, because Explicit ones refuse window reshapes."""
    devices = jax.device_count()
    if fsdp < 1 or devices % fsdp:
        raise UserError(f"config.fsdp={fsdp} does not divide the {devices} devices of this run")
    return jax.make_mesh((devices // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def check_batch_size(batch_size: int, mesh: Mesh, parts: int = 1) -> None:
    """The global batch must split evenly over devices and processes, and there into the parts of an accumulated step."""
    if batch_size % mesh.size:
        raise UserError(f"config.batch_size={batch_size} cannot be split over {mesh.size} devices: use a multiple of it")
    if parts < 1 or batch_size % (mesh.size * parts):
        raise UserError(
            f"config.accumulate={parts} does not cut config.batch_size={batch_size} into equal parts on {mesh.size} device(s)"
        )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch -> global arrays split over the mesh."""
    sharding = NamedSharding(mesh, BATCH)
    return {key: jax.make_array_from_process_local_data(sharding, rows) for key, rows in batch.items()}


def state_shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding for each leaf: its largest axis that `fsdp` divides is split over it, everything else is replicated."""

    def of(leaf):
        axes = [None] * np.ndim(leaf)
        ways = mesh.shape["fsdp"]
        sizes = [n if n % ways == 0 and n >= ways else 0 for n in np.shape(leaf)]
        if ways > 1 and any(sizes):
            axes[int(np.argmax(sizes))] = "fsdp"
        return NamedSharding(mesh, P(*axes))

    return jax.tree.map(of, tree)


def put_state(tree: Any, mesh: Mesh) -> Any:
    """Host arrays (the same on every process) -> global arrays laid out by `state_shardings`."""

    def put(leaf, sharding):
        leaf = np.asarray(leaf)
        return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

    return jax.tree.map(put, tree, state_shardings(tree, mesh))


def to_host(tree: Any) -> Any:
    """Global arrays -> numpy, whole, on every process."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)


def any_process(flag: bool) -> bool:
    """Whether any process raised the flag; a barrier when there are several."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def barrier(name: str) -> None:
    """All processes reach this line before any goes on."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
