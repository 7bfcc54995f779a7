"""`--mode=check_data` for mammography studies: reads every view, and says what is wrong and what is worth knowing.

As in `checks.py`, errors make the data unusable (unreadable files, a patient or a picture in two splits, a label without
breasts); warnings deserve a look (blank views, the same picture in two studies, a breast at the wrong edge).
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from jaxmed.data import breast
from jaxmed.data.checks import ERROR, FACT, OK, WARNING, Report, counted, misnamed_splits, shared_patients
from jaxmed.data.reading import Progress, parallel_map
from jaxmed.data.split_table import DROPPED, SPLITS, Split
from jaxmed.data.studies import LABELS, VIEWS, Study, StudySource
from jaxmed.errors import UserError

FEW = 10  # breasts of a class below which no interval means much
LISTED = 20  # studies up to which each gets a line of its own
SIDE_NAMES = ("left", "right")  # as Study.label and Study.birads have them


@dataclass(frozen=True)
class Look:
    """What the views of one case showed: nothing but `fault` if they cannot be read."""

    fault: str = ""
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # of each view, height and width
    blank: tuple[str, ...] = ()
    wrong_edge: tuple[str, ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()  # (view, hash of its pixels), without blank views


def check_studies(source: StudySource, split: Split | None = None, *, log: Callable[[str], None] = print) -> Report:
    """Looks at every study of `source`, and at `split` (or the source's own split column) for leaks.

    Sources without any label (folders for prediction) get a warning, no error.
    """
    looks = _read_all(source, log)
    report = Report(f"Data check of '{source.name}': {counted(len(source), 'study')}")
    for note in source.notes:
        report.add(FACT, note)
    _integrity(report, source, looks)
    _content(report, source)
    _sizes(report, source, looks)
    pictures(report, looks, lambda index, view: f"{source.studies[index].study_id} {view}")
    _targets(report, source)
    rows = _split_rows(source, split)
    same_pictures(report, looks, rows, lambda index, view: _named(source.studies[index], view))
    if rows is not None:
        _splits(report, source, rows)
    if len(source) <= LISTED:
        report.add(FACT, "studies:", [_line(study) for study in source.studies])
    return report


def _read_all(source: StudySource, log: Callable[[str], None]) -> list[Look]:
    views = [int(study.present.sum()) for study in source.studies]
    progress = Progress(f"checking {counted(len(source), 'study')} of '{source.name}'", sum(views), log)
    looks = []
    for look, number in zip(parallel_map(lambda index: _look(source, index), len(source)), views, strict=True):
        looks.append(look)
        for _ in range(number):
            progress.step()
    progress.end()
    return looks


def _look(source: StudySource, index: int) -> Look:
    def read() -> dict[str, np.ndarray]:
        found = source.read(index)
        return {VIEWS[k]: found["views"][k] for k in np.flatnonzero(found["present"])}

    return look_at(source.studies[index].study_id, read)


def look_at(name: str, read: Callable[[], Mapping[str, np.ndarray]]) -> Look:
    """A look at the case `name`, of which `read` gives the views that it has by their names."""
    try:
        views = read()
    except (UserError, OSError, ValueError, cv2.error) as error:
        return Look(fault=f"{name}: {error}")
    blank = tuple(view for view, pixels in views.items() if pixels.min() == pixels.max())
    seen = {view: pixels for view, pixels in views.items() if view not in blank}
    return Look(
        sizes={view: pixels.shape for view, pixels in views.items()},
        blank=blank,
        wrong_edge=tuple(view for view, pixels in seen.items() if breast.chest_wall(pixels) == "right"),
        pictures=tuple((view, hashlib.sha256(pixels.tobytes()).hexdigest()) for view, pixels in seen.items()),
    )


def _integrity(report: Report, source: StudySource, looks: list[Look]) -> None:
    names = Counter(study.study_id for study in source.studies)
    if twice := [name for name, number in names.items() if number > 1]:
        report.add(ERROR, f"{counted(len(twice), 'study_id')} used more than once", twice)
    if faults := [look.fault for look in looks if look.fault]:
        report.add(ERROR, f"{counted(len(faults), 'study')} cannot be read", faults)
    else:
        report.add(OK, "every view can be read")
    if empty := [study.study_id for study in source.studies if not study.present.any()]:
        report.add(ERROR, f"{counted(len(empty), 'study')} without any view", empty)


def _content(report: Report, source: StudySource) -> None:
    patients = [study.patient_id for study in source.studies]
    known = len(set(patients) - {""})
    report.add(FACT, f"{counted(len(source), 'study')} of {counted(known, 'patient')}" if known else "no patient ids")
    if known and "" in patients:
        lost = [study.study_id for study in source.studies if not study.patient_id]
        report.add(WARNING, f"{counted(len(lost), 'study')} without patient id: visits of one patient may be divided", lost)
    kinds = Counter(_views_text(study) for study in source.studies)
    report.add(FACT, "views:", [f"{kind}: {counted(number, 'study')}" for kind, number in kinds.most_common()])


def _views_text(study: Study) -> str:
    missing = [name for name, there in zip(VIEWS, study.present, strict=True) if not there]
    return f"without {', '.join(missing)}" if missing else "complete"


def _sizes(report: Report, source: StudySource, looks: list[Look]) -> None:
    """Every view should have the source's size, or the most frequent one where the source does not say it."""
    found = [next(iter(look.sizes.values()), ()) for look in looks]  # those of a study are alike
    sizes = Counter(size for size in found if size)
    if not sizes:
        return
    wanted = getattr(source, "size", None) or sizes.most_common(1)[0][0]
    wanted = (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
    text = f"{wanted[0]} x {wanted[1]} pixels (height x width)"
    if set(sizes) == {wanted}:
        report.add(FACT, f"every view has {text}")
        return
    odd = [f"{study.study_id}: {size[0]} x {size[1]}" for study, size in zip(source.studies, found, strict=True)
           if size not in ((), wanted)]
    report.add(ERROR, f"{counted(len(odd), 'study')} with views that have not {text}", odd)


def pictures(report: Report, looks: Sequence[Look], named: Callable[[int, str], str]) -> None:
    """Blank views and breasts at the wrong edge; `named(index, view)` is how they are called."""
    seen = list(enumerate(looks))
    if blank := [named(index, view) for index, look in seen for view in look.blank]:
        report.add(WARNING, f"{counted(len(blank), 'view')} of one single gray value", blank)
    if wrong := [named(index, view) for index, look in seen for view in look.wrong_edge]:
        text = f"{counted(len(wrong), 'view')} with the breast at the right edge although the chest wall should be on the left"
        report.add(WARNING, text, wrong)


def _targets(report: Report, source: StudySource) -> None:
    labels = dict(enumerate(source.classes))
    birads = {value: str(value) for value in source.birads_classes}
    label_counts = _counts(report, source, "label", labels)
    birads_counts = _counts(report, source, "birads", birads)
    if not label_counts and not birads_counts:
        report.add(WARNING, "no breast has a label or a BI-RADS category: good for prediction only")
        return
    unlabelled = [f"{study.study_id} {SIDE_NAMES[k]}" for study in source.studies for k in range(2)
                  if study.present.reshape(2, 2)[k].any() and max(study.label[k], study.birads[k]) < 0]
    if unlabelled:
        text = f"{counted(len(unlabelled), 'breast')} with views but without label and BI-RADS: no targets, good for prediction"
        report.add(WARNING, f"{text} only (their views still help the other breast)", unlabelled)
    _rare(report, "class", labels, label_counts, ERROR)
    _rare(report, "BI-RADS", birads, birads_counts, WARNING)


def _counts(report: Report, source: StudySource, task: str, names: Mapping[int, str]) -> Counter:
    """Breasts per class on both sides; each side's counts, and how many of its breasts have no class, go into the report."""
    total: Counter = Counter()
    for k, side in enumerate(SIDE_NAMES):
        seen = [study for study in source.studies if study.present.reshape(2, 2)[k].any()]
        found = Counter(value for study in seen if (value := getattr(study, task)[k]) in names)
        text = ", ".join(f"{name}: {found[value]}" for value, name in names.items())
        title = "BI-RADS" if task == "birads" else task
        report.add(FACT, f"{title} of {side} breasts: {text}, not known: {len(seen) - found.total()}")
        total += found
    return total


def _rare(report: Report, what: str, names: Mapping[int, str], found: Counter, level: str) -> None:
    """Classes of a task without breasts (`level`) or with few; nothing for a task that no breast has a class of."""
    if not found:
        return
    for value, name in names.items():
        if not found[value]:
            advice = "" if level == ERROR else "; data.birads_subset can leave it out"
            report.add(level, f"{what} {name!r} has no breasts{advice}")
        elif found[value] < FEW:
            report.add(WARNING, f"{what} {name!r} has only {counted(found[value], 'breast')}: too few for reliable figures")


def same_pictures(
    report: Report, looks: Sequence[Look], rows: Sequence[Mapping] | None, named: Callable[[int, str], str]
) -> None:
    """Pictures equal in every pixel: an error across splits, else a warning; `named` as in `pictures`."""
    members: dict[str, list[tuple[int, str]]] = {}
    for index, look in enumerate(looks):
        for view, digest in look.pictures:
            members.setdefault(digest, []).append((index, view))
    leaks, same = [], []
    for group in members.values():
        if len(group) > 1:
            places = [f" in {rows[index]['split']}" if rows is not None else "" for index, _ in group]
            text = " = ".join(f"{named(*member)}{place}" for member, place in zip(group, places, strict=True))
            (leaks if _across(group, rows) else same).append(text)
    if leaks:
        report.add(ERROR, f"leak: {counted(len(leaks), 'picture')} in different splits", leaks)
    if same:
        text = f"{counted(len(same), 'picture')} more than once: look for files that were copied or misnamed"
        report.add(WARNING, text, same)
    if not leaks and not same:
        report.add(OK, "no picture is there twice")


def _across(group: Sequence[tuple[int, str]], rows: Sequence[Mapping] | None) -> bool:
    return rows is not None and len({rows[index]["split"] for index, _ in group} - {DROPPED}) > 1


def _named(study: Study, view: str) -> str:
    return f"{study.study_id} {view}" + (f" (patient {study.patient_id})" if study.patient_id else "")


def _split_rows(source: StudySource, split: Split | None) -> list[dict] | None:
    """The rows of the given split, else of the source's own column, else None; one per study, in its order."""
    if split is not None:
        return split.rows
    if not any(study.split for study in source.studies):
        return None
    return [{"case_id": s.study_id, "patient_id": s.patient_id, "split": s.split} for s in source.studies]


def _splits(report: Report, source: StudySource, rows: Sequence[Mapping]) -> None:
    misnamed_splits(report, rows, SPLITS, "study")
    for name in SPLITS:
        studies = [study for study, row in zip(source.studies, rows, strict=True) if row["split"] == name]
        _one_split(report, source, name, studies)
    if not shared_patients(report, rows):
        report.add(OK, "no leak: no patient is in two splits")


def _one_split(report: Report, source: StudySource, name: str, studies: list[Study]) -> None:
    labels = Counter(value for study in studies for value in study.label)
    birads = Counter(value for study in studies for value in study.birads)
    label_text = ", ".join(f"{text}: {labels[value]}" for value, text in enumerate(source.classes))
    birads_text = ", ".join(f"{value}: {birads[value]}" for value in source.birads_classes)
    report.add(FACT, f"split {name}: {counted(len(studies), 'study')}; breasts: {label_text}; BI-RADS {birads_text}")
    for task, title, level, names in (("label", "class", ERROR, dict(enumerate(source.classes))),
                                      ("birads", "BI-RADS", WARNING, {value: value for value in source.birads_classes})):
        here = {value for study in studies for value in getattr(study, task)}
        there = {value for study in source.studies for value in getattr(study, task)}
        if lost := [str(text) for value, text in names.items() if value in there and value not in here]:
            report.add(level, f"split {name} has no breast of {title} {', '.join(lost)}")


def _line(study: Study) -> str:
    """ "S1 (P7): L_CC, R_CC; left malignant, BI-RADS 5; right not known"."""
    views = ", ".join(name for name, there in zip(VIEWS, study.present, strict=True) if there) or "no views"
    sides = []
    for k, name in enumerate(SIDE_NAMES):
        if study.present.reshape(2, 2)[k].any():
            sides.append(f"{name} {_known(study, k)}")
    return "; ".join([f"{study.study_id} ({study.patient_id or 'patient not known'}): {views}", *sides])


def _known(study: Study, side: int) -> str:
    parts = [LABELS[study.label[side]]] if study.label[side] >= 0 else []
    parts += [f"BI-RADS {study.birads[side]}"] if study.birads[side] > 0 else []
    return ", ".join(parts) or "not known"
