import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_source import FakeSource

from jaxmed.data.augment import DEFAULT
from jaxmed.data.cache import build_cache
from jaxmed.data.image_loader import ImageLoader
from jaxmed.data.pipeline import Pipeline, steps_per_epoch
from jaxmed.data.views import derive_views
from jaxmed.errors import UserError

COUNT, BATCH = 13, 8
VIEWS = ("image", "core", "boundary")


@pytest.fixture(scope="module")
def source():
    return FakeSource(COUNT)


@pytest.fixture(scope="module")
def cache(source, tmp_path_factory):
    return build_cache(source, 32, tmp_path_factory.mktemp("cache"), log=lambda line: None)


@pytest.fixture
def pipeline(source, cache):
    labels = np.array([case.label for case in source.cases])

    def make(inputs=VIEWS, *, seed=42, augment=DEFAULT, workers=0, process=(0, 1), labels=labels):
        return Pipeline(ImageLoader(cache, labels, inputs, augment), seed=seed, workers=workers, process=process)

    return make


def first(batches, count):
    with batches:
        return [next(batches) for _ in range(count)]


def assert_same(one, two):
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def test_batches_have_the_promised_keys_shapes_and_types(pipeline):
    (batch,) = first(pipeline((*VIEWS, "mask")).train(range(COUNT), BATCH), 1)
    assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
        **{name: ("uint8", (BATCH, 32, 32, 1)) for name in (*VIEWS, "mask")},
        "label": ("int32", (BATCH,)),
        "case_id": ("int32", (BATCH,)),
        "weight": ("float32", (BATCH,)),
    }
    assert set(np.unique(batch["mask"])) == {0, 1}
    assert (batch["weight"] == 1).all()


def test_rows_hold_their_own_case(pipeline, source, cache):
    (batch,) = first(pipeline(augment=None).train(range(COUNT), BATCH), 1)
    for position, row in enumerate(batch["case_id"]):
        assert batch["label"][position] == source.cases[row].label
        for name, view in derive_views(*cache.load(int(row)), VIEWS).items():
            np.testing.assert_array_equal(batch[name][position, ..., 0], view)


def test_views_are_made_from_the_augmented_image_and_mask(pipeline):
    (batch,) = first(pipeline((*VIEWS, "mask")).train(range(COUNT), BATCH), 1)
    for position in range(BATCH):
        made = derive_views(batch["image"][position, ..., 0], batch["mask"][position, ..., 0], ("core", "boundary"))
        np.testing.assert_array_equal(batch["core"][position, ..., 0], made["core"])
        np.testing.assert_array_equal(batch["boundary"][position, ..., 0], made["boundary"])


def test_an_epoch_shows_every_case_once_in_a_new_order_across_batch_borders(pipeline):
    rows = np.concatenate([batch["case_id"] for batch in first(pipeline().train(range(COUNT), BATCH), 5)])
    epochs = rows[: 3 * COUNT].reshape(3, COUNT)
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert steps_per_epoch(COUNT, BATCH) == 2


def test_each_epoch_augments_anew(pipeline):
    batches = first(pipeline(("image",)).train([4], 2), 3)
    pictures = np.concatenate([batch["image"] for batch in batches])
    assert len({picture.tobytes() for picture in pictures}) >= 5


def test_another_seed_gives_another_order_also_in_later_epochs(pipeline):
    def orders(seed):
        rows = np.concatenate([batch["case_id"] for batch in first(pipeline(seed=seed).train(range(COUNT), COUNT), 4)])
        return {tuple(epoch) for epoch in rows.reshape(4, COUNT)}

    assert not orders(42) & orders(43)


def test_fewer_cases_than_a_batch_still_fill_it(pipeline):
    batches = first(pipeline(augment=None).train([2, 5, 7], BATCH), 3)
    rows = np.concatenate([batch["case_id"] for batch in batches])
    assert np.bincount(rows)[[2, 5, 7]].tolist() == [8, 8, 8]
    assert steps_per_epoch(3, BATCH) == 1


def test_batches_of_one_hold_the_cases_of_larger_batches_in_their_order(pipeline):
    (together,) = first(pipeline().train(range(COUNT), BATCH), 1)
    alone = first(pipeline().train(range(COUNT), 1, start=2), BATCH - 2)
    np.testing.assert_array_equal([batch["image"][0] for batch in alone], together["image"][2:])


def test_a_resumed_run_with_other_workers_repeats_the_batches_bit_for_bit(pipeline):
    whole = first(pipeline(workers=0).train(range(COUNT), BATCH), 8)
    resumed = first(pipeline(workers=0).train(range(COUNT), BATCH, start=3), 5)
    other_workers = first(pipeline(workers=2).train(range(COUNT), BATCH, start=3), 5)
    for one, two, three in zip(whole[3:], resumed, other_workers, strict=True):
        assert_same(one, two)
        assert_same(one, three)
        assert all(type(value) is np.ndarray for value in three.values())
    assert multiprocessing.active_children() == []


