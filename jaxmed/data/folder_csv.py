"""A CSV of cases: columns image, label; optionally mask, patient_id, split, case_id. Paths are relative to the CSV."""

from pathlib import Path

from jaxmed.data.folder_rows import Problems, Row
from jaxmed.data.sources import missing_mask_message
from jaxmed.data.tables import read_lines
from jaxmed.errors import UserError

HEADER = "image,mask,label,patient_id,split"
SPLITS = ("train", "val", "test")
MASK_SEPARATOR = ";"


def read_csv(path: Path, needs: tuple[str, ...], predict: bool) -> list[Row]:
    """The rows of the file, checked; several masks of an image are separated by ';'.

    Raises:
        UserError: a missing column, or one error with the line numbers of all bad rows: missing file, empty label,
            missing mask where `needs` has "mask", unknown split, split given for some rows only, repeated image, mask or id.
    """
    lines = read_lines(path, f"the header {HEADER} and one row per image")
    _check_columns(path, lines[0][1], needs, predict)
    problems = Problems(path)
    rows = [_row(path.parent, number, cells) for number, cells in lines]
    for row in rows:
        _check_row(row, needs, predict, problems)
    _check_repeats(rows, problems)
    _check_splits(rows, problems)
    problems.raise_if_any()
    return rows


def _check_columns(path: Path, cells: dict[str, str], needs: tuple[str, ...], predict: bool) -> None:
    have = ", ".join(cells)
    for column in ("image",) if predict else ("image", "label"):
        if column not in cells:
            raise UserError(f"{path}: no column {column!r} (found: {have}); the header is {HEADER}")
    if "mask" in needs and "mask" not in cells:
        raise UserError(missing_mask_message(f"{path}: no column 'mask' (found: {have})"))


def _row(folder: Path, number: int, cells: dict[str, str]) -> Row:
    masks = [part.strip() for part in cells.get("mask", "").split(MASK_SEPARATOR) if part.strip()]
    return Row(
        where=f"line {number}",
        case_id=cells.get("case_id") or cells["image"],
        image=folder / cells["image"],
        masks=tuple(folder / mask for mask in masks),
        label=cells.get("label", ""),
        patient_id=cells.get("patient_id", ""),
        split=cells.get("split", ""),
    )


def _check_row(row: Row, needs: tuple[str, ...], predict: bool, problems: Problems) -> None:
    if not row.image.is_file():
        problems.add(row.where, f"image file {row.image} does not exist")
    for mask in row.masks:
        if not mask.is_file():
            problems.add(row.where, f"mask file {mask} does not exist")
    if "mask" in needs and not row.masks:
        problems.add(row.where, "no mask")
        problems.hint = missing_mask_message("Masks are missing")
    if not row.label and not predict:
        problems.add(row.where, "no label; training needs one in every row")
    if row.split and row.split not in SPLITS:
        problems.add(row.where, f"split {row.split!r} is none of {', '.join(SPLITS)}")


def _check_repeats(rows: list[Row], problems: Problems) -> None:
    images, names = {}, {}
    for row in rows:
        first = images.setdefault(row.image.resolve(), row)
        if first is not row:
            problems.add(row.where, f"image {row.image.name} is already in {first.where}; keep one of the two rows")
            continue
        first = names.setdefault(row.case_id, row)
        if first is not row:
            problems.add(row.where, f"case_id {row.case_id!r} is already in {first.where}; ids must differ")
    _check_masks(rows, problems)


def _check_masks(rows: list[Row], problems: Problems) -> None:
    """A mask belongs to one image."""
    owners: dict[Path, Row] = {}
    for row in rows:
        for mask in row.masks:
            first = owners.setdefault(mask.resolve(), row)
            if first.image.resolve() != row.image.resolve():  # a repeated image is named already
                problems.add(row.where, f"mask {mask.name} is already that of {first.where}; name its own, or a copy")
        if len({mask.resolve() for mask in row.masks}) < len(row.masks):
            problems.add(row.where, "a mask is listed twice; name each once")


def _check_splits(rows: list[Row], problems: Problems) -> None:
    empty = [row for row in rows if not row.split]
    if 0 < len(empty) < len(rows):
        for row in empty:
            problems.add(row.where, "no split, but other rows have one; fill the column everywhere or leave it out")
