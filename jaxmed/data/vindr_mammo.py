"""VinDr-Mammo (Nguyen et al., Sci Data 2023, doi.org/10.13026/br2v-7517): 5,000 studies of four views, each with BI-RADS.

Written from the published layout and tested on synthetic trees only: untested on the originals. Expected in data.dir:

    breast-level_annotations.csv     one row per picture: study_id, image_id, laterality (L, R), view_position (CC, MLO),
                                     breast_birads ("BI-RADS 4"), split (training, test), ...
    finding_annotations.csv          optional; one row per finding: the same, finding_categories ("['Mass']"),
                                     finding_birads, xmin, ymin, xmax, ymax
    images/<study_id>/<image_id>.dicom

The set has no pathology: the label is the radiologists' suspicion, from the BI-RADS category of the breast
(`data.birads_mapping`, see MAPPINGS). It names no patients: both breasts of a study stay together, no more is known.

`data.official_split=True` keeps the published test studies as the test set; the others are divided into training and
validation. `data.negatives_per_positive` (0: all) draws that many negative breasts per positive one by `data.sample_seed`,
in the test set by itself: about 1.4 gives the 41 % positives that the X-Pruning paper's figures imply.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jaxmed.data.breasts import Breast, FileBreastSource, pair_views
from jaxmed.data.folder_rows import Problems
from jaxmed.data.folder_views import Picture, group_pictures
from jaxmed.data.sources import data_folder
from jaxmed.data.studies import VIEWS
from jaxmed.data.tables import check_columns, read_lines
from jaxmed.errors import UserError

BREASTS, FINDINGS = "breast-level_annotations.csv", "finding_annotations.csv"
CLASSES = ("not suspicious", "suspicious")
MAPPINGS = {  # BI-RADS categories of the two classes; breasts of other categories have no label
    "1-3|4-5": ((1, 2, 3), (4, 5)),
    "1-2|4-5": ((1, 2), (4, 5)),
    "1-2|3-5": ((1, 2), (3, 4, 5)),
}
WHERE = "download VinDr-Mammo (physionet.org/content/vindr-mammo) and pass --config.data.dir=<its folder with the .csv files>"
_BIRADS = re.compile(r"^BI-RADS ([1-5])$")
_SIDES = {"L": "left", "R": "right"}
_BOX = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Finding:
    """One marked finding. `box` is (xmin, ymin, xmax, ymax) in pixels of the file as it is stored: `read` mirrors right
    breasts, and may crop and pad. birads is -1 where the table gives none."""

    categories: tuple[str, ...]
    view: str  # "cc" or "mlo"
    box: tuple[float, float, float, float]
    birads: int = -1


class VindrMammoSource(FileBreastSource):
    """VinDr-Mammo's breasts; see the module's page for files and options.

    Attributes:
        findings: the marked findings of each breast; empty without `finding_annotations.csv`.

    Raises:
        UserError: folder, table or columns missing; an unknown option; all at once, rows that cannot be understood, and
            pictures that do not exist and findings without a box unless `data.skip_bad`.
    """

    name = "vindr_mammo"
    classes = CLASSES

    def __init__(self, data: Mapping, predict: bool = False):
        root = data_folder(data.get("dir"), WHERE)
        mapping = str(data.get("birads_mapping", "1-3|4-5"))
        if mapping not in MAPPINGS:
            raise UserError(f"data.birads_mapping={mapping!r}: choose one of {', '.join(MAPPINGS)}")
        skip_bad = bool(data.get("skip_bad", False))
        pictures, notes = read_pictures(root / BREASTS, skip_bad)
        official = bool(data.get("official_split", False))
        self.test_sets = ("test",) if official else ()
        breasts, lacking = pair_views(group_pictures(pictures, root / BREASTS))
        breasts = [_labelled(breast, mapping, official) for breast in breasts]
        notes += lacking + [f"label: suspicion by BI-RADS {mapping} (not | suspicious), not pathology"]
        if not predict:
            ratio, seed = float(data.get("negatives_per_positive", 0)), int(data.get("sample_seed", 0))
            breasts, drawn = draw_negatives(breasts, ratio, seed)
            notes += drawn
        found, bad = read_findings(root / FINDINGS, skip_bad) if (root / FINDINGS).is_file() else ({}, [])
        super().__init__(breasts, notes + bad, data, predict)
        self.findings = [found.get(breast.case_id, ()) for breast in self.breasts]


def read_pictures(path: Path, skip_bad: bool = False) -> tuple[list[Picture], list[str]]:
    """The pictures of breast-level_annotations.csv with their BI-RADS and official split, and notes about files left out."""
    lines = _read(path, "study_id", "image_id", "laterality", "view_position", "breast_birads", "split")
    problems, missing, pictures = Problems(path), Problems(path.parent / "images"), []
    for number, cells in lines:
        where, name = f"line {number}", f"{cells['laterality']}_{cells['view_position']}"
        birads = _BIRADS.match(cells["breast_birads"])
        if name not in VIEWS:
            problems.add(where, f"view {name!r} is none of {', '.join(VIEWS)}")
        if not birads:
            problems.add(where, f"breast_birads {cells['breast_birads']!r} is none of BI-RADS 1 to BI-RADS 5")
        if cells["split"] not in ("training", "test"):
            problems.add(where, f"split {cells['split']!r} is neither training nor test")
        file = path.parent / "images" / cells["study_id"] / f"{cells['image_id']}.dicom"
        if not file.is_file():
            missing.add(f"{cells['study_id']}/{file.name}", "does not exist")
            continue
        facts = {"birads": int(birads[1]) if birads else -1, "split": cells["split"]}
        pictures.append(Picture(where, file, name, cells["study_id"], **facts))
    problems.raise_if_any()
    missing.hint = "complete the download, or leave these pictures out with data.skip_bad=True"
    return pictures, missing.raise_or_note(skip_bad, "pictures")


def _read(path: Path, *columns: str) -> list[tuple[int, dict[str, str]]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist; {WHERE}")
    lines = read_lines(path, f"the columns {', '.join(columns)}")
    check_columns(path, lines, *columns, fix=WHERE)
    return lines


def _labelled(breast: Breast, mapping: str, official: bool) -> Breast:
    negative, positive = MAPPINGS[mapping]
    label = 1 if breast.birads in positive else 0 if breast.birads in negative else -1
    return replace(breast, label=label, split="test" if official and breast.split == "test" else "")


def draw_negatives(breasts: Sequence[Breast], ratio: float, seed: int) -> tuple[list[Breast], list[str]]:
    """All positive breasts and `ratio` times as many negative ones, per split, in the table's order; and a note with counts.

    The draw depends on the seed and the case ids alone. Breasts without a label stay; 0 keeps everything.
    """
    if ratio < 0:
        raise UserError(f"data.negatives_per_positive={ratio:g}: give 0 (all), or a positive number such as 1.4")
    if not ratio:
        return list(breasts), []
    left = set()
    for split in sorted({breast.split for breast in breasts}):
        negatives = sorted(breast.case_id for breast in breasts if breast.split == split and breast.label == 0)
        positives = sum(breast.split == split and breast.label == 1 for breast in breasts)
        order = np.random.default_rng(seed).permutation(len(negatives))
        left |= {negatives[k] for k in order[round(ratio * positives) :]}
    note = f"negatives_per_positive {ratio:g}: {len(left)} negative breasts left out by chance (sample_seed {seed})"
    return [breast for breast in breasts if breast.case_id not in left], [note]


def read_findings(path: Path, skip_bad: bool = False) -> tuple[dict[str, tuple[Finding, ...]], list[str]]:
    """case_id -> its findings, without the rows that say "No Finding", and notes about rows left out.

    Raises:
        UserError: all rows without a usable box, unless `skip_bad`.
    """
    problems, found = Problems(path), {}
    for number, cells in _read(path, "study_id", "laterality", "view_position", "finding_categories", "finding_birads", *_BOX):
        categories = _listed(cells["finding_categories"])
        if categories == ("No Finding",):
            continue
        if finding := _finding(cells, categories):
            found.setdefault(f"{cells['study_id']}:{_SIDES[cells['laterality']]}", []).append(finding)
        else:
            shown = ", ".join(f"{name} {cells[name]!r}" for name in ("laterality", "finding_categories", *_BOX))
            problems.add(f"line {number}", f"not a finding with a box: {shown}")
    problems.hint = "correct them, or leave these findings out with data.skip_bad=True"
    notes = problems.raise_or_note(skip_bad, "findings")
    return {name: tuple(group) for name, group in found.items()}, notes


def _finding(cells: Mapping[str, str], categories: tuple[str, ...]) -> Finding | None:
    """None if something is missing or the box is none."""
    try:
        left, top, right, bottom = (float(cells[name]) for name in _BOX)
    except ValueError:
        return None
    if not categories or cells["laterality"] not in _SIDES or not (left < right and top < bottom):
        return None
    birads = _BIRADS.match(cells["finding_birads"])
    return Finding(categories, cells["view_position"].lower(), (left, top, right, bottom), int(birads[1]) if birads else -1)


def _listed(text: str) -> tuple[str, ...]:
    """The table writes lists as Python does: "['Mass', 'Skin Retraction']"; () for anything else."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return ()
    good = isinstance(value, list) and all(isinstance(part, str) for part in value)
    return tuple(part.strip() for part in value) if good else ()
