"""`config.data.source` -> a source of cases."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxmed.data.cases import Source
from jaxmed.errors import UserError

if TYPE_CHECKING:  # needs pydicom's modules no more than make_source does
    from jaxmed.data.breasts import BreastSource
    from jaxmed.data.studies import StudySource

# Modules are loaded on use: `phantom` needs neither tensorflow_datasets nor a folder.
_SOURCES = {
    "busi": ("jaxmed.data.busi", "BusiSource"),
    "busi_whu": ("jaxmed.data.busi_whu", "BusiWhuSource"),
    "folder": ("jaxmed.data.folder", "FolderSource"),
    "phantom": ("jaxmed.data.phantom", "PhantomSource"),
    "phantom_liver": ("jaxmed.data.phantom_liver", "PhantomLiverSource"),
}

_STUDY_SOURCES = {
    "cmmd": ("jaxmed.data.cmmd", "CmmdSource"),
    "folder_views": ("jaxmed.data.folder_views", "FolderViewsSource"),
    "phantom_mammo": ("jaxmed.data.phantom_mammo", "PhantomMammoSource"),
    "study_records": ("jaxmed.data.study_records", "RecordStudySource"),
}

_BREAST_SOURCES = {
    "cbis_ddsm": ("jaxmed.data.cbis_ddsm", "CbisDdsmSource"),
    "folder_pairs": ("jaxmed.data.folder_pairs", "FolderPairsSource"),
    "phantom_pairs": ("jaxmed.data.phantom_pairs", "PhantomPairsSource"),
    "vindr_mammo": ("jaxmed.data.vindr_mammo", "VindrMammoSource"),
}


def make_source(data: Mapping, *, needs: tuple[str, ...] = ("image",), predict: bool = False) -> Source:
    """Opens the source that `data` (the config's `data` block) asks for.

    Args:
        data: keys `source`, `dir`, `classes`, `cache_dir` and the source's own keys.
        needs: what the system reads, "image" and perhaps "mask".
        predict: labels may be missing (`folder` only uses this).

    Raises:
        UserError: unknown source, or whatever is wrong with its files; a source without masks where `needs` has "mask".
    """
    name = data.get("source")
    if name not in _SOURCES:
        raise UserError(f"data.source={name!r} is unknown; choose one of {', '.join(sorted(_SOURCES))}")
    module, kind = _SOURCES[name]
    source = getattr(importlib.import_module(module), kind)(data, needs=tuple(needs), predict=predict)
    if "mask" in needs and not source.has_masks:
        raise UserError(missing_mask_message(f"data.source={name!r} has no masks"))
    return source


def make_study_source(data: Mapping, *, predict: bool = False) -> "StudySource":
    """Opens the source of four-view studies that `data.source` names: see `jaxmed.data.studies`.

    Raises:
        UserError: unknown source, or whatever is wrong with its files.
    """
    return _open(data, _STUDY_SOURCES, "four-view studies", predict)


def make_breast_source(data: Mapping, *, predict: bool = False) -> "BreastSource":
    """Opens the source of breasts with a CC and an MLO view that `data.source` names: see `jaxmed.data.breasts`.

    Raises:
        UserError: unknown source, or whatever is wrong with its files.
    """
    return _open(data, _BREAST_SOURCES, "breasts with two views", predict)


def _open(data: Mapping, table: Mapping[str, tuple[str, str]], what: str, predict: bool):
    name = data.get("source")
    if name not in table:
        raise UserError(f"data.source={name!r} has no {what}; choose one of {', '.join(sorted(table))}")
    module, kind = table[name]
    return getattr(importlib.import_module(module), kind)(data, predict=predict)


def missing_mask_message(what: str) -> str:
    """The one sentence about missing masks, with both ways out."""
    return (
        f"{what}, but this run reads the lesion's `mask` (to learn it, or to make core and boundary views from it): "
        'give a `mask` column or "<stem>_mask.png" beside each image; a network of views has the mask-free option '
        'experts=("image",)'
    )


def check_classes(asked: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """`data.classes` as a tuple; a UserError unless they are at least two different classes of the set."""
    asked = tuple(asked)
    wrong = [name for name in asked if name not in known]
    if wrong or len(set(asked)) != len(asked) or len(asked) < 2:
        raise UserError(f"data.classes={asked}: name at least two different ones of {tuple(known)}")
    return asked


def first_ten(items: Sequence) -> str:
    """The first ten of a list as text, and how many more there are."""
    more = f" and {len(items) - 10} more" if len(items) > 10 else ""
    return ", ".join(str(item) for item in items[:10]) + more


def data_folder(place: str | Path | None, fix: str) -> Path:
    """`data.dir` as a folder that exists; else a UserError that ends with `fix`."""
    if not place or not Path(place).expanduser().is_dir():
        raise UserError(f"data.dir={str(place)!r} is not a folder; {fix}")
    return Path(place).expanduser()


def cache_root(data: Mapping) -> Path:
    """Where prepared records and decoded images live: `data.cache_dir`, else JAXMED_CACHE, else ~/.cache/jaxmed."""
    folder = data.get("cache_dir") or os.environ.get("JAXMED_CACHE") or "~/.cache/jaxmed"
    return Path(folder).expanduser()
