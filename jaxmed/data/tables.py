"""Tables that people edit: CSV files, and the sheets of Excel files, with the row numbers that errors name."""

import csv
from pathlib import Path

from jaxmed.errors import UserError


def read_lines(path: Path, expected: str) -> list[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of each row of a CSV that is not blank; names and cells without outer spaces.

    Args:
        expected: what the message for an empty file asks for.

    Raises:
        UserError: unreadable, not UTF-8, or without rows.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            lines = [(reader.line_num, _clean(cells)) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a UTF-8 CSV ({error})") from error
    lines = [(number, cells) for number, cells in lines if any(cells.values())]
    if not lines:
        raise UserError(f"{path}: no rows; expected {expected}")
    return lines


def check_columns(path: Path, lines: list[tuple[int, dict[str, str]]], *choices: str | tuple[str, ...], fix: str = "") -> None:
    """A UserError unless every one of `choices` (a column, or several of which one is enough) is among the columns."""
    have = lines[0][1]
    for choice in choices:
        names = (choice,) if isinstance(choice, str) else choice
        if not set(names) & set(have):
            raise UserError(f"{path}: no column {' or '.join(names)} (found: {', '.join(have)}); {fix}")


def _clean(cells: dict) -> dict[str, str]:
    return {key.strip(): (value or "").strip() for key, value in cells.items() if key}


def read_grid(path: Path, sheet: str = "") -> list[list[str]]:
    """All cells of a .csv or .xlsx as text, row by row (entry 0 is row 1); whole numbers without ".0".

    Args:
        sheet: the sheet of an Excel file; its first one where none has that name.

    Raises:
        UserError: another kind of file, unreadable, or Excel without openpyxl.
    """
    if path.suffix.lower() == ".csv":
        return _csv_grid(path)
    if path.suffix.lower() != ".xlsx":
        raise UserError(f"{path}: expected a .csv or .xlsx file; save it as one")
    try:
        import openpyxl
    except ImportError as error:
        fix = 'pip install "jaxmed[dicom]" (openpyxl), or export the sheet as a .csv'
        raise UserError(f"{path}: Excel files need openpyxl: {fix}") from error
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        page = book[sheet] if sheet in book.sheetnames else book.worksheets[0]
        rows = [[_text(cell) for cell in row] for row in page.iter_rows(values_only=True)]
        book.close()
    except Exception as error:  # openpyxl raises many kinds on broken files
        raise UserError(f"{path}: cannot be read as an Excel file ({error}); export the sheet as a .csv") from error
    return rows


def _csv_grid(path: Path) -> list[list[str]]:
    """Semicolons are what Excel writes where the comma is the decimal sign."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.partition("\n")[0]
        mark = ";" if first.count(";") > first.count(",") else ","
        return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(keepends=True), delimiter=mark)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a UTF-8 CSV ({error})") from error


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()
