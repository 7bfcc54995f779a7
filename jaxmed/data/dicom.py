"""One mammogram's DICOM file -> gray pixels and the facts of its header.

Pixels: stored values -> modality LUT (or rescale) -> VOI LUT, else the first window, where the file has them ->
inverted if MONOCHROME1, so that bright is dense -> stretched so that the picture's own darkest and brightest values become
0 and 65535 (uint16). Pixels marked as padding become 0. The stretch makes 8-, 12- and 16-bit files alike.

Laterality: ImageLaterality, else Laterality, else the second value of PatientOrientation: where the columns run towards
the patient's right (R, FR) the breast is the left one, and the other way round.
View: ViewPosition, else the code of ViewCodeSequence (SNOMED), else PatientOrientation:

| PatientOrientation             | left CC | right CC | left MLO | right MLO |
|--------------------------------|---------|----------|----------|-----------|
| DICOM PS3.3 C.7.6.1.1.1        | A\\R     | P\\L      | A\\FR     | P\\FL      |
| CBIS-DDSM writes the view here | CC      | CC       | MLO      | MLO       |

Anything else is unknown, such as A\\F (90 degrees lateral), and an error.
P\\R, A\\L and the like (the picture is stored mirrored) count by their second value, too.
CBIS-DDSM gives each picture a patient and a study of its own ("Mass-Test_P_00173_LEFT_CC"); here both become "P_00173".
"""

import re
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from jaxmed.errors import UserError

MODALITIES = ("MG", "CR", "DX")  # CR and DX: digitised film and old detectors, if the view is known
WHITE = 65535
_CBIS = re.compile(r"^(?:Mass|Calc)-(?:Training|Test)_(P_\d+)_(?:LEFT|RIGHT)_(?:CC|MLO)")
_VIEW_CODES = {"399162004": "CC", "R-10242": "CC", "399368009": "MLO", "R-10226": "MLO"}
_ORIENTATIONS = {"R": ("L", "CC"), "L": ("R", "CC"), "FR": ("L", "MLO"), "FL": ("R", "MLO")}
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}


@dataclass(frozen=True)
class Header:
    """What one file says about itself; "" where it does not (`laterality`, `view`, `patient_id`)."""

    path: Path
    laterality: str  # "L" or "R"
    view: str  # "CC" or "MLO"
    patient_id: str
    study_id: str
    bits: int  # stored bits per pixel

    @property
    def name(self) -> str:
        """The view's name in a study, for example "L_CC"."""
        return f"{self.laterality}_{self.view}"


@dataclass(frozen=True)
class Mammogram(Header):
    """A header with the picture; see the module's page for how gray levels are made."""

    pixels: UInt16[np.ndarray, "h w"]


def read_dicom(path: str | Path, laterality: str = "", view: str = "") -> Mammogram:
    """Reads one mammogram.

    Args:
        laterality, view: what is known from elsewhere (a table); it wins over the header, which may then be silent.

    Raises:
        UserError: no DICOM, truncated, no pixel data, several frames, colour, wrong modality, unknown side or view, a
            decoder that is not installed, or a picture of one gray level. The message names the file and what to do.
    """
    path = Path(path)
    dataset = _open(path, pixels=True)
    header = _header(path, dataset, laterality, view)
    return Mammogram(**vars(header), pixels=_gray(path, dataset))


def read_header(path: str | Path, laterality: str = "", view: str = "") -> Header:
    """The facts of a file without its pixels; raises a UserError as `read_dicom` does."""
    path = Path(path)
    return _header(path, _open(path, pixels=False), laterality, view)


def is_dicom(path: Path) -> bool:
    """A DICOM file by its suffix (.dcm, .dicom) or, without a suffix, by its preamble."""
    if path.name.startswith(".") or not path.is_file() or path.name == "DICOMDIR":
        return False
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    if path.suffix and not path.suffix[1:].isdigit():  # "1.3.6.1" has no suffix
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def load_pydicom() -> types.ModuleType:
    """The optional package, or a UserError that says how to install it."""
    try:
        import pydicom
        import pydicom.pixels
    except ImportError as error:
        raise UserError('DICOM files need pydicom: pip install "jaxmed[dicom]"') from error
    return pydicom


def _open(path: Path, pixels: bool):
    """The data set, checked for everything but its orientation."""
    library = load_pydicom()
    try:
        dataset = library.dcmread(path, stop_before_pixels=not pixels)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); it may be truncated: copy it again") from error
    except library.errors.InvalidDicomError as error:
        raise UserError(f"{path}: not a DICOM file; take it out of the data set, or export it again") from error
    except Exception as error:  # pydicom raises many kinds on broken files
        raise UserError(f"{path}: a broken DICOM file ({error}); copy or export it again") from error
    modality = str(dataset.get("Modality") or "none")
    if modality not in MODALITIES:
        raise UserError(f"{path}: modality {modality!r} is not mammography (MG); take the file out of the data set")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        frames = f"{path}: {dataset.NumberOfFrames} frames (tomosynthesis or a loop)"
        raise UserError(f"{frames}; a study holds single pictures: export the 2-D or synthesised 2-D view")
    if pixels and "PixelData" not in dataset:
        raise UserError(f"{path}: no pixel data; it is truncated, a report or a key object: copy it again or take it out")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise UserError(f"{path}: a colour picture; mammograms are MONOCHROME1 or MONOCHROME2: take the file out")
    return dataset