def test_two_processes_share_the_batches_of_one(pipeline):
    whole = first(pipeline().train(range(COUNT), BATCH, start=1), 4)
    halves = [first(pipeline(process=(index, 2)).train(range(COUNT), BATCH, start=1), 4) for index in range(2)]
    for step, batch in enumerate(whole):
        for index in range(2):
            assert_same(halves[index][step], {key: np.split(value, 2)[index] for key, value in batch.items()})


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_visits_every_case_exactly_once(pipeline, processes):
    cases = [1, 3, 4, 6, 7, 8, 9, 10, 12]
    seen = []
    for index in range(processes):
        batches = list(pipeline(process=(index, processes)).evaluate(cases, 4))
        assert len(batches) == 3
        assert all(batch["image"].shape[0] == 4 // processes for batch in batches)
        for batch in batches:
            seen += batch["case_id"][batch["weight"] > 0].tolist()
            padding = batch["weight"] == 0
            assert (batch["case_id"][padding] == -1).all() and not batch["image"][padding].any()
    assert sorted(seen) == cases


def test_evaluation_keeps_the_order_and_does_not_augment(pipeline, cache):
    (batch,) = list(pipeline(("image",)).evaluate([9, 2, 5], 3))
    assert batch["case_id"].tolist() == [9, 2, 5]
    np.testing.assert_array_equal(batch["image"][1, ..., 0], cache.load(2)[0])


def test_evaluation_works_without_labels(pipeline):
    (batch,) = list(pipeline(labels=np.full(COUNT, -1)).evaluate([0, 1], 2))
    assert batch["label"].tolist() == [-1, -1]


def test_a_closed_iterator_gives_nothing_more(pipeline):
    batches = pipeline().train(range(COUNT), BATCH)
    batches.close()
    batches.close()
    with pytest.raises(ValueError, match="closed"):
        next(batches)


def test_what_a_worker_receives_is_small(pipeline):
    load = pipeline().loader
    load(0, np.random.default_rng(0))  # opens the file
    assert len(pickle.dumps(load)) < 2000


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda make: make(("image", "halo")), "input 'halo' is unknown"),
        (lambda make: make(augment={"zoom": 1}), "augment.zoom is unknown"),
        (lambda make: make(labels=np.zeros(4)), "4 labels for 13 cached cases"),
        (lambda make: make().train([], 4), "no cases"),
        (lambda make: make().train([13], 4), r"rows must lie in 0..12"),
        (lambda make: make(process=(0, 3)).train([1, 2], 8), "batch_size=8 must be a positive multiple of the 3 processes"),
        (lambda make: make(labels=np.full(COUNT, -1)).train([1, 2], 2), "case 1 has no label"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_batch(pipeline, use, message):
    with pytest.raises(UserError, match=message):
        use(pipeline)


def test_inputs_that_need_a_mask_name_the_mask_free_option(source, tmp_path):
    bare = FakeSource(3)
    bare.has_masks = False
    cache = build_cache(bare, 16, tmp_path, log=lambda line: None)
    with pytest.raises(UserError, match=r"'core' is made from the lesion's `mask`.*experts=\(\"image\",\)"):
        ImageLoader(cache, np.zeros(3), VIEWS)
    ImageLoader(cache, np.zeros(3), ("image",))


def test_a_case_that_was_left_out_of_the_cache_is_refused(tmp_path):
    source = FakeSource(3)
    source.bad = {1: "a.png: corrupt"}
    cache = build_cache(source, 16, tmp_path, skip_bad=True, log=lambda line: None)
    with pytest.raises(UserError, match="case 1 .* a.png: corrupt"):
        Pipeline(ImageLoader(cache, np.zeros(3), ("image",)), seed=0, workers=0).train([0, 1], 2)


def test_workers_ask_for_shared_memory_before_they_run_out_of_it(pipeline, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr("jaxmed.data.pipeline.shutil.disk_usage", lambda path: Usage)
    with pytest.raises(UserError, match="workers=0"):
        pipeline(workers=2).train(range(COUNT), BATCH)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
if __name__ == "__main__":
    import numpy as np
    from fake_source import FakeSource
    from jaxmed.data.cache import build_cache
    from jaxmed.data.image_loader import ImageLoader
    from jaxmed.data.pipeline import Pipeline
    cache = build_cache(FakeSource(6), 16, {folder!r}, log=lambda line: None)
    loader = ImageLoader(cache, np.zeros(6), ("image", "core"), {{"hflip": 0.5}})
    pipeline = Pipeline(loader, seed=0, workers={workers})
    batches = pipeline.train(range(6), 2)
    next(batches)
"""


def script(folder, workers, then):
    text = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), workers=workers)
    return text + "".join(f"    {line}\n" for line in then)


@pytest.mark.parametrize("last", ["batches.close()", "pass"])
def test_the_data_side_never_starts_a_jax_backend_and_prints_nothing(tmp_path, last):
    workers = 2 if last == "pass" else 0
    then = [last, "from jax._src import xla_bridge", "sys.exit(int(xla_bridge.backends_are_initialized()))"]
    run = subprocess.run([sys.executable, "-c", script(tmp_path, workers, then)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def parent_and_state(pid):
    """(parent, state letter) of a process, None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[1]), fields[0]


def children_of(parent):
    pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if (parent_and_state(pid) or (0, "Z"))[0] == parent and alive(pid)]


def alive(pid):
    found = parent_and_state(pid)
    return found is not None and found[1] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_ignore_the_schedulers_signals_and_die_with_a_killed_trainer(tmp_path):
    path = tmp_path / "trainer.py"
    then = ["print('ready', flush=True)", "sys.stdin.readline()", "[next(batches) for _ in range(20)]"]
    path.write_text(script(tmp_path, 2, [*then, "print('still', flush=True)", "sys.stdin.readline()"]))
    trainer = subprocess.Popen(
        [sys.executable, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # where the resource tracker reports what it cleans up
        text=True,
    )
    try:
        assert trainer.stdout.readline() == "ready\n"
        children = children_of(trainer.pid)
        workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(workers) == 2
        for pid in workers:
            for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(pid, name)
        print("go", file=trainer.stdin, flush=True)
        assert trainer.stdout.readline() == "still\n"
        assert set(workers) <= set(children_of(trainer.pid))
    finally:
        trainer.kill()
        trainer.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in workers)
