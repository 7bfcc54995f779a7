"""CMMD (Chinese Mammography Database, doi.org/10.7937/tcia.eqde-4b16) with the TOMPEI-CMMD labels (TCIA, 2025).

Written from public descriptions and tested on synthetic trees only: untested on the originals. Expected below data.dir:

    *.dcm at any depth                        CMMD/D1-0001/<study>/<series>/1-1.dcm ...: 1,775 patients, 5,202 pictures
    TOMPEI-CMMD_clinical_data*.xlsx or .csv   sheet "Imaging Diagnosis Details Sheet", one row per breast (2,601):
                                              ID, LeftRight, Age, classification, ..., BI-RADS Category, ...; two header rows
    CMMD_clinicaldata*.xlsx or .csv           ID1, LeftRight, Age, number, abnormality, classification, subtype

With the TOMPEI table, labels and BI-RADS come from it alone; without it, labels from CMMD's own and no BI-RADS. TOMPEI's
classification -> label: Normal, Benign 0; Malignant 1; Invisible (biopsy-proven, but not to be found in the picture) 1, or
-1 with `data.invisible="ignore"`; Exclusion -1 for both tasks. The patient is the study: CMMD has one visit of each.

Sides: the pictures of some patients carry the wrong ImageLaterality. Where all pictures of a patient are of one side and
the labels only of the other one, the labels win. Four patients are said to have swapped tags in their MLO pictures only
(D1-0999, D2-0224, D2-0229, D2-0642), one in its CC pictures (D2-0041): their pictures face the right way, but stay with
the tagged side.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmed.data import dicom
from jaxmed.data.folder_rows import Problems
from jaxmed.data.folder_views import header_or_error
from jaxmed.data.reading import Progress, parallel_map
from jaxmed.data.sources import data_folder, first_ten
from jaxmed.data.studies import SIDES, FileStudySource, Study
from jaxmed.data.tables import read_grid
from jaxmed.errors import UserError

SHEET = "Imaging Diagnosis Details Sheet"
TOMPEI, CMMD = ("TOMPEI-CMMD*clinical*",), ("CMMD_clinical*",)
WHERE = (
    "download CMMD and the TOMPEI-CMMD clinical data (cancerimagingarchive.net), and pass --config.data.dir=<the folder "
    "with both>"
)
_PATIENT = re.compile(r"^D\d-\d+$")
_LABELS = {"normal": 0, "benign": 0, "malignant": 1, "invisible": 1, "exclusion": -1}
_COLUMNS = {"id": r"id1?$", "side": r"leftright$", "class": r"classification$", "birads": r"bi-?rads"}
_UNKNOWN = ("", "0", "6", "na", "n/a", "nan", "-")


@dataclass(frozen=True)
class Breast:
    """One row of a clinical table."""

    row: int
    patient_id: str
    side: str
    classification: str
    birads: int


class CmmdSource(FileStudySource):
    """CMMD's studies; see the module's page for files and labels.

    Raises:
        UserError: folder, pictures or table missing; all at once, the rows that cannot be understood, and the DICOM files
            that cannot be used unless `data.skip_bad`.
    """

    name = "cmmd"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("views",), predict: bool = False):
        root = data_folder(data.get("dir"), WHERE)
        table = _table(root, TOMPEI)
        breasts = read_breasts(table or _table(root, CMMD, required=True))
        headers, notes = scan(root, bool(data.get("skip_bad", False)))
        if not table:
            notes.append("no TOMPEI-CMMD table: labels from CMMD's own, no BI-RADS; unlisted breasts have no label")
        studies, more = build_studies(headers, breasts, str(data.get("invisible", "malignant")))
        notes += [*more, "CMMD's layout was written from public descriptions: check these counts (2,601 breasts)"]
        super().__init__(studies, notes, data, predict)


def _table(root: Path, patterns: Sequence[str], required: bool = False) -> Path | None:
    """The newest table by name; "._" files are what macOS leaves in archives, "~$" what Excel does."""
    found = [path for pattern in patterns for path in root.rglob(pattern) if path.suffix.lower() in (".xlsx", ".csv")]
    found = sorted(path for path in found if path.name[0] not in ".~" and "__MACOSX" not in path.parts)
    if required and not found:
        names = "TOMPEI-CMMD_clinical_data*.xlsx or CMMD_clinicaldata*.xlsx (or .csv)"
        raise UserError(f"{root}: no clinical table {names}; {WHERE}")
    return found[-1] if found else None


def read_breasts(path: Path) -> list[Breast]:
    """The rows of a clinical table, TOMPEI's or CMMD's own; rows of equal content for one breast count once."""
    rows = read_grid(path, SHEET)
    columns = _columns(path, rows)
    problems, breasts = Problems(path), {}
    for number, cells in enumerate(rows, start=1):
        cell = {key: cells[place] if place < len(cells) else "" for key, place in columns.items()}
        if _PATIENT.match(cell["id"]):
            breast = _breast(number, cell, problems)
            first = breasts.setdefault((breast.patient_id, breast.side), breast)
            if (first.classification, first.birads) != (breast.classification, breast.birads):
                problems.add(f"row {number}", f"{breast.patient_id} {breast.side} differs from row {first.row}; keep one")
    problems.raise_if_any()
    if not breasts:
        raise UserError(f"{path}: no rows with a patient such as D1-0001 in the column {rows[0][columns['id']]!r}")
    return list(breasts.values())


def _columns(path: Path, rows: list[list[str]]) -> dict[str, int]:
    """Where the columns are; the header is the first of the top rows that has all of the needed ones."""
    for row in rows[:5]:
        names = [re.sub(r"\s+", " ", cell).lower() for cell in row]
        found = {
            key: next((k for k, name in enumerate(names) if re.match(pattern, name)), None)
            for key, pattern in _COLUMNS.items()
        }
        if None not in (found["id"], found["side"], found["class"]):
            return {key: place for key, place in found.items() if place is not None}
    raise UserError(f"{path}: no header row with the columns ID (or ID1), LeftRight and classification; {WHERE}")


def _breast(number: int, cell: dict[str, str], problems: Problems) -> Breast:
    side, kind, birads = cell["side"].upper(), cell["class"].lower(), cell.get("birads", "").lower()
    where = f"row {number}"
    if side not in SIDES:
        problems.add(where, f"LeftRight {cell['side']!r} is neither L nor R")
    if kind not in _LABELS:
        problems.add(where, f"classification {cell['class']!r} is none of {', '.join(_LABELS)}")
    category = re.match(r"^([1-5])[abc]?$", birads)
    if not category and birads not in _UNKNOWN:
        problems.add(where, f"BI-RADS {cell['birads']!r} is none of 1 to 5")
    return Breast(number, cell["id"], side, kind, int(category[1]) if category else -1)


def scan(root: Path, skip_bad: bool = False) -> tuple[list[dicom.Header], list[str]]:
    """The headers of every DICOM file under `root`, and notes about files left out."""
    files = sorted(path for path in root.rglob("*.dcm") if not path.name.startswith("."))
    if not files:
        raise UserError(f"{root}: no .dcm files; {WHERE}")
    progress = Progress(f"reading the headers of {len(files)} DICOM files in {root}", len(files), print)
    problems, headers = Problems(root), []
    for path, header in zip(files, parallel_map(lambda k: header_or_error(files[k]), len(files)), strict=True):
        progress.step()
        if isinstance(header, UserError):
            problems.add(path.relative_to(root).as_posix(), str(header))
        else:
            headers.append(header)
    progress.end()
    problems.hint = "repair or remove them, or leave them out with data.skip_bad=True"
    return headers, problems.raise_or_note(skip_bad, "DICOM files")


def build_studies(
    headers: Sequence[dicom.Header], breasts: Sequence[Breast], invisible: str = "malignant"
) -> tuple[list[Study], list[str]]:
    """One study per patient with pictures, sorted by patient; notes count what the tables and the pictures do not share."""
    if invisible not in ("malignant", "ignore"):
        raise UserError(f"data.invisible={invisible!r}: choose 'malignant' or 'ignore'")
    rows = {(breast.patient_id, breast.side): breast for breast in breasts}
    listed: dict[str, set[str]] = {}
    for name, side in rows:
        listed.setdefault(name, set()).add(side)
    patients: dict[str, list[dicom.Header]] = {}
    for header in headers:
        patients.setdefault(header.patient_id, []).append(header)
    swapped, double, studies = [], [], []
    for patient in sorted(patients):
        group = patients[patient]
        swap = _reversed({header.laterality for header in group}, listed.get(patient, set()))
        swapped += [patient] * swap
        views: dict[str, Path] = {}
        for header in group:
            side = _other(header.laterality) if swap else header.laterality
            if views.setdefault(f"{side}_{header.view}", header.path) is not header.path:
                double.append(f"{patient} {side}_{header.view}")
        found = [rows.get((patient, side)) for side in SIDES]
        label = tuple(-1 if row is None else _label(row, invisible) for row in found)
        birads = tuple(-1 if row is None or row.classification == "exclusion" else row.birads for row in found)
        studies.append(Study(patient, patient, views, label, birads))
    absent = sorted(set(listed) - set(patients))
    counts = (
        (swapped, "patients whose pictures are tagged with the wrong side: corrected"),
        (double, "views with several pictures: the first file is used"),
        (absent, "patients of the table without pictures"),
    )
    return studies, [f"{len(names)} {what} ({first_ten(names)})" for names, what in counts if names]


def _label(row: Breast, invisible: str) -> int:
    return -1 if row.classification == "invisible" and invisible == "ignore" else _LABELS[row.classification]


def _reversed(pictures: set[str], rows: set[str]) -> bool:
    """Pictures of one side, labels of the other one."""
    return len(pictures) == len(rows) == 1 and pictures != rows


def _other(side: str) -> str:
    return "R" if side == "L" else "L"
