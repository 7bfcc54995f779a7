"""The page: complete in itself, true to the numbers, and honest about what limits them."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxmed.evaluate.breasts import of_task
from jaxmed.evaluate.report import scale_start, write_report
from jaxmed.evaluate.summary import estimate, write_metrics
from jaxmed.evaluate.workdir import read_workdir
from jaxmed.evaluate.wrong import save_case_pictures

from .synthetic import RUN, VIEW_RUN, VIEWS, make_breasts, make_history, make_table, make_view_history, write_workdir


class Page(HTMLParser):
    """Text, tags and pictures of a report."""

    def __init__(self, html):
        super().__init__()
        self.words, self.images, self.ids, self.open = [], [], set(), []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids.add(attributes.get("id"))
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def read(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def build(path, tables, **more) -> Page:
    return read(write_report(write_workdir(path, tables, **more)))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The report of a finished run, built once for the tests that only read it."""
    tables = [make_table(60, group_size=2), make_table(40, split="val", case_seed=1)]
    return write_report(write_workdir(tmp_path_factory.mktemp("built"), tables, history=make_history()))


def test_the_page_needs_nothing_but_itself(built):
    html = built.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", html) and "url(" not in html and "@import" not in html
    page = Page(html)
    assert not page.open and len(page.images) == 7
    assert all(len(image["alt"]) > 20 and image["src"].startswith("data:image/png") for image in page.images)


def test_figures_lie_beside_it(built):
    names = {path.stem for path in (built.parent / "figures").glob("*.png")}
    assert names == {"roc", "confusion", "calibration", "gate_epochs", "gate_by_class", "tsne", "learning_curves"}


def test_the_summary_counts_what_was_missed(built):
    table = make_table(60, group_size=2)
    positive, said = table.target == 1, table.probabilities[:, 1] > 0.5
    text = read(built).text
    assert "read 60 cases that were kept aside for testing; they form 30 independent groups" in text
    assert f"found {(positive & said).sum()} of 30 malignant cases and missed {(positive & ~said).sum()}" in text
    assert f"raised a false alarm in {(~positive & said).sum()} of 30 benign cases" in text


def test_the_page_and_metrics_json_say_the_same(built):
    auc = write_metrics(built.parent)["test"]["auc"]
    text = read(built).text
    assert f"AUC is {auc['value']:.3f} (95 % CI {auc['low']:.3f} to {auc['high']:.3f})" in text
    assert auc["method"] in text


def test_patients_are_counted_where_they_are_known(tmp_path):
    table = make_table(20)
    table.patient_id = np.array([f"p{i // 2}" for i in range(20)])
    text = build(tmp_path, [table], features=False).text
    assert "read 20 cases of 10 patients that were kept aside for testing." in text and "they form" not in text


def test_limits_are_named_first(tmp_path):
    data = RUN["data"] | {"split_kind": "leaky, for comparison"}
    run = {"data": data, "preset": "reduced preset: 64 x 64 pixels", "warnings": ["a random start of the encoders"]}
    text = build(tmp_path, [make_table(30)], run=run).text
    for words in ("Leaky split, for comparison only", "upper bound for unattended use", "A random start of the",
                  "shorter than the full recipe: 64 x 64", "Encoders start from random weights"):
        assert words in text and text.index(words) < text.index("All metrics"), words


@pytest.mark.parametrize(("data", "inputs", "words"), [
    ({"mask_origin": "column 'mask' of cases.csv"}, None, "Where a person drew them"),
    ({"mask_origin": "phantom (exact)", "source": "phantom"}, None, "say nothing about patients"),
    ({"mask_origin": "expert"}, ["image"], None),
    ({"mask_origin": ""}, None, None),
])
def test_the_mask_warning_fits_the_masks(tmp_path, data, inputs, words):
    run = {"data": data} | ({"inputs": inputs} if inputs else {})
    text = build(tmp_path, [make_table(20)], run=run, features=False).text
    assert (words in text) if words else ("Read this first" not in text)


def test_a_run_without_gates_has_no_gate_section(tmp_path):
    page = build(tmp_path, [make_table(30, gates=False)], history=make_history(3, gates=False), features=False)
    assert "Which expert" not in page.text and not {"gate_epochs", "gate_by_class", "tsne"} & page.ids
    assert {"learning_curves", "roc", "confusion"} <= page.ids


def test_several_classes_are_reported_by_class(tmp_path):
    page = build(tmp_path, [make_table(45, ("normal", "benign", "malignant"))])
    assert "by class" in page.text and "of 15 normal" in page.text and "macro averages" in page.text


def test_repeats_show_mean_and_sd_beside_the_published_numbers(tmp_path):
    published = {"model": "CSA-MoE-Net", "Acc": "96.33+-.70", "Rec": [98.53, 0.7], "AUC": 99.5, "Params (M)": 34.82}
    tables = [make_table(40, repeat=r, seed=r) for r in range(3)]
    page = build(tmp_path, tables, run={"published": published}, features=False)
    estimates = estimate(read_workdir(tmp_path).headline)
    assert "96.33 ± 0.70" in page.text and "98.53 ± 0.70" in page.text and "34.492 Published" in page.text
    assert f"{100 * estimates['auc'].value:.2f} ± {100 * estimates['auc'].sd:.2f}" in page.text
    assert "benign 20 malignant 20 all 40" in page.text
    assert "3 networks (3 repeats) read 40 cases" in page.text and "Epoch kept" not in page.text


def test_a_single_class_prints_not_defined_and_no_roc(tmp_path):
    table = make_table(30)
    page = build(tmp_path, [table.take(table.target == 0)])
    assert "roc" not in page.ids and "The AUC is not defined" in page.text
    assert not re.search(r"\bnan\b", page.text.lower())


def test_a_perfect_network_gets_no_interval_of_width_zero(tmp_path):
    table = make_table(30, group_size=3)
    table.probabilities = np.where(np.eye(2)[table.target] > 0, 0.9, 0.1)
    text = build(tmp_path, [table]).text
    assert "100.0 to 100.0" not in text and "1.000 to 1.000" not in text and "Clopper-Pearson" in text


def test_the_data_section_counts_cases_and_groups(workdir):
    rows = ["case_id,label,patient_id,group,split,fold", "a,benign,,g1,train,", "b,benign,,g1,train,",
            "c,malignant,,g2,test,", "d,malignant,,g3,dropped,"]
    (workdir / "splits.csv").write_text("\n".join(rows) + "\n")
    text = read(write_report(workdir)).text
    assert "Cases train test dropped benign 2 0 0 malignant 0 1 1 all 2 1 1 independent groups 1 1 1" in text
    assert "linked at correlation 0.95" in text


def test_reproduction_and_methods_are_given(built):
    text = read(built).text
    for words in (RUN["command"], "34,491,525", "30 min 34 s", '"batch_size": 32', "2,000 bootstrap resamples",
                  "The positive class was malignant", "The weights of epoch 4"):
        assert words in text, words


def test_pictures_of_the_most_wrong_cases_are_embedded(workdir):
    save_case_pictures(workdir, lambda name: np.full((12, 12), 90, np.uint8))
    page = read(write_report(workdir))
    assert sum("Picture of case" in image["alt"] for image in page.images) == 10
    assert (workdir / "figures" / "most_wrong.png").exists()


def test_predictions_alone_make_a_report(tmp_path):
    write_workdir(tmp_path, [make_table(20, gates=False)], features=False)
    for name in ("run.json", "config.json", "metrics.jsonl"):
        (tmp_path / name).unlink()
    page = read(write_report(tmp_path))
    assert {"roc", "confusion", "calibration"} <= page.ids


def test_text_of_a_run_cannot_break_the_page(tmp_path):
    page = build(tmp_path, [make_table(20)], run={"name": "<b>run</b> & more"}, features=False)
    assert "<b>run</b> & more" in page.text


def test_a_report_is_written_again_byte_for_byte(built):
    first = built.read_bytes()
    assert write_report(built.parent).read_bytes() == first


def test_bars_start_at_one_half_only_if_nothing_lies_below():
    good, poor = make_table(60, skill=4), make_table(60, skill=-1)
    assert scale_start(estimate(good)) == 50 and scale_start(estimate(poor)) == 0


@pytest.fixture(scope="module")
def breasts(tmp_path_factory):
    tables, path = [make_breasts(40), make_breasts(20, split="val", seed=1)], tmp_path_factory.mktemp("breasts")
    published = {"model": "Hybrid CNN-VSSM", "AUC": 96.29, "F1 macro": 88.58, "BI-RADS F1 macro": 77.9}
    run = VIEW_RUN | {"published": published}
    return read(write_report(write_workdir(path, tables, run=run, history=make_view_history(), features=False)))


def test_a_table_of_breasts_is_told_in_breasts_and_studies(breasts):
    table = make_breasts(40).known()
    studies, patients = len(set(table.extras["study_id"])), len(set(table.patient_id))
    assert f"read {len(table)} breasts in {studies} studies of {patients} patients that were kept aside" in breasts.text
    assert "malignant breasts and missed" in breasts.text and "The most wrong breasts" in breasts.text
    assert "For birads (BI-RADS 1, BI-RADS 3, BI-RADS 5;" in breasts.text
    assert "Studies of one patient" in breasts.text and "say nothing about patients" in breasts.text
    for word in ("cases", "expert", "CSA-MoE", "Lesion masks"):
        assert word not in breasts.text.replace("The cases are simulated", ""), word


def test_tasks_and_sides_have_a_table_and_a_confusion_matrix(breasts):
    assert {"confusion_birads", "view_weights", "gate_epochs", "gate_by_class"} <= breasts.ids
    birads = of_task(make_breasts(40), "birads").known()
    right = estimate(birads.take(birads.extras["side"] == "right"))
    cell = f"{right['auc'].value:.3f} {right['auc'].low:.3f} to {right['auc'].high:.3f} {100 * right['macro_f1'].value:.1f} %"
    assert cell in breasts.text and "Tasks and sides Task Side Breasts AUC F1, mean over classes Accuracy" in breasts.text


def test_macro_f1_of_both_tasks_stands_beside_the_published(breasts):
    birads = estimate(of_task(make_breasts(40), "birads").known())["macro_f1"].value
    label = estimate(make_breasts(40).known())["macro_f1"].value
    ours = f"{100 * label:.2f} {100 * birads:.2f} Published 96.29 88.58 77.90"
    assert "network. AUC F1 macro BI-RADS F1 macro This run" in breasts.text and ours in breasts.text


def test_a_class_missing_on_a_side_is_named(tmp_path):
    table = make_breasts(30)
    right = table.extras["side"] == "right"
    table.extras["birads_target"][right & (table.extras["birads_target"] == "BI-RADS 5")] = ""
    text = build(tmp_path, [table], run=VIEW_RUN, features=False).text
    assert "birads, right: no BI-RADS 5 among these breasts" in text and "birads, both: no" not in text


def test_repeats_of_one_task_without_missing_views_are_reported(tmp_path):
    tables = [make_breasts(6, second=False, repeat=r, seed=r) for r in range(2)]
    tables = [table.take(table.extras["views"] == "+".join(VIEWS)) for table in tables]
    page = build(tmp_path, tables, run=VIEW_RUN | {"tasks": ["birads"]}, features=False)
    assert "Tasks and sides" in page.text and "Every study has all views" in page.text and "SD" in page.text
    assert not [name for name in page.ids if name and name.startswith("confusion_")]
    assert "birads non-malignant, malignant left" in page.text


def test_the_split_of_studies_is_counted_by_study(tmp_path):
    path = write_workdir(tmp_path, [make_breasts(10, second=False)], run=VIEW_RUN, features=False)
    rows = ["case_id,label,patient_id,group,split,fold", "a,non-malignant,p,p,train,", "b,non-malignant,q,q,test,"]
    (path / "splits.csv").write_text("\n".join(rows) + "\n")
    text = read(write_report(path)).text
    assert "Studies, by the worse breast train test non-malignant 1 1 all 1 1 independent groups 1 1" in text
