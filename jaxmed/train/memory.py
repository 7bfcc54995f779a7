"""How much memory a run took."""

import resource
import sys

import jax


def on_device() -> bool:
    """Whether devices count their memory (GPU, TPU)."""
    return bool(jax.local_devices()[0].memory_stats())


def peak_memory() -> int:
    """Bytes: the most that a local device held, or, where devices do not count, the most that this process held."""
    if on_device():
        return max(device.memory_stats()["peak_bytes_in_use"] for device in jax.local_devices())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
