"""The data check of studies: sound data have no findings, and every fault is found and named."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from dicom_files import half_bright, write_dicom

from jaxmed.data.folder_views import FolderViewsSource
from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.split_table import Split
from jaxmed.data.studies import VIEWS, FileStudySource, Study, StudySource
from jaxmed.data.study_checks import check_studies
from jaxmed.errors import UserError


class FakeStudies(StudySource):
    """Studies of two patients' visits in memory: a bright half disk at the left, textured; labels and BI-RADS alternate."""

    name = "fake"

    def __init__(self, count=12, change=lambda k, study: study, birads=(1, 5), **data):
        studies = [Study(f"s{k}", f"p{k // 2}", {name: f"{k} {name}" for name in VIEWS}, (k % 2, (k + 1) % 2),
                         (birads[k % 2], birads[(k + 1) % 2])) for k in range(count)]
        super().__init__([change(k, study) for k, study in enumerate(studies)], (), {"birads_subset": birads} | data)
        self.pixels = {s.study_id: np.stack([_breast(4 * k + v) for v in range(4)]) for k, s in enumerate(studies)}
        self.bad = {}

    def read(self, index):
        study = self.studies[index]
        if study.study_id in self.bad:
            raise self.bad[study.study_id]
        return {"views": self.pixels[study.study_id] * study.present[:, None, None].astype(np.uint8), "present": study.present}


