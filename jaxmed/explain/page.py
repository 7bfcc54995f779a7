"""The folder that --mode=explain leaves: a picture per case, cases.csv, and index.html, which shows them."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxmed.evaluate.report import environment
from jaxmed.evaluate.style import to_png
from jaxmed.explain.overlay import Explained, HeatMap, case_figure

TEMPLATES = Path(__file__).parent / "templates"
MAP_COLUMNS = (
    "map", "kind", "layer", "cells", "explains", "empty", "peak", "gate", "heat_in_mask", "mask_area", "pointing_hit", "note",
    "figure",
)  # fmt: skip


def write_page(folder: Path, cases: Sequence[Explained], about: Mapping[str, object], log=print) -> Path:
    """Writes <case>.png, cases.csv and index.html into `folder`; returns the path of index.html.

    about: title, subtitle, notes (list of sentences).
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = file_names([case.case_id for case in cases])
    for number, (case, file) in enumerate(zip(cases, files, strict=True), start=1):
        to_png(case_figure(case), folder / file, dpi=130)
        log(f"  {number}/{len(cases)}  {file}  ({case.why})")
    with open(folder / "cases.csv", "w", newline="", encoding="utf-8") as target:
        rows = [row for case, file in zip(cases, files, strict=True) for row in table_rows(case, file)]
        writer = csv.DictWriter(target, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    entries = [{"case": case, "file": file, "alt": alt(case)} for case, file in zip(cases, files, strict=True)]
    page = environment(TEMPLATES).get_template("explain.html.j2").render(entries=entries, **about)
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"


def file_names(case_ids: Sequence[str]) -> list[str]:
    """<case>.png, with other characters than letters, digits, "-", "_" and "." replaced; equal names are numbered."""
    names: list[str] = []
    for case_id in case_ids:
        stem = re.sub(r"[^\w.-]+", "_", case_id).strip("._") or "case"
        name, number = f"{stem}.png", 2
        while name.lower() in {other.lower() for other in names}:
            name, number = f"{stem}_{number}.png", number + 1
        names.append(name)
    return names


def table_rows(case: Explained, file: str) -> list[dict[str, object]]:
    """One row of cases.csv per heat map."""
    first = {"case_id": case.case_id, "why": case.why, **case.facts}
    return [first | dict(zip(MAP_COLUMNS, _cells(case, heat, file), strict=True)) for heat in case.maps]


def _cells(case: Explained, heat: HeatMap, file: str) -> tuple:
    found = case.localisation(heat)
    place = (round(found.share, 4), round(found.area, 4), int(found.hit)) if found else ("", "", "")
    grid = f"{heat.heat.shape[0]}x{heat.heat.shape[1]}"
    gate = "" if heat.gate is None else round(heat.gate, 4)
    first = heat.name, heat.kind, heat.layer, grid, heat.explains, int(heat.empty), f"{heat.peak:.6g}", gate
    return *first, *place, heat.says, file


def alt(case: Explained) -> str:
    """The figure for screen readers."""
    return f"{case.case_id}: {'; '.join(case.headings)}. Heat maps: {', '.join(heat.name for heat in case.maps)}."
