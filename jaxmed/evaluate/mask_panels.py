"""The report's figures of masks with the words around them."""

import numpy as np

from jaxmed.errors import UserError
from jaxmed.evaluate.mask_files import MaskFile, read_mask_files
from jaxmed.evaluate.mask_plots import BINS, Strip, overlap_histogram, overlay_plot, size_plot
from jaxmed.evaluate.mask_sizes import SizeGroup, lesions, size_groups
from jaxmed.evaluate.masks import has_lesion, is_drawn
from jaxmed.evaluate.metrics import predicted_class
from jaxmed.evaluate.panels import Panel, make_panel
from jaxmed.evaluate.predictions import Predictions
from jaxmed.evaluate.wording import averaged_over, plural
from jaxmed.evaluate.workdir import Workdir

COLUMNS = 5


def mask_panels(workdir: Workdir) -> list[Panel]:
    """Contours (where masks were saved and no case has two), IoU against size, histogram; none without masks."""
    table = workdir.masked
    if not len(table):
        return []
    files, picked, outlined = mask_files(workdir), strip_rows(table), lesions(table)
    once = len(np.unique(table.case_id)) == len(table)
    panels = [overlay_panel(workdir, picked, files)] if files and picked and once else []
    return panels + ([size_panel(workdir, outlined), histogram_panel(workdir, outlined)] if len(outlined) else [])


def mask_files(workdir: Workdir) -> dict[str, MaskFile]:
    """The saved masks of the split's cases, in a cv workdir those of all folds."""
    folders = [workdir.path, *sorted(workdir.path.glob("fold_*"))]
    return {file.case_id: file for folder in folders for file in read_mask_files(folder) if file.split == workdir.split}


def overlay_panel(workdir: Workdir, picked: dict[str, list[Predictions]], files: dict[str, MaskFile]) -> Panel:
    """The rows of `strip_rows` as pictures."""
    strips = [Strip(name, [(_file(files, row.case_id[0]).load(), overlay_text(row)) for row in rows])
              for name, rows in picked.items()]
    caption = ("Orange, solid: the true contour; blue, dashed: what the network drew. From the top: the lesions with the "
               "lowest IoU, those in the middle of the ranking, and those with the highest")
    caption += ("; below them the largest false alarms on images without a lesion. " if "false alarms" in picked else ". ")
    if not workdir.masked.masks_only:
        caption += "Beside the IoU stands the true class, and below it what the network called it where it was wrong. "
    caption += ("Look for what the worst have in common (size, shadow, faint border), and whether the middle would do: it is "
                "what to expect.")
    numbers = [f"{name}: " + ", ".join(f"{row.case_id[0]} {_score(row)}" for row in rows)
               for name, rows in picked.items()]
    return make_panel(workdir, overlay_plot(strips), "mask_overlays", "True and drawn contours", caption,
                      f"Pictures with true and drawn contours. {'; '.join(numbers)}.")


def strip_rows(table: Predictions, columns: int = COLUMNS) -> dict[str, list[Predictions]]:
    """{"worst", "median", "best": rows of lesions by IoU}, and "false alarms" by size; no lesion in two of them."""
    lesion = np.flatnonzero(has_lesion(table))
    ranked = lesion[np.argsort(table.extras["iou"][lesion], kind="stable")]
    shown = min(columns, -(-len(ranked) // 3))
    start = max(shown, (len(ranked) - shown) // 2)
    alarms = np.flatnonzero(~has_lesion(table) & is_drawn(table))
    largest = alarms[np.argsort(-table.extras["predicted_pixels"][alarms], kind="stable")]
    strips = {"worst": ranked[:shown], "median": ranked[start : start + shown], "best": ranked[start + shown :][-shown:],
              "false alarms": largest[:columns]}
    return {name: [table.take(np.array([row])) for row in rows] for name, rows in strips.items() if len(rows)}


def _file(files: dict[str, MaskFile], case_id: str) -> MaskFile:
    if case_id not in files:
        raise UserError(f"the folder masks has no pictures of case {case_id} of predictions.csv: evaluate again, or remove it")
    return files[case_id]


def overlay_text(row: Predictions) -> str:
    """What stands above a picture: its name, its score and true class, and the network's answer where it is wrong."""
    name = str(row.case_id[0])
    name = name if len(name) <= 24 else f"…{name[-23:]}"
    return f"{name}\n{_score(row)}{_class_text(row)}"


def _class_text(row: Predictions) -> str:
    """The true class, and on a line of its own what the network called it where that is another."""
    target = row.target[0]
    text = f", {row.classes[target]}" if target >= 0 else ""
    if row.masks_only or (said := predicted_class(row.probabilities)[0]) == target:
        return text
    return f"{text}\ncalled {row.classes[said]}"


def _score(row: Predictions) -> str:
    """The IoU, or how much of a picture without lesion was drawn on."""
    if has_lesion(row)[0]:
        return f"IoU {row.extras['iou'][0]:.2f}"
    drawn = 100 * row.extras["predicted_pixels"][0] / row.extras["mask_pixels"][0]
    return f"drawn {drawn:.{0 if drawn >= 10 else 1}f} %"


def size_panel(workdir: Workdir, table: Predictions) -> Panel:
    """IoU of every lesion against its size; `table`: of `mask_sizes.lesions`."""
    groups = size_groups(table)
    caption = (f"Each mark is one of {plural(len(table), 'lesion')}{_averaged(workdir)}; the scale of sizes is logarithmic. "
               "Bars: the mean IoU of the smallest, middle and largest third; shades: its 95 % interval. Look at the left bar: "
               "an error of one pixel costs a small lesion more. Marks at 0 are missed lesions.")
    alt = f"IoU against lesion size: {'; '.join(map(_group_text, groups)) or plural(len(table), 'lesion')}."
    return make_panel(workdir, size_plot(table), "mask_iou_by_size", "IoU and lesion size", caption, alt)


def _group_text(group: SizeGroup) -> str:
    sizes = f"{100 * group.smallest:.2g} to {100 * group.largest:.2g} % of the picture"
    return (f"{group.name} ({group.number} lesions of {sizes}) mean {group.mean:.2f}, 95 % interval {group.low:.2f} to "
            f"{group.high:.2f}")


def histogram_panel(workdir: Workdir, table: Predictions) -> Panel:
    """How often which IoU comes; `table`: of `mask_sizes.lesions`."""
    overlap = table.extras["iou"]
    caption = (f"How many of {plural(len(table), 'lesion')} have which IoU{_averaged(workdir)}, in steps of {1 / BINS:g}. Look "
               "for a heap at 0: a mean hides that some lesions are outlined well and others not at all.")
    alt = (f"Histogram of IoU: mean {overlap.mean():.2f}, median {np.median(overlap):.2f}, quartiles "
           f"{np.percentile(overlap, 25):.2f} and {np.percentile(overlap, 75):.2f}; {(overlap == 0).sum()} lesions at 0.")
    return make_panel(workdir, overlap_histogram(table), "mask_iou_histogram", "How good most masks are", caption, alt)


def _averaged(workdir: Workdir) -> str:
    over = averaged_over(workdir.masked)
    return f", means over {over}" if over else ""
