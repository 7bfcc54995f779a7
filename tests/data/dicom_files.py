"""Tiny DICOM files for tests, written with pydicom."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


def half_bright(shape=(48, 32), right=False, top=1000):
    """A breast at the left (or right) edge: bright in the half at the chest wall, brighter at the top."""
    pixels = np.zeros(shape, np.uint16)
    pixels[6:-6, : shape[1] // 2] = np.linspace(top, 400, shape[0] - 12).astype(np.uint16)[:, None]
    return pixels[:, ::-1].copy() if right else pixels


def write_dicom(path, pixels=None, syntax=ExplicitVRLittleEndian, bits=12, **tags):
    """Writes a mammogram (left CC unless `tags` say otherwise); a tag that is None is left out."""
    pixels = half_bright() if pixels is None else pixels
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    facts = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "MG",
        "PatientID": "p1",
        "StudyInstanceUID": "1.2.3",
        "ImageLaterality": "L",
        "ViewPosition": "CC",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "PixelRepresentation": 0,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": min(bits, 8 * pixels.itemsize),
        "HighBit": min(bits, 8 * pixels.itemsize) - 1,
        "PixelData": pixels.tobytes(),
    }
    for name, value in (facts | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    if syntax != ExplicitVRLittleEndian:
        dataset.compress(syntax, pixels, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
