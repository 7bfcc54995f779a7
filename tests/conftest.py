"""Strict numerics for every test: rank promotion raises, full precision, four host devices."""

import os
from pathlib import Path

# four devices; LLVM without optimisation compiles a third faster, and compiling is most of what tests do
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory):
    """Decoded images and compiled programs of tests never land in the user's cache, nor come from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXMED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def busi_dir() -> Path:
    """The real BUSI folder; skipped where there is none, an error under CI, which always has it."""
    here = Path(__file__).resolve().parents[1]
    for folder in (os.environ.get("JAXMED_BUSI_DIR", ""), here.parent / "shared/data/Dataset_BUSI_with_GT"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    message = "set JAXMED_BUSI_DIR to the folder Dataset_BUSI_with_GT"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
