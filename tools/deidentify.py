"""Ultrasound pictures (DICOM, PNG, JPEG, ...) -> PNG without header and without writing beside the scan, for a person to check.

    python tools/deidentify.py --dir=exports --out=clean --review=review
    python tools/deidentify.py --dir=exports --out=clean --review=review --rename --patient_pattern="^([^_]+)_"

THIS IS NOT A CERTIFIED DE-IDENTIFIER. It misses writing, and it takes some tissue for writing. Somebody has to look at each
picture before it leaves the hospital: the review folder has every picture before and after, side by side, and report.csv.
The review folder shows the originals and names them: keep it as confidential as they are.

Removed (blackened): what is not black outside the scan region, but for large textured parts (a second scan). Nothing else
changes; pixels are written without loss. Inside the scan nothing is removed: pictures with possible writing, calipers or
coloured marks there have the status "look", the others "unflagged", which is no promise. The sector's corners and
its darkest border may turn black. DICOM headers are not carried over. Folder names are kept, and file names too
unless --rename is given: they may name patients.
"""

import argparse
import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from jaxmed.data.burnt_in import Box, Finding, remove_burnt_in
from jaxmed.data.dicom import is_dicom, load_pydicom
from jaxmed.data.image_io import IMAGE_SUFFIXES, read_file
from jaxmed.errors import UserError

WARNING = "This is not a certified de-identifier: look at each picture before it leaves the hospital."
COLUMNS = ("source", "output", "status", "removed_share", "scan_share", "removed", "suspicious", "message")
SMALL_SCAN = 0.15  # of the picture: below, the scan region is doubtful
RED, YELLOW, GREEN, WHITE = (0, 0, 255), (0, 255, 255), (0, 160, 0), (255, 255, 255)
CELL = (320, 250)  # width and height of one picture on a review sheet


@dataclass
class Job:
    """What to do: folders, whether to rename, how many pictures go on a sheet."""

    root: Path
    out: Path
    review: Path
    rename: bool
    pattern: str
    per_sheet: int


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns 1 if a picture failed."""
    args = parse(arguments)
    job = Job(Path(args.dir), Path(args.out), Path(args.review), args.rename, args.patient_pattern, args.per_sheet)
    print(WARNING)
    rows = run(job)
    counts = {status: sum(row["status"] == status for row in rows) for status in ("unflagged", "look", "failed")}
    print(f"{len(rows)} files: {counts['look']} with possible writing left (look closely), "
          f"{counts['unflagged']} unflagged (look all the same), {counts['failed']} failed (no output)")
    print(f"pictures: {job.out}; before and after, and report.csv (confidential): {job.review}")
    print(WARNING)
    return int(counts["failed"] > 0)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True, help="folder of pictures; its folders are kept")
    parser.add_argument("--out", required=True, help="empty or new folder for the PNG files")
    parser.add_argument("--review", required=True, help="empty or new folder for sheets and report.csv; outside --out")
    parser.add_argument("--rename", action="store_true", help="number the files instead of keeping their names")
    parser.add_argument("--patient_pattern", default="", help="with --rename: its first group, found in the file name, is the "
                        "patient, who gets a number of its own")  # fmt: skip
    parser.add_argument("--per_sheet", type=int, default=12, help="pictures per review sheet")
    return parser.parse_args(arguments)


def run(job: Job) -> list[dict]:
    """Treats every file; returns (and writes) the rows of report.csv.

    Raises:
        UserError: no pictures, folders that are not empty or lie inside each other, two files with one output name, a name
            without patient.
    """
    files = _find(job)
    names = _output_names(job, files)
    rows, cells = [], []
    for number, path in enumerate(files, start=1):
        row, pair = treat(path, job.out / names[path])
        row["source"], row["output"] = path.relative_to(job.root).as_posix(), names[path] if pair is not None else ""
        rows.append(row)
        if pair is not None:
            cells.append(_label(pair, f"{number} {row['status']}"))
        if cells and (len(cells) == job.per_sheet or number == len(files)):
            first = len(list(job.review.glob("sheet_*.png"))) + 1
            _write(job.review / f"sheet_{first:04d}.png", _sheet(cells))
            cells = []
    with open(job.review / "report.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("number", *COLUMNS))
        writer.writeheader()
        writer.writerows({"number": number, **row} for number, row in enumerate(rows, start=1))
    return rows


def treat(path: Path, out: Path) -> tuple[dict, np.ndarray | None]:
    """One file: its row of the report, and (unless it failed) the picture before and after, side by side."""
    row = dict.fromkeys(COLUMNS, "")
    try:
        picture, boxes = read_dicom_picture(path) if is_dicom(path) else (read_picture(path), ())
        finding = remove_burnt_in(picture, boxes)
        if not finding.scan.any():
            raise UserError(f"{path}: no scan region found; the picture is nearly black or holds writing only")
    except UserError as error:
        return row | {"status": "failed", "message": str(error)}, None
    small = finding.scan.mean() < SMALL_SCAN
    row |= {
        "status": "look" if finding.suspicious or small else "unflagged",
        "removed_share": f"{finding.removed_share:.5f}",
        "scan_share": f"{finding.scan.mean():.3f}",
        "removed": _text(finding.removed),
        "suspicious": _text(finding.suspicious),
        "message": "the scan region is small: was it found?" if small else "",
    }
    _write(out, finding.clean)
    return row, _before_after(picture, finding)


def read_picture(path: Path) -> np.ndarray:
    """A picture file as uint8, [h, w] where it is gray and BGR [h, w, 3] where it is not; no header of it is kept."""
    try:
        pixels = cv2.imdecode(np.frombuffer(read_file(path), np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UserError(f"{path}: cannot be read as a picture; it may be truncated: copy it again")
    if pixels.dtype != np.uint8:
        raise UserError(f"{path}: {pixels.dtype} pixels; export 8-bit pictures")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = pixels[..., :3]
    return pixels


def read_dicom_picture(path: Path) -> tuple[np.ndarray, tuple[Box, ...]]:
    """The pixels of a still (gray or BGR, 8 bits) and its 2-D ultrasound regions (DICOM PS3.3 C.8.5.5).

    Raises:
        UserError: a broken file, a loop of frames, no pixels, more than 8 bits.
    """
    library = load_pydicom()
    try:
        dataset = library.dcmread(path)
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise UserError(f"{path}: a loop of {dataset.NumberOfFrames} frames; export the stills")
        pixels = library.pixels.pixel_array(dataset)  # YBR becomes RGB here
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            pixels = library.pixels.apply_color_lut(pixels, dataset)
            pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    except UserError:
        raise
    except Exception as error:  # pydicom raises many kinds on broken files
        raise UserError(f"{path}: cannot be read as a DICOM picture ({error}); copy or export it again") from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise UserError(f"{path}: pixels {pixels.dtype} {list(pixels.shape)}; only 8-bit ultrasound stills are treated")
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = 255 - pixels
    pixels = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    return pixels, tuple(_regions(dataset))


def _regions(dataset) -> Iterator[Box]:
    for region in dataset.get("SequenceOfUltrasoundRegions") or ():
        corners = [region.get(f"RegionLocation{name}") for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        if region.get("RegionSpatialFormat") == 1 and None not in corners:
            x, y, right, bottom = map(int, corners)
            yield Box(x, y, right - x + 1, bottom - y + 1, "scan")


def _find(job: Job) -> list[Path]:
    if not job.root.is_dir():
        raise UserError(f"--dir={job.root} is not a folder")
    for folder in (job.out, job.review):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not empty; give a new folder, so that old and new pictures do not mix")
    places = [folder.resolve() for folder in (job.root, job.out, job.review)]
    for one in places:
        if any(other is not one and (other == one or one in other.parents) for other in places):
            raise UserError("--dir, --out and --review must be three folders, none inside another: --review is confidential")
    kinds = sorted(path for path in job.root.rglob("*") if path.is_file() and not path.name.startswith("."))
    files = [path for path in kinds if path.suffix.lower() in IMAGE_SUFFIXES or is_dicom(path)]
    if not files:
        raise UserError(f"{job.root}: no DICOM files or pictures ({', '.join(IMAGE_SUFFIXES)})")
    job.review.mkdir(parents=True, exist_ok=True)
    return files


def _output_names(job: Job, files: list[Path]) -> dict[Path, str]:
    """Every file's output, relative to --out."""
    names: dict[Path, str] = {}
    patients: dict[str, list[Path]] = {}
    for path in files:
        folder = path.relative_to(job.root).parent
        if job.rename:
            members = patients.setdefault(_patient(path, job.pattern), [])
            members.append(path)
            stem = f"p{list(patients).index(_patient(path, job.pattern)) + 1:05d}_{len(members):03d}"
        else:
            stem = path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, ".dcm", ".dicom") else path.name
        names[path] = (folder / f"{stem}.png").as_posix()
    taken: dict[str, Path] = {}
    for path, name in names.items():
        if taken.setdefault(name, path) != path:
            raise UserError(f"{path} and {taken[name]} would both become {name}; rename one, or use --rename")
    return names


