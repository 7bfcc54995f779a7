"""compare.html: the comparison of runs as one page, complete in itself, with the paragraph for a methods section."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmed.evaluate.compare_plots import forest_plot, roc_comparison
from jaxmed.evaluate.compare_runs import ComparedRun
from jaxmed.evaluate.compare_tables import areas, methods_used, p_text, shown, span, tests, thresholded
from jaxmed.evaluate.panels import Panel
from jaxmed.evaluate.report import environment
from jaxmed.evaluate.style import to_png
from jaxmed.evaluate.wording import plural, warnings


def write_page(output: Path, runs: Sequence[ComparedRun], result: dict) -> Path:
    """Writes compare.html and figures/*.png below `output`; result: what `compare` gives."""
    (output / "figures").mkdir(exist_ok=True)
    path = output / "compare.html"
    page = environment().get_template("compare.html.j2").render(
        title=f"{len(runs)} runs on the same {result['unit']}s", summary=summary(result), warnings=shared_warnings(runs),
        tables=[(head, rows[0], rows[1:]) for head, rows in _tables(result).items()], method_notes=methods_used(result),
        panels=_panels(output, runs, result), facts=_facts(result), methods=methods(result),
    )  # fmt: skip
    path.write_text(page, encoding="utf-8")
    return path


def _tables(result: dict) -> dict[str, list[list[str]]]:
    folds = "Area under the ROC curve" + (", by fold and averaged" if result["folds"] > 1 else "")
    return {folds: areas(result), "Decisions": thresholded(result), f"Against {result['reference']}": tests(result)}


def summary(result: dict) -> str:
    """The first paragraph: the best run, and which ones differ from the reference."""
    areas = {name: run["metrics"]["auc"] for name, run in result["runs"].items() if not np.isnan(run["metrics"]["auc"].value)}
    text = (f"{plural(len(result['runs']), 'run')} read the same {plural(result['cases'], result['unit'])} in "
            f"{plural(result['clusters'], 'independent group')}. ")  # fmt: skip
    if not areas:
        return text + "The AUC is not defined: a class is missing."
    best = max(areas, key=lambda name: areas[name].value)
    text += f"The highest AUC is that of {best}: {shown(areas[best].value)} ({span(areas[best]) or 'no interval'}). "
    reference, tested = result["reference"], result["differences"]
    apart = [f"{name} ({shown(entry['auc'].value, '+')}, p {p_text(entry['p_holm'])})" for name, entry in tested.items()
             if entry["p_holm"] < 0.05]  # fmt: skip
    if not apart:
        return text + f"No run differs from {reference} in AUC at 0.05 after Holm's correction."
    return text + f"After Holm's correction the AUC differs from that of {reference} for {', '.join(apart)}."


def shared_warnings(runs: Sequence[ComparedRun]) -> list[str]:
    """What a reader must know about any of the runs, each once with the runs that it is about, where not all."""
    about: dict[str, list[str]] = {}
    for run in runs:
        for text in warnings(run.workdir):
            about.setdefault(text, []).append(run.name)
    return [text if len(names) == len(runs) else f"{', '.join(names)}: {text}" for text, names in about.items()]


def _panels(output: Path, runs: Sequence[ComparedRun], result: dict) -> list[Panel]:
    names, folds = result["runs"], result["folds"] > 1
    forest = (f"Left: the AUC of each run with its 95 % interval{', pale circles are the folds' * folds}. Right: the "
              f"difference to {result['reference']} on the same resamples, red where p is below 0.05 after Holm's correction. "
              "Intervals on the left may overlap although a difference is certain: the runs read the same cases.")
    alt = "; ".join(f"{name} {shown(run['metrics']['auc'].value)}" for name, run in names.items())
    panels = [_panel(output, forest_plot(result), "forest", "AUC and differences", forest, f"AUC: {alt}.")]
    if not any(np.isnan(run["metrics"]["auc"].value) for run in names.values()):
        several = "Each curve is the mean over folds and repeats" + (
            ", and over the classes against the rest." if len(result["classes"]) > 2 else ".")  # fmt: skip
        panels.append(_panel(output, roc_comparison(runs, result), "roc", "ROC curves", several, f"ROC curves; AUC {alt}."))
    return panels


def _panel(output: Path, figure, name: str, title: str, caption: str, alt: str) -> Panel:
    return Panel(name, title, caption, alt, to_png(figure, output / "figures" / f"{name}.png"))


def _facts(result: dict) -> list[tuple[str, str, str]]:
    return [(name, run["model"], run["workdir"]) for name, run in result["runs"].items()]


def methods(result: dict) -> list[str]:
    """The sentences of a methods section: what was averaged, resampled and tested, and with which choices."""
    classes, bootstrap, reference = result["classes"], result["bootstrap"], result["reference"]
    kind = (f"of {classes[1]} against {classes[0]} {result['unit']}s" if len(classes) == 2 else
            "of each class against the rest, mean over classes,")
    level = "0.5" if len(classes) == 2 else "the most probable class"
    folds = (f"the network of each fold on that fold's test {result['unit']}s, and averaged over folds and then over repeats"
             if result["folds"] > 1 else "each trained network, and averaged over repeats where there were several")
    area = (f"The area under the ROC curve (AUC) {kind} was computed for {folds}; scores of different networks were never "
            f"pooled. Decisions were made at {level}; accuracy, F1, sensitivity and specificity were averaged in the same way. "
            f"Intervals of single runs are those of their own reports ({'; '.join(methods_used(result))}, for the AUC).")
    test = (f"Runs were compared with {reference} by the paired difference of the averaged AUC. Patients (or groups of linked "
            f"pictures), {result['clusters']} in all, were resampled with replacement {bootstrap['resamples']:,} times (seed "
            f"{bootstrap['seed']}), the same resample for every run and fold, with folds averaged inside each resample. The "
            "resamples were not stratified by class or fold; those that lacked a class were drawn again, and a fold that "
            "lacked one was left out of that resample's mean. The 95 % interval holds the middle of the differences d*. "
            f"Two-sided p values are {bootstrap['p_value'].removeprefix('p = ')}, with B the number of resamples; the smallest "
            f"possible one is {bootstrap['smallest_p']:.4f}. They were also adjusted for "
            f"{plural(len(result['differences']), 'comparison')} by Holm's method. Intervals and p values are about new "
            "patients, for these trained networks: they do not cover what training again with another seed would change.")
    if any(entry["delong"] for entry in result["differences"].values()):
        test += f" As all {result['unit']}s were independent, DeLong's paired test is given beside the bootstrap as a check."
    return [area, test]
