"""PyTorch files are read without torch, and nothing in them is run."""

import io
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest

from jaxmed.errors import UserError
from jaxmed.weights import read_state_dict
from tests.weights.networks import FILES

EXPECTED = {
    "float": np.arange(6, dtype=np.float32).reshape(2, 3), "flipped": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "column": np.float32([1, 4]), "half": np.float16([0.5, -2]), "bfloat": np.float32([1.5, -3]), "double": np.array([1e-300]),
    "long": np.int64(7), "bool": np.array([True, False]), "empty": np.zeros((0, 4), np.float32),
    "parameter": np.float32([8, 9]),
}  # fmt: skip


class Payload:
    """Unpickled by a trusting reader, this makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth", "wrapped.pth"])
def test_every_kind_of_tensor_is_read_from_both_formats_without_torch(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = read_state_dict(FILES / file)
    assert found.keys() == EXPECTED.keys()
    for name, want in EXPECTED.items():
        np.testing.assert_array_equal(found[name].astype(want.dtype), want, err_msg=name)
    assert {str(found[name].dtype) for name in ("half", "bfloat", "long")} == {"float16", "bfloat16", "int64"}


def _as_zip(payload: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    return stream.getvalue()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("container", [_as_zip, bytes], ids=["zip", "plain"])
def test_a_hostile_pickle_is_refused_by_name_and_does_not_run(tmp_path, container, protocol):
    target, file = tmp_path / "made by the payload", tmp_path / "model.pth"
    file.write_bytes(container(pickle.dumps({"state_dict": Payload(target)}, protocol)))
    with pytest.raises(UserError, match=r"model\.pth: refused.*(posix|nt)\.mkdir"):
        read_state_dict(file)
    assert not target.exists()
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.is_dir()  # the payload does work where it is allowed to


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "torch.load", "numpy.load", "functools.partial"])
def test_globals_outside_the_list_are_refused(tmp_path, name):
    module, _, attribute = name.rpartition(".")
    file = tmp_path / "model.pth"
    file.write_bytes(_as_zip(b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."))
    with pytest.raises(UserError, match=f"refused.*{name}"):
        read_state_dict(file)


def test_one_file_cannot_change_how_the_next_is_read(tmp_path):
    file = tmp_path / "model.pth"
    file.write_bytes(_as_zip(b"\x80\x02ctorch\nFloatStorage\n}X\x05\x00\x00\x00dtypeX\x02\x00\x00\x00i1sb."))
    with pytest.raises(UserError, match="not a table of weights"):
        read_state_dict(file)
    assert read_state_dict(FILES / "zip.pth")["float"].dtype == np.float32


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((1000,), (1,), 0), ((2, 3), (3, 1), 1), ((3,), (-1,), 5), ((2,), (10**6,), 0), ((10**9,), (0,), 0), ((2, 2), (1,), 0)],
)
def test_a_tensor_that_leaves_its_storage_is_refused(tmp_path, size, stride, offset):
    file = tmp_path / "model.pth"
    tail = b"".join(_int_tuple(v) for v in (size, stride))
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"I%d\n" % offset + tail + b"tR."
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02" + rebuild)
        archive.writestr("m/data/0", np.arange(6, dtype="<f4").tobytes())
    with pytest.raises(UserError, match="does not fit its storage|damaged"):
        read_state_dict(file)


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuI6\ntQ"


def _int_tuple(values) -> bytes:
    return b"(" + b"".join(b"I%d\n" % v for v in values) + b"t"


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.995])
def test_a_truncated_file_is_named(tmp_path, file, kept):
    whole = (FILES / file).read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UserError, match=r"cut\.pth: .*(truncated|damaged|ends too early)"):
        read_state_dict(cut)


def test_a_torchscript_archive_is_explained():
    with pytest.raises(UserError, match=r"script\.pt: a TorchScript archive"):
        read_state_dict(FILES / "script.pt")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps({"a": 1})])
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, content):
    file = tmp_path / "model.pth"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.pth: .*not a PyTorch checkpoint"):
        read_state_dict(file)
