"""Weight files of other kinds, and what training scripts wrap around them."""

import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxmed.errors import UserError
from jaxmed.weights import read_state_dict
from jaxmed.weights.reader import as_arrays
from tests.weights.networks import assert_same

TABLE = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.float16([1, 2])}


def test_safetensors_and_npz_give_the_same_table(tmp_path):
    save_file(TABLE, tmp_path / "w.safetensors")
    np.savez(tmp_path / "w.npz", **TABLE)
    assert_same(read_state_dict(tmp_path / "w.safetensors"), TABLE)
    assert_same(read_state_dict(tmp_path / "w.npz"), TABLE)


def test_bfloat16_survives_safetensors(tmp_path):
    save_file({"a": np.array([1.5, -3], ml_dtypes.bfloat16)}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(read_state_dict(tmp_path / "w.safetensors")["a"].astype(np.float32), [1.5, -3])


def test_containers_are_opened_and_averaged_weights_come_first():
    averaged = {"a": np.ones(2)}
    found = as_arrays({"epoch": 3, "state_dict": {"a": np.zeros(2)}, "state_dict_ema": averaged}, "file")
    assert_same(found, averaged)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_the_prefix_of_a_training_wrapper_is_dropped(prefix):
    assert_same(as_arrays({prefix + key: value for key, value in TABLE.items()}, "file"), TABLE)


def test_a_prefix_on_some_names_only_is_part_of_them():
    assert set(as_arrays({"module.a": np.ones(1), "b": np.ones(1)}, "file")) == {"module.a", "b"}


@pytest.mark.parametrize("entry", [{"x": 1}, "text", None, [1, 2], object()])
def test_an_entry_that_is_no_array_is_named(entry):
    with pytest.raises(UserError, match="w.pth: entry 'optimizer'"):
        as_arrays({"a": np.ones(1), "optimizer": entry}, "w.pth")


def test_a_file_without_weights_is_an_error():
    with pytest.raises(UserError, match="w.pth: holds no weights"):
        as_arrays({}, "w.pth")


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_truncated_table_is_named(tmp_path, suffix):
    file = tmp_path / f"w.{suffix}"
    save_file(TABLE, file) if suffix == "safetensors" else np.savez(file, **TABLE)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"w\.{suffix}: truncated"):
        read_state_dict(file)


def test_an_npz_of_python_objects_is_refused(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"w\.npz: .*Python objects"):
        read_state_dict(tmp_path / "w.npz")


def test_a_missing_file_and_an_unknown_kind_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        read_state_dict(tmp_path / "none.pth")
    (tmp_path / "w.onnx").write_bytes(b"x")
    with pytest.raises(UserError, match=r"w\.onnx: unknown kind"):
        read_state_dict(tmp_path / "w.onnx")


@pytest.mark.parametrize("group", ["", "model_weights"])
def test_keras_variables_keep_their_names(tmp_path, group):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        root = file.create_group(group) if group else file
        root.attrs["layer_names"] = [b"dense", b"relu"]
        root.create_group("relu").attrs["weight_names"] = []
        layer = root.create_group("dense")
        layer.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        layer["dense/kernel:0"], layer["dense/bias:0"] = np.ones((2, 3)), np.zeros(3)
    assert_same(read_state_dict(tmp_path / "w.h5"), {"dense/kernel": np.ones((2, 3)), "dense/bias": np.zeros(3)})


def test_keras_3_files_are_read_by_path(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 3))
    assert_same(read_state_dict(tmp_path / "w.weights.h5"), {"layers/dense/vars/0": np.ones((2, 3))})


def test_a_damaged_keras_file_is_named(tmp_path):
    pytest.importorskip("h5py")
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(UserError, match=r"w\.h5: truncated"):
        read_state_dict(tmp_path / "w.h5")


def test_without_h5py_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"jaxmed\[keras\]"):
        read_state_dict(tmp_path / "w.h5")