def _header(path: Path, dataset, laterality: str, view: str) -> Header:
    laterality, view = laterality or _laterality(dataset), view or _view(dataset)
    if laterality not in ("L", "R"):
        tags = f"ImageLaterality, Laterality and PatientOrientation ({_orientation(dataset) or 'empty'})"
        raise UserError(f"{path}: {tags} do not say whether it is the left or the right breast; {_FIX}")
    if view not in ("CC", "MLO"):
        have = f"view {view!r}" if view else f"unknown view (PatientOrientation {_orientation(dataset) or 'empty'})"
        raise UserError(f"{path}: {have}, where a study holds CC and MLO only; take the file out, or {_FIX}")
    patient, study = str(dataset.get("PatientID") or ""), str(dataset.get("StudyInstanceUID") or "")
    if cbis := _CBIS.match(patient):
        patient = study = cbis[1]
    return Header(path, laterality, view, patient, study, int(dataset.get("BitsStored") or 0))


_FIX = "give laterality and view in a CSV (columns image, study_id, view such as L_CC)"


def _orientation(dataset) -> str:
    """PatientOrientation as one text, "A\\FR"."""
    value = dataset.get("PatientOrientation") or ""
    return value if isinstance(value, str) else "\\".join(str(part) for part in value)


def _laterality(dataset) -> str:
    for tag in ("ImageLaterality", "Laterality"):
        side = _SIDES.get(str(dataset.get(tag) or "").strip().upper())
        if side:
            return side
    return _ORIENTATIONS.get(_columns(dataset), ("", ""))[0]


def _view(dataset) -> str:
    if position := str(dataset.get("ViewPosition") or "").strip().upper():
        return position
    for code in dataset.get("ViewCodeSequence") or ():
        value = str(code.get("CodeValue") or "")
        return _VIEW_CODES.get(value, str(code.get("CodeMeaning") or value))
    text = _orientation(dataset).strip().upper()
    return text if text in ("CC", "MLO") else _ORIENTATIONS.get(_columns(dataset), ("", ""))[1]


def _columns(dataset) -> str:
    """The direction of the columns, where PatientOrientation is a mammogram's."""
    rows, _, columns = _orientation(dataset).upper().partition("\\")
    return columns if rows in ("A", "P") else ""


def _gray(path: Path, dataset) -> np.ndarray:
    try:
        stored = dataset.pixel_array
    except (ImportError, RuntimeError, NotImplementedError) as error:
        raise UserError(_decoder_message(path, dataset, error)) from error
    except Exception as error:  # decoders raise many kinds on broken data
        raise UserError(f"{path}: pixel data cannot be decoded ({error}); it may be truncated: copy it again") from error
    if stored.ndim != 2 or not stored.size:
        raise UserError(f"{path}: pixels of shape {list(stored.shape)}, expected one gray picture; take the file out")
    low, high = int(stored.min()), int(stored.max())
    try:
        levels = _levels(dataset, np.arange(low, high + 1, dtype=np.int64))
    except Exception as error:  # a window of width 0, a broken LUT
        raise UserError(f"{path}: its gray-level tables (rescale, VOI LUT, window) are broken: {error}") from error
    padding = _padding(dataset, low, high)
    entries = stored.astype(np.int32) - low
    used = np.bincount(entries.ravel(), minlength=len(levels)) > 0
    used[padding] = False
    if not used.any() or np.ptp(levels[used]) == 0:
        raise UserError(f"{path}: every pixel has the same gray level; the file holds no picture: take it out")
    darkest, brightest = levels[used].min(), levels[used].max()
    table = np.round(np.clip((levels - darkest) / (brightest - darkest), 0, 1) * WHITE).astype(np.uint16)
    table[padding] = 0
    return table[entries]


def _levels(dataset, values: np.ndarray) -> np.ndarray:
    """Gray level of every stored value from the lowest to the highest: one short table instead of millions of pixels."""
    pixels = load_pydicom().pixels
    shown = pixels.apply_modality_lut(values, dataset)
    if "VOILUTSequence" in dataset and np.array_equal(shown, np.round(shown)):
        shown = shown.astype(np.int64)  # a VOI LUT is indexed
    shown = np.asarray(pixels.apply_voi_lut(shown, dataset), np.float64)
    return -shown if dataset.get("PhotometricInterpretation") == "MONOCHROME1" else shown


def _padding(dataset, low: int, high: int) -> slice:
    """Which entries of the table are background that the scanner marked."""
    first = dataset.get("PixelPaddingValue")
    if first is None:
        return slice(0, 0)
    last = dataset.get("PixelPaddingRangeLimit", first)
    first, last = sorted((int(first), int(last)))
    return slice(max(first - low, 0), max(min(last, high) - low + 1, 0))


def _decoder_message(path: Path, dataset, error: Exception) -> str:
    syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    name = getattr(syntax, "name", "unknown")
    reason = " ".join(str(error).split())
    return (
        f"{path}: pixel data in {name} cannot be decoded: {reason}. If a decoder is missing: "
        'pip install "jaxmed[dicom]" (JPEG 2000, JPEG-LS, RLE, baseline JPEG); other kinds: convert the file, for '
        "example with `gdcmconv --raw` or `dcmdjpeg`; a truncated file: copy it again"
    )
