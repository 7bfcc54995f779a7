"""The records tool writes a source's studies and prints where they are."""

import importlib.util
from pathlib import Path

from jaxmed.data.sources import make_study_source

TOOL = Path(__file__).resolve().parents[2] / "tools" / "prepare_data.py"


def test_a_folder_of_dicom_files_becomes_records(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "data"))
    from dicom_files import half_bright, write_dicom

    for name in ("L_CC", "R_MLO"):
        tags = {"ImageLaterality": name[0], "ViewPosition": name[2:]}
        write_dicom(tmp_path / "in" / f"{name}.dcm", half_bright(right=name[0] == "R"), **tags)
    spec = importlib.util.spec_from_file_location("prepare_data", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main(["--source=folder_views", f"--dir={tmp_path / 'in'}", f"--out={tmp_path / 'out'}", "--size=32"])
    folder = capsys.readouterr().out.strip().splitlines()[-1].removeprefix("records: ")
    source = make_study_source({"source": "study_records", "dir": folder}, predict=True)
    assert len(source) == 1 and source.read(0)["present"].tolist() == [True, False, False, True]
    assert source.read(0)["views"].shape == (4, 32, 32)
