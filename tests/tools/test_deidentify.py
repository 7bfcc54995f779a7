"""The de-identification tool: files, names, DICOM, report and sheets; tests/data/test_burnt_in.py has the rule itself."""

import csv
import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, UltrasoundImageStorage, generate_uid

from jaxmed.data.phantom_liver import PhantomLiverSource
from jaxmed.errors import UserError

MARKED = ("benign (5)", "benign (249)", "benign (251)", "benign (258)", "benign (271)", "benign (323)", "benign (343)",
          "malignant (10)", "malignant (15)", "malignant (132)")  # fmt: skip
PLAIN = ("benign (26)", "benign (45)", "benign (116)", "benign (169)", "benign (175)", "benign (340)", "benign (365)",
         "malignant (50)", "malignant (86)", "malignant (91)", "malignant (146)", "normal (5)", "normal (32)", "normal (49)",
         "normal (53)", "normal (65)", "normal (71)", "normal (83)", "normal (110)", "normal (120)")  # fmt: skip
TOOL = Path(__file__).parents[2] / "tools" / "deidentify.py"
BUSI = Path(os.environ.get("JAXMED_BUSI_DIR", Path(__file__).parents[3] / "shared/data/Dataset_BUSI_with_GT"))
spec = importlib.util.spec_from_file_location("deidentify", TOOL)
deidentify = importlib.util.module_from_spec(spec)
spec.loader.exec_module(deidentify)


