"""DICOM mammograms: gray levels by a stated rule, sides and views from any of the usual tags, and errors with a fix."""

import sys

import numpy as np
import pydicom
import pytest
from dicom_files import half_bright, write_dicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import JPEGLosslessSV1, RLELossless

from jaxmed.data.dicom import is_dicom, read_dicom, read_header
from jaxmed.errors import UserError

RAMP = np.tile(np.arange(32, dtype=np.uint16) * 100, (16, 1))


def error_of(path) -> str:
    with pytest.raises(UserError) as caught:
        read_dicom(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_picture_is_stretched_to_16_bits_and_its_facts_are_read(tmp_path):
    image = read_dicom(write_dicom(tmp_path / "a.dcm", RAMP))
    np.testing.assert_array_equal(image.pixels, np.round(RAMP / 3100 * 65535).astype(np.uint16))
    assert image.pixels.dtype == np.uint16
    facts = (image.name, image.laterality, image.view, image.patient_id, image.study_id, image.bits)
    assert facts == ("L_CC", "L", "CC", "p1", "1.2.3", 12)


def test_monochrome1_is_inverted(tmp_path):
    plain = read_dicom(write_dicom(tmp_path / "a.dcm", RAMP)).pixels
    inverted = read_dicom(write_dicom(tmp_path / "b.dcm", RAMP, PhotometricInterpretation="MONOCHROME1")).pixels
    np.testing.assert_array_equal(inverted, 65535 - plain)


def test_the_window_clips_before_the_stretch_and_after_the_rescale(tmp_path):
    tags = {"WindowCenter": 150, "WindowWidth": 101, "RescaleSlope": 0.1, "RescaleIntercept": 0}
    pixels = read_dicom(write_dicom(tmp_path / "a.dcm", RAMP, **tags)).pixels[0]
    assert (pixels[:10] == 0).all() and (pixels[20:] == 65535).all()
    assert 0.45 < pixels[15] / 65535 < 0.55
    assert (np.diff(pixels[10:21].astype(int)) > 0).all()


def test_a_voi_lut_wins_over_the_window(tmp_path):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4, 0, 16], np.array([0, 65535, 30000, 10000], np.uint16).tobytes()
    tags = {"VOILUTSequence": Sequence([lut]), "WindowCenter": 1, "WindowWidth": 2}
    pixels = np.tile(np.arange(4, dtype=np.uint16), (4, 1))
    seen = read_dicom(write_dicom(tmp_path / "a.dcm", pixels, RescaleSlope=1, RescaleIntercept=0, **tags)).pixels
    np.testing.assert_array_equal(seen[0], [0, 65535, 30000, 10000])


def test_marked_padding_is_black_and_does_not_stretch_the_breast(tmp_path):
    pixels = RAMP + 500
    pixels[:, :4] = 100
    tags = {"PixelPaddingValue": 100, "PhotometricInterpretation": "MONOCHROME1"}
    seen = read_dicom(write_dicom(tmp_path / "a.dcm", pixels, **tags)).pixels
    assert (seen[:, :4] == 0).all() and seen[0, 4] == 65535 and seen[0, -1] == 0


def test_signed_pixels_are_read(tmp_path):
    pixels = (np.arange(64, dtype=np.int16).reshape(8, 8) - 32) * 1000
    seen = read_dicom(write_dicom(tmp_path / "a.dcm", pixels, bits=16, PixelRepresentation=1)).pixels
    assert seen[0, 0] == 0 and seen[-1, -1] == 65535 and (np.diff(seen.ravel().astype(int)) > 0).all()


@pytest.mark.parametrize(
    ("orientation", "name"),
    [
        (["A", "R"], "L_CC"),
        (["P", "L"], "R_CC"),
        (["A", "FR"], "L_MLO"),
        (["P", "FL"], "R_MLO"),
        (["P", "R"], "L_CC"),  # stored mirrored
    ],
)
def test_patient_orientation_tells_side_and_view_where_other_tags_are_silent(tmp_path, orientation, name):
    path = write_dicom(tmp_path / "a.dcm", ImageLaterality=None, ViewPosition=None, PatientOrientation=orientation)
    assert read_header(path).name == name


