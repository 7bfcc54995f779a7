"""Folders of images: one subfolder per class, the same inside train/, val/ and test/, or (for prediction) just pictures.

Masks are files "<stem>_mask*" beside the image, or "<stem>" / "<stem>_mask*" in a folder `masks/` beside the image or,
in a class tree, in `masks/<class>/` at the top.
"""

from dataclasses import replace
from pathlib import Path

from jaxmed.data.folder_csv import SPLITS
from jaxmed.data.folder_rows import Problems, Row, is_image
from jaxmed.data.sources import missing_mask_message
from jaxmed.errors import UserError

MASKS = "masks"


def read_tree(
    root: Path, classes: tuple[str, ...], needs: tuple[str, ...], predict: bool
) -> tuple[list[Row], list[str]]:
    """The rows of the tree and notes about folders left out; with a folder `train` of class folders, the split is theirs.

    Args:
        classes: the class folders to use; empty means all subfolders.

    Raises:
        UserError: no images; class or split folders that are missing; and, all at once, images without a mask where `needs` has
            "mask" and masks without an image.
    """
    if has_split_folders(root):
        return _read_splits(root, classes, needs, predict)
    folders = subfolders(root)
    flat = any(is_image(path) for path in root.iterdir())
    if flat and not predict:
        raise UserError(f"{root}: images outside a class folder; give one folder per class, or a CSV with labels")
    problems = Problems(root)
    if flat:
        rows, notes = _read_folder(root, root, "", problems), []
    else:
        chosen, notes = _choose(root, folders, classes, predict)
        rows = [row for folder in chosen for row in _read_folder(root, folder, folder.name, problems)]
    if not rows:
        raise UserError(f"{root}: no images (PNG, JPEG, BMP, TIFF); expected one folder per class, for example benign/")
    for row in rows:
        if "mask" in needs and not row.masks:
            problems.add(row.where, "no mask")
            problems.hint = missing_mask_message("Masks are missing")
    problems.raise_if_any()
    return rows, notes


def subfolders(root: Path) -> list[Path]:
    """Folders inside, sorted, without masks/ and hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name != MASKS and path.name[0] != ".")


def has_split_folders(root: Path) -> bool:
    """Whether there is a folder `train` that holds folders and no images (a class may be called train, too)."""
    train = root / "train"
    return train.is_dir() and bool(subfolders(train)) and not any(is_image(path) for path in train.iterdir())


def _read_splits(
    root: Path, classes: tuple[str, ...], needs: tuple[str, ...], predict: bool
) -> tuple[list[Row], list[str]]:
    missing = [name for name in SPLITS if not (root / name).is_dir()]
    if missing and not predict:
        fix = f"give data.dir={str(root / 'train')!r} to have it divided by patient, or add the folder"
        raise UserError(f"{root}: has split folders, but no {' and no '.join(missing)}; {fix}")
    rows, notes = [], []
    for name in SPLITS:
        if name not in missing:
            found, about = read_tree(root / name, classes, needs, predict)
            there = (replace(row, where=f"{name}/{row.where}", case_id=f"{name}/{row.case_id}", split=name) for row in found)
            rows += there
            notes += [f"{name}: {note}" for note in about]
    if others := [folder.name for folder in subfolders(root) if folder.name not in SPLITS]:
        notes.append(f"folders beside {', '.join(SPLITS)} that were not read: {', '.join(others)}")
    return rows, notes


def _choose(root: Path, folders: list[Path], classes: tuple[str, ...], predict: bool) -> tuple[list[Path], list[str]]:
    missing = sorted(set(classes) - {folder.name for folder in folders})
    if missing and not predict:
        names = ", ".join(folder.name for folder in folders) or "none"
        raise UserError(f"{root}: no class folder {', '.join(missing)} (found: {names}), but data.classes={classes}")
    if not classes:
        return folders, []
    others = [folder.name for folder in folders if folder.name not in classes]
    notes = [f"folders left out because data.classes does not name them: {', '.join(others)}"] if others else []
    return [folder for folder in folders if folder.name in classes], notes


def _read_folder(root: Path, folder: Path, label: str, problems: Problems) -> list[Row]:
    files = sorted(path for path in folder.iterdir() if is_image(path))
    images = [path for path in files if "_mask" not in path.stem]
    beside = [path for path in files if "_mask" in path.stem]
    places = {folder / MASKS, root / MASKS / label}
    apart = [path for place in places if place.is_dir() for path in sorted(place.iterdir()) if is_image(path)]
    owned: dict[str, list[Path]] = {path.stem: [] for path in images}
    for path in beside + apart:
        stem = path.stem.rsplit("_mask", 1)[0]
        if stem in owned:
            owned[stem].append(path)
        else:
            problems.add(str(path.relative_to(root)), f"a mask without an image named {stem}; remove or rename it")
    _check_stems(root, images, problems)
    return [_row(root, path, label, owned[path.stem]) for path in images]


def _check_stems(root: Path, images: list[Path], problems: Problems) -> None:
    seen: dict[str, Path] = {}
    for path in images:
        first = seen.setdefault(path.stem, path)
        if first is not path:
            problems.add(str(path.relative_to(root)), f"the same name as {first.name} but for the suffix; keep one")


def _row(root: Path, image: Path, label: str, masks: list[Path]) -> Row:
    name = image.relative_to(root).as_posix()
    return Row(where=name, case_id=name, image=image, masks=tuple(masks), label=label)