def screen(index=0):
    """A scan of 200 pixels with a name above it, BGR [300, 400, 3]."""
    canvas = np.zeros((300, 400, 3), np.uint8)
    canvas[80:280, 100:300] = PhantomLiverSource({"num_cases": 4, "phantom_size": 200}).read(index)["image"][..., None]
    cv2.putText(canvas, "DOE^JANE", (10, 25), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 220, 255), 1, cv2.LINE_AA)
    return canvas


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def write_dicom(path, pixels, **tags):
    """An ultrasound still from BGR or gray pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    colour = pixels.ndim == 3
    facts = {
        "SOPClassUID": SecondaryCaptureImageStorage, "SOPInstanceUID": dataset.file_meta.MediaStorageSOPInstanceUID,
        "PatientName": "DOE^JANE", "Modality": "US", "SamplesPerPixel": 3 if colour else 1, "BitsAllocated": 8, "BitsStored": 8,
        "HighBit": 7, "PixelRepresentation": 0, "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "Rows": pixels.shape[0], "Columns": pixels.shape[1], "PixelData": (pixels[..., ::-1] if colour else pixels).tobytes(),
    }  # fmt: skip
    if colour:
        facts["PlanarConfiguration"] = 0
    for name, value in (facts | tags).items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


def run(tmp_path, *options):
    folders = [f"--dir={tmp_path / 'in'}", f"--out={tmp_path / 'out'}", f"--review={tmp_path / 'review'}"]
    code = deidentify.main([*folders, *options])
    with open(tmp_path / "review" / "report.csv", newline="") as file:
        return code, list(csv.DictReader(file))


def outputs(tmp_path):
    return sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_a_folder_becomes_png_files_with_a_report_and_sheets(tmp_path, capsys):
    save(tmp_path / "in" / "Benign" / "p1_a.png", screen(0))
    save(tmp_path / "in" / "Benign" / "p1_b.jpg", screen(1))
    write_dicom(tmp_path / "in" / "Malignant" / "p2_a.dcm", screen(2))
    code, rows = run(tmp_path, "--per_sheet=2")
    assert code == 0 and outputs(tmp_path) == ["Benign/p1_a.png", "Benign/p1_b.png", "Malignant/p2_a.png"]
    for number, name in enumerate(outputs(tmp_path)):
        clean = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        assert clean[:40, :150].max() <= 12 and clean.shape == (300, 400, 3)
        if not name.endswith("b.png"):  # lossless
            np.testing.assert_array_equal(clean[150:250, 150:250], screen(number)[150:250, 150:250])
    assert [row["number"] for row in rows] == ["1", "2", "3"] and rows[2]["source"] == "Malignant/p2_a.dcm"
    assert all("colour x=" in row["removed"] and float(row["removed_share"]) > 0.001 for row in rows)
    assert sorted(path.name for path in (tmp_path / "review").glob("*.png")) == ["sheet_0001.png", "sheet_0002.png"]
    printed = capsys.readouterr().out
    assert printed.count("not a certified de-identifier") == 2 and "3 files" in printed


def test_nothing_of_a_dicom_header_is_in_the_png(tmp_path):
    write_dicom(tmp_path / "in" / "a.dcm", screen())
    run(tmp_path)
    assert b"DOE" not in (tmp_path / "out" / "a.png").read_bytes()


def test_dicom_kinds(tmp_path):
    gray = screen().max(2)
    write_dicom(tmp_path / "in" / "gray.dcm", gray)
    write_dicom(tmp_path / "in" / "inverse.dcm", 255 - gray, PhotometricInterpretation="MONOCHROME1")
    region = Dataset()
    region.RegionSpatialFormat = 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 100, 80
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = 299, 179
    write_dicom(tmp_path / "in" / "region.dcm", gray, SequenceOfUltrasoundRegions=Sequence([region]))
    write_dicom(tmp_path / "in" / "loop.dcm", gray, NumberOfFrames=2)
    (tmp_path / "in" / "broken.dcm").write_bytes(b"no dicom")
    code, rows = run(tmp_path)
    found = {row["source"]: row for row in rows}
    assert code == 1 and outputs(tmp_path) == ["gray.png", "inverse.png", "region.png"]
    assert found["loop.dcm"]["status"] == found["broken.dcm"]["status"] == "failed"
    assert "2 frames" in found["loop.dcm"]["message"] and "broken.dcm" in found["broken.dcm"]["message"]
    clean = {name: cv2.imread(str(tmp_path / "out" / f"{name}.png"), cv2.IMREAD_UNCHANGED) for name in ("gray", "inverse")}
    assert clean["gray"].ndim == 2
    np.testing.assert_array_equal(clean["gray"], clean["inverse"])
    assert float(found["region.dcm"]["scan_share"]) <= 200 * 100 / (300 * 400)


def test_pictures_that_cannot_be_treated_are_named_and_not_written(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"\x89PNG")
    save(tmp_path / "in" / "deep.png", np.zeros((50, 50), np.uint16))
    save(tmp_path / "in" / "text.png", np.zeros((50, 50), np.uint8))
    code, rows = run(tmp_path)
    assert code == 1 and outputs(tmp_path) == []
    assert [row["status"] for row in rows] == ["failed"] * 3
    said = ("broken.png: cannot be read", "deep.png: uint16 pixels", "text.png: no scan region")
    assert all(text in row["message"] for text, row in zip(said, rows, strict=True))


def test_renamed_files_keep_patients_together_and_name_nobody(tmp_path):
    for name in ("DOE_1", "DOE_2", "ROE_1"):
        save(tmp_path / "in" / f"{name}.png", screen())
    run(tmp_path, "--rename", "--patient_pattern=^([^_]+)_")
    assert outputs(tmp_path) == ["p00001_001.png", "p00001_002.png", "p00002_001.png"]


def test_a_name_without_patient_and_two_files_of_one_name_are_refused(tmp_path):
    save(tmp_path / "in" / "a.png", screen())
    with pytest.raises(UserError, match="a.png: --patient_pattern"):
        run(tmp_path, "--rename", "--patient_pattern=^([^_]+)_")
    save(tmp_path / "in" / "a.jpg", screen())
    with pytest.raises(UserError, match="both become a.png"):
        run(tmp_path)


def test_folders_must_be_new_and_apart(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        run(tmp_path)
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="no DICOM files or pictures"):
        run(tmp_path)
    save(tmp_path / "in" / "a.png", screen())
    with pytest.raises(UserError, match="none inside another"):
        deidentify.main([f"--dir={tmp_path / 'in'}", f"--out={tmp_path / 'o'}", f"--review={tmp_path / 'o' / 'review'}"])
    save(tmp_path / "out" / "old.png", screen())
    with pytest.raises(UserError, match="out is not empty"):
        run(tmp_path)


def test_the_help_says_what_it_is_not(capsys):
    with pytest.raises(SystemExit):
        deidentify.main(["--help"])
    assert "NOT A CERTIFIED DE-IDENTIFIER" in capsys.readouterr().out


@pytest.mark.skipif(not BUSI.is_dir(), reason=f"no BUSI at {BUSI}")
def test_calipers_and_labels_of_real_breast_pictures_are_reported():
    """Of pictures drawn at random and looked at: all with calipers or a label are reported, and few of those without."""
    assert all(_letters_of(name) for name in MARKED)
    assert sum(bool(_letters_of(name)) for name in PLAIN) <= 2


def _letters_of(name):
    """Boxes but for the ring that many BUSI pictures have in the left upper corner."""
    picture = deidentify.read_picture(BUSI / name.split(" (")[0] / f"{name}.png")
    boxes = deidentify.remove_burnt_in(picture).suspicious
    return [box for box in boxes if box.kind == "letters" and (box.x > 20 or box.y > 15)]
