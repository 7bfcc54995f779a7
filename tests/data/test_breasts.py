"""Breasts of two views: cases that splits keep together, and pictures with the chest wall on the left at their own size."""

import cv2
import numpy as np
import pytest
from dicom_files import half_bright, write_dicom

from jaxmed.data.breast import pad_to_ratio
from jaxmed.data.breasts import Breast, BreastSource, FileBreastSource, pair_views
from jaxmed.data.sources import make_breast_source
from jaxmed.data.splits import make_split
from jaxmed.data.studies import Study
from jaxmed.errors import UserError

VIEWS = {"L_CC": "a", "L_MLO": "b", "R_CC": "c", "R_MLO": "d"}


def breast(k, side="left", label=None, **facts):
    return Breast(f"s{k}:{side}", k % 2 if label is None else label, "cc", "mlo", side, f"s{k}", **facts)


@pytest.fixture
def files(tmp_path):
    """A right breast: CC as a 12-bit DICOM file of 60 x 40 pixels, MLO as an 8-bit picture of 48 x 32."""
    cc = write_dicom(tmp_path / "cc.dcm", half_bright((60, 40), right=True), ImageLaterality="R")
    mlo = tmp_path / "mlo.png"
    cv2.imwrite(str(mlo), (half_bright((48, 32), right=True) / 8).astype(np.uint8))
    return [Breast("s:right", 1, cc, mlo, "right", "s", "p")]


def test_every_breast_with_both_views_is_a_case_and_the_others_are_counted():
    whole = Study("s1", "p1", VIEWS, (1, 0), (5, 2), "train")
    part = Study("s2", "p2", {"L_CC": "e", "L_MLO": None, "R_CC": "f", "R_MLO": "g"}, (0, 1))
    breasts, notes = pair_views([whole, part, Study("s3", "p3", {"R_MLO": "h"})])
    assert breasts == [
        Breast("s1:left", 1, "a", "b", "left", "s1", "p1", "train", 5),
        Breast("s1:right", 0, "c", "d", "right", "s1", "p1", "train", 2),
        Breast("s2:right", 1, "f", "g", "right", "s2", "p2"),
    ]
    assert notes == ["2 breasts lack their CC or their MLO view: left out (s2:left, s3:right)"]


def test_breasts_without_a_label_are_for_prediction_only():
    breasts = [breast(1), breast(2, label=-1)]
    source = BreastSource(breasts)
    assert [case.case_id for case in source.cases] == ["s1:left"]
    assert source.notes[0] == "1 breasts have no label: left out (s2:left)"
    assert [case.label for case in BreastSource(breasts, predict=True).cases] == [1, -1]
    with pytest.raises(UserError, match="no breast to use. 1 breasts have no label"):
        BreastSource(breasts[1:])


def test_both_breasts_of_a_study_stay_in_one_split_though_no_patient_is_known():
    source = BreastSource([breast(k, side) for k in range(40) for side in ("left", "right")])
    split = make_split(source, None, {}, seed=0)
    assert "40 studies: all cases of each stay in one split" in split.notes
    places = [row["split"] for row in split.rows]
    assert set(places) == {"train", "val", "test"} and places[::2] == places[1::2]


def test_views_are_read_at_their_own_size_with_the_chest_wall_on_the_left(files):
    views = FileBreastSource(files, (), {}).read(0)
    assert views["cc"].shape == (60, 40) and views["mlo"].shape == (48, 32)
    for pixels in views.values():
        assert pixels.dtype == np.uint16 and pixels.max() == 65535
        assert pixels[:, : pixels.shape[1] // 2].any() and not pixels[:, pixels.shape[1] // 2 :].any()


def test_cropping_and_padding_keep_the_breast_at_the_left_edge_in_the_ratio_of_the_size(files):
    cropped = FileBreastSource(files, (), {"crop_breast": True}).read(0)["cc"]
    assert cropped.shape == (50, 21) and cropped[:, 0].any()  # 48 x 20 with a margin of a pixel, none at the edge
    padded = FileBreastSource(files, (), {"crop_breast": True, "pad": True, "size": (300, 100)}).read(0)["cc"]
    assert padded.shape == (63, 21) and (padded[6:56] == cropped).all() and padded.sum() == cropped.sum()


@pytest.mark.parametrize(("shape", "wanted", "place"), [
    ((40, 40), (120, 40), (slice(40, 80), slice(0, 40))),
    ((90, 10), (90, 30), (slice(0, 90), slice(0, 10))),
    ((90, 30), (90, 30), (slice(0, 90), slice(0, 30))),
])  # fmt: skip
def test_padding_adds_black_away_from_the_chest_wall_or_above_and_below(shape, wanted, place):
    padded = pad_to_ratio(np.ones(shape, np.uint16), (2688, 896))
    assert padded.shape == wanted and padded[place].all() and padded.sum() == shape[0] * shape[1]


def test_a_prediction_row_names_the_study_and_the_side(files):
    assert FileBreastSource(files, (), {}).columns(0) == {"study_id": "s", "side": "right"}


def test_other_classes_than_the_sources_are_refused(files):
    with pytest.raises(UserError, match=r"data.classes=\('low', 'high'\).* has exactly the classes"):
        FileBreastSource(files, (), {"classes": ["low", "high"]})


def test_the_fingerprint_changes_with_the_files_and_the_options(files):
    def fingerprint(**data):
        return FileBreastSource(files, (), data).fingerprint(0)

    first = fingerprint()
    assert fingerprint() == first
    assert len({first, fingerprint(crop_breast=True), fingerprint(pad=True), fingerprint(pad=True, size=(96, 48))}) == 4
    cv2.imwrite(str(files[0].mlo), np.eye(50, dtype=np.uint8))
    assert fingerprint() != first
    files[0].mlo.unlink()
    with pytest.raises(UserError, match=r"mlo\.png: cannot be read"):
        fingerprint()


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(UserError, match="'cmmd' has no breasts.*cbis_ddsm, folder_pairs, phantom_pairs, vindr_mammo"):
        make_breast_source({"source": "cmmd"})