def _breast(seed, size=48):
    picture = cv2.circle(np.zeros((size, size), np.uint8), (0, size // 2), size // 3, 120, -1)
    noise = np.random.default_rng(seed).integers(0, 60, picture.shape, np.uint8)
    return picture + noise * (picture > 0)


def check(source, split=None):
    return check_studies(source, split, log=lambda line: None)


def texts(report, level):
    return [finding.text for finding in report.of(level)]


def names(report, start):
    return next(list(finding.names) for finding in report.findings if finding.text.startswith(start))


def split_of(source, **places):
    """All studies in train but the first four patients' in val and test, unless `places` say otherwise."""
    given = {"s0": "val", "s1": "val", "s2": "test", "s3": "test"} | places
    places = [given.get(study.study_id, "train") for study in source.studies]
    return Split([{"case_id": study.study_id, "patient_id": study.patient_id, "split": place}
                  for study, place in zip(source.studies, places, strict=True)])


def test_sound_studies_have_no_errors_and_no_warnings():
    source = FakeStudies(20)
    report = check(source, split_of(source))
    assert texts(report, "error") == texts(report, "warning") == [] and report.exit_status == 0
    fine = ["every view can be read", "no picture is there twice", "no leak: no patient is in two splits"]
    assert texts(report, "ok") == fine
    facts = texts(report, "fact")
    assert "20 studies of 10 patients" in facts and "every view has 48 x 48 pixels (height x width)" in facts
    assert "label of left breasts: non-malignant: 10, malignant: 10, not known: 0" in facts
    assert "BI-RADS of right breasts: 1: 10, 5: 10, not known: 0" in facts
    assert "split val: 2 studies; breasts: non-malignant: 2, malignant: 2; BI-RADS 1: 2, 5: 2" in facts


def test_up_to_twenty_studies_are_listed_with_all_that_is_known():
    def change(k, study):
        return replace(study, views={"L_CC": "x"}, patient_id="") if k == 0 else study

    lines = names(check(FakeStudies(20, change)), "studies:")
    assert lines[0] == "s0 (patient not known): L_CC; left non-malignant, BI-RADS 1"
    assert lines[1] == "s1 (p0): L_CC, L_MLO, R_CC, R_MLO; left malignant, BI-RADS 5; right non-malignant, BI-RADS 1"
    assert not [text for text in texts(check(FakeStudies(21)), "fact") if text == "studies:"]


def test_missing_views_are_counted_by_combination():
    def change(k, study):
        gone = {3: ("R_CC",), 4: ("R_CC",), 5: ("L_CC", "L_MLO")}.get(k, ())
        return replace(study, views={name: path for name, path in study.views.items() if name not in gone})

    report = check(FakeStudies(20, change))
    assert names(report, "views:") == ["complete: 17 studies", "without R_CC: 2 studies", "without L_CC, L_MLO: 1 study"]
    assert texts(report, "warning") == []


def test_every_unreadable_study_is_named():
    source = FakeStudies(20)
    source.bad = {"s4": UserError("a.dcm: corrupt"), "s9": OSError("gone"), "s11": ValueError("shapes differ")}
    report = check(source)
    assert names(report, "3 studies cannot be read") == ["s4: a.dcm: corrupt", "s9: gone", "s11: shapes differ"]
    assert report.exit_status == 1


def test_blank_views_and_breasts_at_the_wrong_edge_are_named():
    source = FakeStudies(20)
    source.pixels["s2"][1] = 7
    source.pixels["s3"][2] = source.pixels["s3"][2, :, ::-1]
    report = check(source)
    assert names(report, "1 view of one single gray value") == ["s2 L_MLO"]
    assert names(report, "1 view with the breast at the right edge") == ["s3 R_CC"]
    assert report.exit_status == 0


def test_the_same_picture_twice_is_a_warning_and_across_splits_a_leak():
    source = FakeStudies(20)
    source.pixels["s8"][0] = source.pixels["s0"][2]
    source.pixels["s5"][1] = source.pixels["s5"][0]
    report = check(source)
    assert names(report, "2 pictures more than once") == ["s0 R_CC (patient p0) = s8 L_CC (patient p4)",
                                                          "s5 L_CC (patient p2) = s5 L_MLO (patient p2)"]
    assert report.exit_status == 0
    report = check(source, split_of(source))
    assert names(report, "leak: 1 picture") == ["s0 R_CC (patient p0) in val = s8 L_CC (patient p4) in train"]
    assert len(names(report, "1 picture more than once")) == 1 and report.exit_status == 1
    assert check(source, split_of(source, s8="dropped", s9="dropped")).exit_status == 0


def test_blank_pictures_resemble_nothing():
    source = FakeStudies(20)
    source.pixels["s2"][1] = source.pixels["s7"][0] = 0
    assert "no picture is there twice" in texts(check(source), "ok")


def test_a_patient_in_two_splits_is_an_error():
    source = FakeStudies(20)
    report = check(source, split_of(source, s7="test"))
    assert names(report, "leak: 1 patient") == ["s6 in train, s7 in test"] and report.exit_status == 1


def test_the_sources_own_splits_are_checked():
    def change(k, study):
        return replace(study, split="training" if k == 0 else ("train", "val", "test")[k // 2 % 3])

    report = check(FakeStudies(20, change))
    assert names(report, "1 study with a split other than train, val, test") == ["s0: 'training'"]
    assert names(report, "leak: 1 patient in several splits") == ["s0 in training, s1 in train"]


def test_a_split_without_a_class_is_an_error_and_without_a_category_a_warning():
    def change(k, study):
        return replace(study, label=(0, 0), birads=(1, 1)) if k in (2, 3) else study

    source = FakeStudies(20, change)
    report = check(source, split_of(source))
    assert "split test has no breast of class malignant" in texts(report, "error")
    assert "split test has no breast of BI-RADS 5" in texts(report, "warning")


@pytest.mark.parametrize(("change", "level", "message"), [
    (lambda k, study: replace(study, label=(0, 0)), "error", "class 'malignant' has no breasts"),
    (lambda k, study: replace(study, label=(int(k == 1), 0)), "warning", "class 'malignant' has only 1 breast: too few"),
    (lambda k, study: replace(study, birads=(1, 1)), "warning", "BI-RADS '5' has no breasts"),
    (lambda k, study: replace(study, label=(-1, 0), birads=(-1, 1)), "warning", "20 breasts with views but without label"),
    (lambda k, study: replace(study, patient_id="" if k == 3 else study.patient_id), "warning", "1 study without patient id"),
    (lambda k, study: replace(study, views={}) if k == 3 else study, "error", "1 study without any view"),
    (lambda k, study: replace(study, study_id="s0" if k == 1 else study.study_id), "error", "1 study_id used more than once"),
])
def test_what_studies_lack_is_reported(change, level, message):
    source = FakeStudies(20, change, birads_subset=())
    source.birads_classes = (1, 5)
    assert any(text.startswith(message) for text in texts(check(source), level))


def test_views_of_another_size_are_an_error():
    source = FakeStudies(20)
    source.pixels["s6"] = source.pixels["s6"][:, :40]
    assert names(check(source), "1 study with views that have not 48 x 48 pixels") == ["s6: 40 x 48"]
    source = FakeStudies(20)
    source.size = 64
    assert len(names(check(source), "20 studies with views that have not 64 x 64 pixels")) == 20


def test_a_folder_without_labels_is_good_for_prediction_only(tmp_path):
    for number in range(2):
        for view in ("CC", "MLO"):
            pixels = half_bright((80, 60), top=1000 + 300 * number + (view == "MLO"))
            write_dicom(tmp_path / f"{number}_{view}.dcm", pixels, PatientID=f"p{number}", StudyInstanceUID=f"1.{number}",
                        ViewPosition=view)
    report = check(FolderViewsSource({"dir": str(tmp_path), "size": 64}, predict=True))
    assert "no breast has a label or a BI-RADS category: good for prediction only" in texts(report, "warning")
    assert report.exit_status == 0 and names(report, "views:") == ["without R_CC, R_MLO: 2 studies"]


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"not a picture")
    report = check(FileStudySource([Study("a", "p", {"L_CC": tmp_path / "a.dcm"}, (1, -1))], (), {"size": 64}))
    assert "a.dcm" in names(report, "1 study cannot be read")[0]


def test_phantom_studies_are_sound():
    report = check(PhantomMammoSource({"num_cases": 8, "phantom_size": 96}))
    assert report.exit_status == 0 and "every view can be read" in texts(report, "ok")