def test_cbis_ddsm_writes_the_view_as_orientation_and_the_picture_as_patient(tmp_path):
    tags = {"Laterality": "R", "PatientOrientation": "MLO", "PatientID": "Mass-Test_P_00173_RIGHT_MLO"}
    header = read_header(write_dicom(tmp_path / "a.dcm", ImageLaterality=None, ViewPosition=None, **tags))
    assert (header.name, header.patient_id, header.study_id) == ("R_MLO", "P_00173", "P_00173")


@pytest.mark.parametrize(("code", "view"), [("399368009", "MLO"), ("R-10242", "CC")])
def test_the_view_code_sequence_tells_the_view(tmp_path, code, view):
    item = Dataset()
    item.CodeValue, item.CodeMeaning = code, "some view"
    path = write_dicom(tmp_path / "a.dcm", ViewPosition=None, ViewCodeSequence=Sequence([item]))
    assert read_header(path).view == view


def test_a_table_wins_over_a_silent_header(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", ImageLaterality=None, ViewPosition=None)
    assert read_dicom(path, "R", "MLO").name == "R_MLO"


def test_a_compressed_file_shows_the_same_picture(tmp_path):
    plain = read_dicom(write_dicom(tmp_path / "a.dcm", RAMP)).pixels
    packed = read_dicom(write_dicom(tmp_path / "b.dcm", RAMP, syntax=RLELossless)).pixels
    np.testing.assert_array_equal(plain, packed)


def test_a_missing_decoder_is_named_with_the_package_that_brings_it(tmp_path):
    dataset = pydicom.dcmread(write_dicom(tmp_path / "a.dcm", RAMP, syntax=RLELossless))
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1  # its decoder is GPL and not among the extras
    dataset.save_as(tmp_path / "b.dcm")
    message = error_of(tmp_path / "b.dcm")
    assert "JPEG Lossless" in message and 'pip install "jaxmed[dicom]"' in message


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"Modality": "CT"}, "modality 'CT' is not mammography"),
        ({"PixelData": None}, "no pixel data"),
        ({"ImageLaterality": None}, "left or the right breast.*CSV"),
        ({"ViewPosition": None}, "unknown view.*CSV"),
        ({"ViewPosition": "ML"}, "view 'ML'"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, r"unknown view \(PatientOrientation A\\F\)"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"WindowCenter": 10, "WindowWidth": 0}, "gray-level tables"),
    ],
)
def test_unusable_files_are_refused_with_a_reason(tmp_path, tags, message):
    path = write_dicom(tmp_path / "bad.dcm", **tags)
    with pytest.raises(UserError, match=f"(?s)bad.dcm.*{message}"):
        read_dicom(path)


def test_several_frames_are_refused(tmp_path):
    assert "2 frames" in error_of(write_dicom(tmp_path / "a.dcm", np.stack([RAMP, RAMP]), NumberOfFrames=2))


def test_an_empty_picture_is_refused(tmp_path):
    assert "same gray level" in error_of(write_dicom(tmp_path / "a.dcm", np.full((8, 8), 7, np.uint16)))


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, share):
    path = write_dicom(tmp_path / "a.dcm", half_bright())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    error_of(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.dcm").write_text("hello")
    assert "not a DICOM file" in error_of(tmp_path / "a.dcm")
    assert "cannot be read" in error_of(tmp_path / "missing.dcm")


def test_dicom_files_are_recognised_without_a_suffix(tmp_path):
    assert is_dicom(write_dicom(tmp_path / "1.2.840.7"))
    (tmp_path / "notes").write_text("x" * 200)
    (tmp_path / ".hidden.dcm").write_text("x")
    assert not is_dicom(tmp_path / "notes") and not is_dicom(tmp_path / ".hidden.dcm") and not is_dicom(tmp_path)


def test_without_pydicom_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r'pip install "jaxmed\[dicom\]"'):
        read_dicom(path)
