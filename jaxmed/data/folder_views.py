"""Your own mammograms: a CSV of pictures (PNG, DICOM, ...), or a folder of DICOM files whose headers name the views.

The CSV has one row per picture, paths relative to it:

    image       the file
    study_id    the visit; without this column patient_id names it (one visit per patient)
    view        L_CC, L_MLO, R_CC or R_MLO; or CC / MLO with a column laterality (L, R, left, right);
                empty for DICOM files, whose header then says it
    label       of this breast: normal, benign, non-malignant or 0; malignant or 1; empty if not known
    birads      of this breast: 1 to 5 (4A, 4B and 4C count as 4); empty, 0 and 6 count as not known
    patient_id, split (train, val, test): optional

The two pictures of a breast must agree on label and BI-RADS; one of the two rows may leave them empty.
A folder without a CSV has no labels, so it is for prediction; studies are told apart by patient and study in the headers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmed.data import dicom
from jaxmed.data.folder_csv import SPLITS
from jaxmed.data.folder_rows import Problems
from jaxmed.data.reading import parallel_map
from jaxmed.data.studies import LABELS, VIEWS, FileStudySource, Study
from jaxmed.data.tables import check_columns, read_lines
from jaxmed.errors import UserError

HEADER = "study_id,view,image,label,birads,patient_id,split"
_LABELS = {"": -1, "normal": 0, "benign": 0, "non-malignant": 0, "0": 0, "malignant": 1, "1": 1}
_BIRADS = {"": -1, "0": -1, "6": -1, "4A": 4, "4B": 4, "4C": 4} | {str(value): value for value in range(1, 6)}
_SIDES = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R", "": ""}


@dataclass(frozen=True)
class Picture:
    """One row of the CSV, or one DICOM file; `where` is how errors call it."""

    where: str
    image: Path
    name: str  # one of VIEWS
    study_id: str
    patient_id: str = ""
    label: int = -1
    birads: int = -1
    split: str = ""


class FolderViewsSource(FileStudySource):
    """The studies of `data.dir`, a .csv file, or (for prediction) a folder of DICOM files.

    Raises:
        UserError: one error with every bad row: missing files, unknown views, labels or splits, a view given twice,
            pictures of one breast or study that contradict each other.
    """

    name = "folder_views"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("views",), predict: bool = False):
        super().__init__(read_studies(data.get("dir")), (), data, predict)


def read_studies(place: str | Path | None, classes: Sequence[str] = LABELS) -> list[Study]:
    """The studies of a CSV or a folder of DICOM files; raises as `FolderViewsSource`.

    Args:
        classes: names of the two labels. Those that are no pathology (suspicion by BI-RADS) take no words of pathology:
            the column `label` is then one of them, 0 or 1.
    """
    path = _find(place)
    pictures = read_folder(path) if path.is_dir() else read_csv(path, label_words(classes))
    return group_pictures(pictures, path)


def label_words(classes: Sequence[str]) -> dict[str, int]:
    """What the column `label` may say for these classes, in lower case, and the label that it means."""
    names = {name.lower(): k for k, name in enumerate(classes)}
    return _LABELS if names.items() <= _LABELS.items() else {"": -1, "0": 0, "1": 1} | names


def _find(path: str | Path | None) -> Path:
    if not path:
        raise UserError("data.dir is not set; pass --config.data.dir=<a .csv file, or a folder of DICOM files>")
    path = Path(path).expanduser()
    if not path.exists() or (path.is_file() and path.suffix.lower() != ".csv"):
        raise UserError(f"data.dir={str(path)!r} is neither a .csv file nor a folder")
    return path


def read_csv(path: Path, labels: Mapping[str, int] = _LABELS) -> list[Picture]:
    """The pictures of a CSV, checked row by row; see the module's page for its columns."""
    lines = read_lines(path, f"the header {HEADER} and one row per picture")
    check_columns(path, lines, "image", ("study_id", "patient_id"), "view", fix=f"the header is {HEADER}")
    problems = Problems(path)
    pictures = [_picture(path.parent, number, cells, labels, problems) for number, cells in lines]
    filled = [bool(picture.split) for picture in pictures]
    if any(filled) and not all(filled):
        problems.add(pictures[filled.index(False)].where, "no split, but other rows have one; fill all or leave it out")
    problems.raise_if_any()
    return pictures


