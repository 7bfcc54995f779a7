import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxmed import parallel
from jaxmed.train.state import PARTS
from jaxmed.train.step import Steps, per_case_rows
from tests.train.tiny import Tiny, make_batch, make_steps, run


@pytest.fixture(scope="module")
def trained():
    mesh = parallel.make_mesh()
    steps, state = make_steps(mesh)
    before = parallel.to_host({part: state[part] for part in PARTS})
    after, losses = run(steps, state, mesh, [make_batch(0)] * 20)
    return mesh, steps, before, after, losses


@pytest.fixture
def traces(monkeypatch):
    """Grows by one whenever the network is traced, which compiling again takes."""
    calls, forward = [], Tiny.__call__
    monkeypatch.setattr(Tiny, "__call__", lambda *args, **options: calls.append(1) or forward(*args, **options))
    return calls


def test_the_loss_falls(trained):
    losses = trained[-1]
    assert losses[-1] < 0.8 * losses[0]


def test_other_batches_and_rates_do_not_recompile(traces):
    mesh = parallel.make_mesh()
    steps, state = make_steps(mesh)
    state, _ = run(steps, state, mesh, [make_batch(0)])
    first = len(traces)
    run(steps, state, mesh, [make_batch(1), make_batch(2)], lr=5e-3)
    assert 0 < first == len(traces)


def test_frozen_parameters_have_no_optimiser_state_and_do_not_move(trained):
    _, _, before, after, _ = trained
    np.testing.assert_array_equal(before["frozen"]["stem"]["kernel"], after["frozen"]["stem"]["kernel"])
    assert "stem" not in after["params"] and "stem" not in after["opt"][0].mu
    assert not np.array_equal(before["params"]["head"]["kernel"], after["params"]["head"]["kernel"])


def test_batch_statistics_move_and_meters_count_every_case(trained):
    _, _, before, after, _ = trained
    assert not np.array_equal(before["stats"]["norm"]["mean"], after["stats"]["norm"]["mean"])
    assert float(after["meters"]["count"]) == 20 * 8
    assert int(after["step"]) == 20


def test_one_device_and_four_give_the_same_losses():
    batches = [make_batch(k) for k in range(4)]
    losses = []
    for devices in (jax.devices()[:1], jax.devices()[:4]):
        mesh = Mesh(np.array(devices).reshape(-1, 1), ("data", "fsdp"))
        steps, state = make_steps(mesh)
        losses.append(run(steps, state, mesh, batches)[1])
    assert len(jax.devices()) == 4
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)  # float32 sums in another order


def test_a_state_split_over_fsdp_trains_the_same():
    batches = [make_batch(k) for k in range(4)]
    losses = []
    for ways in (1, 2):
        mesh = parallel.make_mesh(fsdp=ways)
        steps, state = make_steps(mesh)
        if ways == 2:
            kernel = state["params"]["blocks"]["0"]["kernel"]
            assert kernel.addressable_shards[0].data.size == kernel.size // 2
        losses.append(run(steps, state, mesh, batches)[1])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)


def test_evaluation_sees_every_case_once_and_drops_padding(trained):
    mesh, steps, _, state, _ = trained
    full, padded = make_batch(1), make_batch(2)
    padded["case_id"] = np.array([8, 9, 10, 0, 0, 0, 0, 0], np.int32)
    padded["weight"] = np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32)
    parts = {part: state[part] for part in PARTS}

    def evaluate(batch):
        return parallel.to_host(steps.evaluate(parts, parallel.put_batch(batch, mesh)))

    rows = per_case_rows(lambda: [padded, full], evaluate, 11)
    assert rows["case_id"].tolist() == list(range(11))
    np.testing.assert_allclose(rows["prob_benign"] + rows["prob_malignant"], 1.0, rtol=1e-6)
    with pytest.raises(RuntimeError, match="saw 8 cases, expected each of 9"):
        per_case_rows(lambda: [full], evaluate, 9)


def test_a_network_may_want_one_channel_normalised_by_the_image_itself():
    class Own(Tiny):
        normalisation = "image"

    batch = make_batch(0)
    (plain,), (own,) = (Steps(made(), None, None, (0.5,) * 3, (0.25,) * 3, 0).inputs(batch) for made in (Tiny, Own))
    assert plain.shape == (8, 8, 8, 3) and own.shape == (8, 8, 8, 1)
    np.testing.assert_allclose(plain[..., :1], (batch["image"] / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.mean((1, 2, 3)), np.zeros(8), atol=1e-5)
    np.testing.assert_allclose(own.std((1, 2, 3)), np.ones(8), rtol=1e-5)
