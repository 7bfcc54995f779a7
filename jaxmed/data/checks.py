"""`--mode=check_data`: reads every case of a source and says in plain words what is wrong and what is worth knowing.

Errors make the data unusable (unreadable files, a patient or a duplicate in two splits, a class without cases): exit status 1.
Warnings are handled by stated rules (duplicates, label conflicts, tiny lesions, empty masks) but deserve a look: exit status 0.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxmed.data.cache import resize_case
from jaxmed.data.cases import Source
from jaxmed.data.reading import Progress, parallel_map, read_case
from jaxmed.data.similarity import THUMBNAIL, Pairs, label_conflicts, similar_pairs, thumbnail
from jaxmed.data.split_table import DROPPED, LEAKY, SPLITS, Split, label_name, members_text, shared_across
from jaxmed.data.splits import OPTIONS, case_groups, describe_conflicts
from jaxmed.data.views import FLAGS, view_flags
from jaxmed.errors import UserError

ERROR, WARNING, OK, FACT = "error", "warning", "ok", "fact"
_FEW = 10  # cases of a class below which no interval means much


@dataclass(frozen=True)
class Finding:
    """One line of the report; `names` are the cases it is about."""

    level: str
    text: str
    names: tuple[str, ...] = ()


@dataclass
class Report:
    """Everything `check_data` found."""

    title: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, level: str, text: str, names: Sequence[str] = ()) -> None:
        """One more finding."""
        self.findings.append(Finding(level, text, tuple(names)))

    def of(self, level: str) -> list[Finding]:
        """The findings of one level: "error", "warning", "ok" or "fact"."""
        return [finding for finding in self.findings if finding.level == level]

    @property
    def exit_status(self) -> int:
        """1 if there are errors, else 0."""
        return int(bool(self.of(ERROR)))

    def text(self, limit: int | None = 20) -> str:
        """The report as plain text; errors name every case, other findings the first `limit` (None: all)."""
        lines = [self.title]
        for finding in self.findings:
            shown = finding.names if finding.level == ERROR else finding.names[:limit]
            lines += [f"{f'[{finding.level}]':<10}{finding.text}", *(f"{'':<12}{name}" for name in shown)]
            if len(finding.names) > len(shown):
                lines.append(f"{'':<12}and {len(finding.names) - len(shown)} more")
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        errors, warnings = len(self.of(ERROR)), len(self.of(WARNING))
        verdict = "repair the errors before training" if errors else "the data can be used"
        return f"Result: {counted(errors, 'error')}, {counted(warnings, 'warning')}: {verdict}."


@dataclass(frozen=True)
class _Look:
    """What one case showed: nothing but `fault` if it cannot be read."""

    fault: str = ""
    height: int = 0
    width: int = 0
    lesion: float = 0.0  # fraction of the picture
    constant: bool = False
    flags: tuple[str, ...] = ()
    small: np.ndarray | None = None


def check_data(
    source: Source,
    split: Split | None = None,
    *,
    size: int = 224,
    data: Mapping | None = None,
    flags: Mapping[str, str] = FLAGS,
    log: Callable[[str], None] = print,
) -> Report:
    """Looks at every case of `source`, and at `split` (or the source's own split column) for leaks.

    Args:
        size: network input size at which tiny lesions are judged.
        data: the config's `data` block, for its duplicate and conflict thresholds.
        flags: what to say about masks that `jaxmed.data.views` has a rule for.
    """
    options = {key: (data or {}).get(key, default) for key, default in OPTIONS.items()}
    progress = Progress(f"checking {counted(len(source), 'case')} of '{source.name}'", len(source), log)
    looks = []
    for look in parallel_map(lambda index: _look(source, index, size), len(source)):
        looks.append(look)
        progress.step()
    progress.end()
    report = Report(f"Data check of '{source.name}': {counted(len(source), 'case')}, classes {', '.join(source.classes)}")
    for note in source.notes:
        report.add(FACT, note)
    _integrity(report, source, looks)
    balance(report, source)
    patients = {case.patient_id for case in source.cases} - {""}
    report.add(FACT, counted(len(patients), "patient") if patients else "no patient ids")
    _sizes(report, source, looks)
    _lesions(report, source, looks, size, flags)
    pairs = _similar(looks, options)
    _duplicates(report, source, pairs.above(options["duplicate_threshold"]), options)
    _conflicts(report, source, pairs, options)
    _leakage(report, source, split, pairs.above(options["duplicate_threshold"]))
    return report


def _look(source: Source, index: int, size: int) -> _Look:
    try:
        case = read_case(source, index)
    except UserError as error:
        return _Look(fault=str(error))
    image, mask = case["image"], case.get("mask")
    flags, lesion = (), 0.0
    if mask is not None:
        flags, lesion = view_flags(resize_case(image, mask, size)[..., 1]), float(np.count_nonzero(mask) / mask.size)
    return _Look("", *image.shape, lesion, bool(image.min() == image.max()), flags, thumbnail(image))


def _integrity(report: Report, source: Source, looks: list[_Look]) -> None:
    names = Counter(case.case_id for case in source.cases)
    if twice := [name for name, count in names.items() if count > 1]:
        report.add(ERROR, f"{counted(len(twice), 'case_id')} used more than once", twice)
    faults = [look.fault for look in looks if look.fault]
    if faults:
        report.add(ERROR, f"{counted(len(faults), 'case')} cannot be read", faults)
    else:
        report.add(OK, f"every image{' and mask' if source.has_masks else ''} can be read")
    if blank := _named(source, looks, lambda look: look.constant):
        report.add(WARNING, f"{counted(len(blank), 'image')} of one single gray value", blank)


def balance(report: Report, source: Source) -> None:
    """Cases per class, classes without or with few of them, and cases without label."""
    counts = Counter(case.label for case in source.cases)
    report.add(FACT, "cases per class: " + ", ".join(f"{name} {counts[i]}" for i, name in enumerate(source.classes)))
    for label, name in enumerate(source.classes):
        if not counts[label]:
            report.add(ERROR, f"class {name!r} has no cases")
        elif counts[label] < _FEW:
            report.add(WARNING, f"class {name!r} has only {counted(counts[label], 'case')}: too few for reliable figures")
    if unknown := [case.case_id for case in source.cases if case.label < 0]:
        report.add(WARNING, f"{counted(len(unknown), 'case')} without label: good for prediction only", unknown)


def _sizes(report: Report, source: Source, looks: list[_Look]) -> None:
    read = [look for look in looks if not look.fault]
    for what in ("width", "height"):
        if read:
            values = [getattr(look, what) for look in read]
            report.add(FACT, f"image {what}: {min(values)} to {max(values)} pixels, median {np.median(values):.0f}")


def _lesions(report: Report, source: Source, looks: list[_Look], size: int, flags: Mapping[str, str]) -> None:
    if not source.has_masks:
        report.add(FACT, 'no masks: only the mask-free option experts=("image",) can be trained')
        return
    report.add(FACT, f"masks: {source.mask_origin}")
    for label, name in enumerate(source.classes):
        of_class = zip(source.cases, looks, strict=True)
        parts = [100 * look.lesion for case, look in of_class if case.label == label and look.lesion]
        if parts:
            low, middle, high = np.percentile(parts, [0, 50, 100])
            report.add(FACT, f"lesion size, {name}: {low:.1f} to {high:.1f} % of the picture, median {middle:.1f} %")
    for flag, text in flags.items():
        if names := _named(source, looks, lambda look, flag=flag: flag in look.flags):
            report.add(WARNING, f"{len(names)} of {len(looks)} {text} (at {size} x {size})", names)


def _similar(looks: list[_Look], options: Mapping) -> Pairs:
    blank = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8)
    small = [blank if look.small is None else look.small for look in looks]
    return similar_pairs(np.array(small), min(options["duplicate_threshold"], options["conflict_threshold"]))


def _duplicates(report: Report, source: Source, pairs: Pairs, options: Mapping) -> None:
    above = f"correlate above {options['duplicate_threshold']:g} (32 x 32 gray)"
    if not len(pairs):
        report.add(OK, f"no duplicates: no two images {above}")
        return
    members: dict[int, list[str]] = {}
    linked = np.union1d(pairs.first, pairs.second)
    groups = case_groups(source, pairs)
    for row in linked:
        members.setdefault(int(groups[row]), []).append(source.cases[row].case_id)
    text = f"{counted(len(pairs), 'pair')} among {len(linked)} images {above}; they form {counted(len(members), 'group')}"
    fate = "each kept in one split" if options["group_duplicates"] else "not kept together (data.group_duplicates=False)"
    report.add(WARNING, f"duplicates: {text}, {fate}", [" + ".join(names) for names in members.values()])


def _conflicts(report: Report, source: Source, pairs: Pairs, options: Mapping) -> None:
    labels = np.array([case.label for case in source.cases])
    found = label_conflicts(pairs, labels, options["conflict_threshold"])
    if len(found):
        text = f"{counted(len(found), 'pair')} of images above {options['conflict_threshold']:g} with different labels"
        fate = "left out by default" if options["drop_conflicts"] else "kept (data.drop_conflicts=False)"
        report.add(WARNING, f"label conflicts: {text}; {fate}", describe_conflicts(source, found))


def _leakage(report: Report, source: Source, split: Split | None, pairs: Pairs) -> None:
    rows = split_rows(source, split)
    if rows is None:
        return
    split_balance(report, source, rows)
    shared = shared_patients(report, rows)
    across = _across(rows, pairs)
    if across:
        level = WARNING if split is not None and split.kind == LEAKY else ERROR
        report.add(level, f"leak: {counted(len(across), 'pair')} of duplicate images in different splits", across)
    if not shared and not across:
        report.add(OK, "no leak: no patient and no duplicate is in two splits")


def split_rows(source: Source, split: Split | None) -> list[dict] | None:
    """The rows of the given split, else of the source's own column, else None.

    Where the source brings test sets, the cases that it leaves to be divided count as "train".
    """
    if split is not None:
        return split.rows
    if not any(case.split for case in source.cases):
        return None
    rest = "train" if source.test_sets else ""
    return [
        {"case_id": case.case_id, "label": label, "patient_id": case.patient_id, "split": case.split or rest}
        for case, label in ((case, label_name(source, case.label)) for case in source.cases)
    ]


def split_balance(report: Report, source: Source, rows: Sequence[Mapping]) -> None:
    """Cases per class of each split, splits that lack a class, and rows with a split of another name."""
    counts = Counter((row["split"], row["label"]) for row in rows)
    for name in dict.fromkeys(row["split"] for row in rows if row["split"] != DROPPED) if source.test_sets else SPLITS:
        per_class = ", ".join(f"{label} {counts[name, label]}" for label in source.classes)
        report.add(FACT, f"split {name}: {per_class}")
        if empty := [label for label in source.classes if not counts[name, label]]:
            report.add(ERROR, f"split {name} has no case of class {', '.join(empty)}")
    misnamed_splits(report, rows, (*SPLITS, *source.test_sets), "case")


def misnamed_splits(report: Report, rows: Sequence[Mapping], known: Sequence[str], what: str) -> None:
    """An error that names the rows whose split is neither `known` nor "dropped"."""
    if odd := [f"{row['case_id']}: {row['split']!r}" for row in rows if row["split"] not in (*known, DROPPED)]:
        report.add(ERROR, f"{counted(len(odd), what)} with a split other than {', '.join(known)}", odd)


def shared_patients(report: Report, rows: Sequence[Mapping]) -> bool:
    """An error that names the patients in several splits, and whether there are any."""
    shared = [members_text(members) for members in shared_across(rows, "patient_id").values()]
    if shared:
        report.add(ERROR, f"leak: {counted(len(shared), 'patient')} in several splits", shared)
    return bool(shared)


def _across(rows: Sequence[Mapping], pairs: Pairs) -> list[str]:
    found = []
    for first, second, value in pairs:
        splits = {rows[first]["split"], rows[second]["split"]}
        if len(splits - {DROPPED}) > 1:
            found.append(f"{members_text([rows[first], rows[second]])}, correlation {value:.4f}")
    return found


def _named(source: Source, looks: list[_Look], condition: Callable[[_Look], bool]) -> list[str]:
    return [case.case_id for case, look in zip(source.cases, looks, strict=True) if condition(look)]


def counted(number: int, what: str) -> str:
    """ "1 case", "2 cases", "2 studies"."""
    many = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what if number == 1 else many}"