def _picture(folder: Path, number: int, cells: dict[str, str], labels: Mapping[str, int], problems: Problems) -> Picture:
    where, image = f"line {number}", folder / cells["image"]
    if not cells["image"] or not image.is_file():
        problems.add(where, f"image file {image} does not exist")
    study = cells.get("study_id") or cells.get("patient_id", "")
    if not study:
        problems.add(where, "no study_id and no patient_id")
    split = cells.get("split", "")
    if split and split not in SPLITS:
        problems.add(where, f"split {split!r} is none of {', '.join(SPLITS)}")
    return Picture(
        where,
        image,
        _view_name(where, image, cells, problems),
        study,
        cells.get("patient_id", ""),
        _look_up(where, "label", cells.get("label", "").lower(), labels, problems),
        _look_up(where, "birads", cells.get("birads", "").upper(), _BIRADS, problems),
        split,
    )


def _look_up(where: str, column: str, text: str, table: Mapping[str, int], problems: Problems) -> int:
    if text not in table:
        problems.add(where, f"{column} {text!r} is none of {', '.join(key for key in table if key)}")
    return table.get(text, -1)


def _view_name(where: str, image: Path, cells: dict[str, str], problems: Problems) -> str:
    """One of VIEWS, from the columns or, if they are empty, from the DICOM header; "" and a problem otherwise."""
    view = cells["view"].upper().replace("-", "_").replace(" ", "_")
    side = _SIDES.get(cells.get("laterality", "").upper())
    if side is None:
        problems.add(where, f"laterality {cells['laterality']!r} is none of L, R, left, right")
        return ""
    if view in VIEWS and side in ("", view[0]):
        return view
    if side and f"{side}_{view}" in VIEWS:
        return f"{side}_{view}"
    if view in ("", "CC", "MLO") and image.is_file() and dicom.is_dicom(image):
        try:
            return dicom.read_header(image, side, view).name
        except UserError as error:
            problems.add(where, str(error))
            return ""
    given = f"view {cells['view']!r}" + (f" with laterality {cells['laterality']!r}" if side else "")
    problems.add(where, f"{given} is none of {', '.join(VIEWS)} (or CC, MLO with laterality L or R)")
    return ""


def read_folder(root: Path) -> list[Picture]:
    """Every DICOM file under `root`, its view from its header.

    Raises:
        UserError: no DICOM files; and, all at once, the files that cannot be used.
    """
    files = sorted(path for path in root.rglob("*") if dicom.is_dicom(path))
    if not files:
        raise UserError(f"{root}: no DICOM files; for PNG pictures give a CSV ({HEADER})")
    problems, pictures = Problems(root), []
    for path, header in zip(files, parallel_map(lambda k: header_or_error(files[k]), len(files)), strict=True):
        where = path.relative_to(root).as_posix()
        if isinstance(header, UserError):
            problems.add(where, str(header))
            continue
        study = header.study_id or header.patient_id
        if not study:
            problems.add(where, "neither StudyInstanceUID nor PatientID; give a CSV with a study_id column")
        pictures.append(Picture(where, path, header.name, study, header.patient_id))
    problems.raise_if_any()
    return pictures


def header_or_error(path: Path) -> dicom.Header | UserError:
    """The header, or what is wrong with the file: so that one error can list all bad files."""
    try:
        return dicom.read_header(path)
    except UserError as error:
        return error


def group_pictures(pictures: Sequence[Picture], source: Path) -> list[Study]:
    """One study per study_id, in order of appearance.

    Raises:
        UserError: all at once, a view that a study has twice, and rows that contradict each other.
    """
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(picture.study_id, []).append(picture)
    problems = Problems(source)
    studies = [_study(name, group, problems) for name, group in groups.items()]
    problems.raise_if_any()
    return studies


def _study(name: str, group: list[Picture], problems: Problems) -> Study:
    views: dict[str, Picture] = {}
    for picture in group:
        first = views.setdefault(picture.name, picture)
        if first is not picture:
            text = f"study {name!r} has {picture.name} already in {first.where}; keep one, or give study_ids that differ"
            problems.add(picture.where, text)
    whole = {key: _agree(name, group, key, problems) for key in ("patient_id", "split")}
    sides = [[picture for picture in group if picture.name.startswith(side)] for side in ("L", "R")]
    label, birads = (tuple(_agree(name, side, key, problems) for side in sides) for key in ("label", "birads"))
    return Study(
        name,
        whole["patient_id"] or "",
        {key: picture.image for key, picture in views.items()},
        tuple(-1 if value is None else value for value in label),
        tuple(-1 if value is None else value for value in birads),
        whole["split"] or "",
    )


def _agree(name: str, group: list[Picture], key: str, problems: Problems):
    """The one value that these rows give, None if they give none."""
    given = [(getattr(picture, key), picture) for picture in group if getattr(picture, key) not in ("", -1)]
    for value, picture in given[1:]:
        if value != given[0][0]:
            what = "breast" if key in ("label", "birads") else "study"
            text = f"{key} {value!r} of study {name!r}, but {given[0][0]!r} in {given[0][1].where}: one {what}, one {key}"
            problems.add(picture.where, text)
    return given[0][0] if given else None
