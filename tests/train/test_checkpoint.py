import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmed import parallel
from jaxmed.errors import UserError
from jaxmed.train.checkpoint import Checkpoints
from tests.train.tiny import make_batch, make_steps, run

BATCHES = [make_batch(k) for k in range(6)]


def equal(a, b) -> bool:
    same = jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b)
    return all(jax.tree.leaves(same))


def test_six_steps_equal_three_a_save_a_restore_and_three(tmp_path):
    mesh = parallel.make_mesh()
    steps, state = make_steps(mesh)
    straight, losses = run(steps, state, mesh, BATCHES)
    steps, state = make_steps(mesh)
    half, first = run(steps, state, mesh, BATCHES[:3])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(half, {"note": 0.1 + 0.2}, keep=set())
    run(steps, half, mesh, BATCHES[3:4])  # donates the buffers while they may still be being written
    checkpoints.wait()
    assert checkpoints.host(3) == {"note": 0.1 + 0.2}
    fresh_steps, fresh = make_steps(mesh)
    resumed, second = run(fresh_steps, Checkpoints(tmp_path).restore(3, fresh, mesh), mesh, BATCHES[3:])
    assert first + second == losses
    assert equal(resumed, straight)


def test_only_the_newest_and_the_kept_checkpoints_stay(tmp_path):
    mesh = parallel.make_mesh()
    steps, state = make_steps(mesh)
    checkpoints = Checkpoints(tmp_path)
    for k in range(4):
        state, _ = run(steps, state, mesh, BATCHES[k : k + 1])
        checkpoints.save(state, {}, keep={2})
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4]


def test_another_model_is_refused_by_the_names_of_its_leaves(tmp_path):
    mesh = parallel.make_mesh()
    steps, state = make_steps(mesh)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {}, keep=set())
    checkpoints.wait()
    _, other = make_steps(mesh, width=8)
    other["params"]["extra"] = {"kernel": other["params"]["head"]["kernel"]}
    with pytest.raises(UserError) as error:
        checkpoints.restore(0, other, mesh)
    assert "missing in the file: params.extra.kernel" in str(error.value)
    assert "params.head.kernel: file (4, 2), model (8, 2)" in str(error.value)


def test_a_truncated_checkpoint_is_named(tmp_path):
    mesh = parallel.make_mesh()
    steps, state = make_steps(mesh)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {}, keep=set())
    checkpoints.wait()
    for part in (tmp_path / "0/state").rglob("d/*"):
        os.truncate(part, part.stat().st_size // 2)
    with pytest.raises(UserError, match=r"checkpoint .*/0 cannot be read.*damaged or truncated"):
        checkpoints.restore(0, state, mesh)


FULL_DISK = """
import resource, signal, sys
from jaxmed import parallel
from jaxmed.train.checkpoint import Checkpoints
from tests.train.tiny import make_batch, make_steps, run
mesh = parallel.make_mesh()
steps, state = make_steps(mesh, width=64)
checkpoints = Checkpoints(sys.argv[1])
checkpoints.save(state, {}, keep=set())
checkpoints.wait()
state, _ = run(steps, state, mesh, [make_batch(0)])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    checkpoints.save(state, {}, keep=set())
    checkpoints.wait()
except ValueError as error:
    print(type(error).__name__, error)
print("left:", Checkpoints(sys.argv[1]).steps())
"""


def test_a_full_disk_is_reported_and_the_last_checkpoint_survives(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20_000
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, cwd=root, timeout=240
    )
    assert "UserError" in done.stdout and "the checkpoint of step 0 is intact" in done.stdout, done.stdout + done.stderr
    assert "left: [0]" in done.stdout