def _patient(path: Path, pattern: str) -> str:
    """Without a pattern every picture counts as a patient of its own."""
    if not pattern:
        return str(path)
    match = re.search(pattern, path.name)
    if not match or not match.groups() or not match[1]:
        raise UserError(f"{path}: --patient_pattern={pattern!r} finds no patient in this name")
    return match[1]


def _text(boxes: tuple[Box, ...]) -> str:
    return "; ".join(f"{box.kind} x={box.x} y={box.y} {box.width}x{box.height}" for box in boxes)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise UserError(f"{path}: cannot be written")


def _before_after(picture: np.ndarray, finding: Finding) -> np.ndarray:
    """Left the original with the scan region (green), removed (red) and suspicious (yellow) boxes; right the result."""
    before, after = (p if p.ndim == 3 else cv2.cvtColor(p, cv2.COLOR_GRAY2BGR) for p in (picture, finding.clean))
    scale = min(CELL[0] / before.shape[1], CELL[1] / before.shape[0])
    before, after = (cv2.resize(p, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for p in (before, after))
    outline = cv2.resize(finding.scan.astype(np.uint8), before.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    cv2.drawContours(before, cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0], -1, GREEN, 1)
    for boxes, color in ((finding.removed, RED), (finding.suspicious, YELLOW)):
        for box in boxes:
            corners = np.round(np.array([box.x, box.y, box.x + box.width, box.y + box.height]) * scale).astype(int)
            cv2.rectangle(before, corners[:2].tolist(), corners[2:].tolist(), color, 1)
    pair = np.full((CELL[1] + 18, 2 * CELL[0] + 4, 3), 40, np.uint8)
    for left, side in ((0, before), (CELL[0] + 2, after)):
        pair[18 : 18 + side.shape[0], left : left + side.shape[1]] = side[: CELL[1], : CELL[0]]
    return pair


def _label(pair: np.ndarray, text: str) -> np.ndarray:
    cv2.putText(pair, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, WHITE, 1, cv2.LINE_AA)
    return pair


def _sheet(pairs: list[np.ndarray]) -> np.ndarray:
    """Pairs in two columns."""
    pairs = pairs + [np.full_like(pairs[0], 40)] * (len(pairs) % 2)
    return np.vstack([np.hstack(pairs[k : k + 2]) for k in range(0, len(pairs), 2)])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
