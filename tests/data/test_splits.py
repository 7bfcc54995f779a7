import csv

import numpy as np
import pytest
from fake_source import LabelSource, load_busi, only_tumours
from sklearn.model_selection import train_test_split

from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.splits import check_split, make_split, read_split, write_split
from jaxmed.data.stratify import take_groups, target_counts
from jaxmed.errors import UserError

LABELS = [0] * 437 + [1] * 210  # BUSI without its normal images


def split_of(source, seed=42, **options):
    keywords = {key: options.pop(key) for key in ("fold", "num_folds", "skipped") if key in options}
    return make_split(source, source.thumbnails, options, seed=seed, **keywords)


def counts(split, source, name):
    labels = np.array([case.label for case in source.cases])
    return np.bincount(labels[split.indices(name)], minlength=len(source.classes)).tolist()


def twins(count=60, copies=20):
    """`copies` of the images are frames of the lesion before them."""
    source = LabelSource(np.arange(count) // 2 % 2)
    for row in range(0, 2 * copies, 2):
        source.copy_image(row, onto=row + 1)
    return source


def expected_without_groups(labels):
    rows = np.arange(len(labels))
    rest, test = train_test_split(rows, test_size=0.15, random_state=42, stratify=labels)
    train, val = train_test_split(rest, test_size=0.1765, random_state=42, stratify=np.array(labels)[rest])
    return {"train": sorted(train), "val": sorted(val), "test": sorted(test)}


@pytest.mark.parametrize("group_duplicates", [True, False])
def test_single_cases_are_split_exactly_as_the_paper_does_with_scikit_learn(group_duplicates):
    split = split_of(LabelSource(LABELS), group_duplicates=group_duplicates)
    for name, rows in expected_without_groups(LABELS).items():
        assert split.indices(name).tolist() == rows
    assert [len(split.indices(name)) for name in ("train", "val", "test")] == [452, 97, 98]


def test_copies_stay_together_and_the_class_counts_are_still_met():
    source = twins()
    split = split_of(source)
    names = [row["split"] for row in split.rows]
    assert all(names[row] == names[row + 1] for row in range(0, 40, 2))
    assert counts(split, source, "test") == target_counts(np.array([30, 30]), 0.15).tolist()
    assert len(set(split.groups())) == 40
    assert split.kind == "grouped"


def test_large_groups_reach_the_test_split_as_often_as_small_ones():
    source = twins(count=200, copies=50)
    tested = np.mean([(split_of(source, seed=seed).indices("test") < 100).mean() for seed in range(40)])
    assert 0.42 < tested < 0.58


def test_the_seed_alone_decides():
    source = twins()
    assert split_of(source).rows == split_of(source).rows
    assert split_of(source).rows != split_of(source, seed=43).rows


def test_without_grouping_copies_may_leak_and_the_split_says_so():
    source = twins(count=60, copies=30)
    split = split_of(source, group_duplicates=False)
    names = [row["split"] for row in split.rows]
    assert any(names[row] != names[row + 1] for row in range(0, 60, 2))
    assert split.kind == "leaky, for comparison"
    assert "group_duplicates=False" in " ".join(split.notes)


@pytest.mark.parametrize("group_duplicates", [True, False])
def test_patients_are_never_divided(group_duplicates):
    labels = np.arange(80) // 4 % 2
    split = split_of(LabelSource(labels, patients=[f"p{row // 4}" for row in range(80)]), group_duplicates=group_duplicates)
    for patient in range(20):
        assert len({row["split"] for row in split.rows[4 * patient : 4 * patient + 4]}) == 1
    assert len(split.indices("test")) == 12


def test_patients_who_share_a_picture_become_one_group():
    source = LabelSource(np.arange(40) // 2 % 2, patients=[f"p{row // 2}" for row in range(40)])
    source.copy_image(1, onto=4)  # patients 0 and 2, same label
    groups = split_of(source).groups()
    assert len(set(groups[[0, 1, 4, 5]])) == 1
    assert len(set(groups)) == 19


def test_label_conflicts_are_left_out_and_named():
    source = LabelSource(np.arange(40) % 2)
    source.copy_image(0, onto=7)
    split = split_of(source)
    assert split.indices("dropped").tolist() == [0, 7]
    note = next(note for note in split.notes if note.startswith("label conflicts: 1 pairs"))
    assert "case 0 [benign] = case 7 [malignant], correlation 1.0000" in note
    assert "dropped: 2 cases (benign 1, malignant 1)" in split.notes


def test_label_conflicts_can_be_kept_together_instead():
    source = LabelSource(np.arange(40) % 2)
    source.copy_image(0, onto=7)
    split = split_of(source, drop_conflicts=False)
    assert len(split.indices("dropped")) == 0
    assert split.rows[0]["split"] == split.rows[7]["split"]
    assert "are kept" in " ".join(split.notes)


def test_thresholds_come_from_the_config():
    source = LabelSource(np.arange(40) // 2 % 2)
    mixed = 0.8 * source.thumbnails[0] + 0.2 * source.thumbnails[1]
    source.thumbnails[1] = mixed.astype(np.uint8)  # correlates about 0.97
    assert len(set(split_of(source).groups())) == 39
    assert len(set(split_of(source, duplicate_threshold=0.99).groups())) == 40


def test_notes_tell_threshold_groups_and_counts():
    notes = split_of(twins()).notes
    assert any("20 pairs among 40 of 60 images correlate above 0.95" in note for note in notes)
    assert any("they form 20 groups (20 of 2 cases; 0 with more than one class)" in note for note in notes)
    assert sum(note.startswith(("train: ", "val: ", "test: ")) for note in notes) == 3


def test_unreadable_cases_are_left_out_by_name():
    split = split_of(LabelSource(LABELS), skipped={3: "broken"})
    assert split.indices("dropped").tolist() == [3]
    assert "1 cases cannot be read and are left out: case 3" in split.notes


def test_the_sources_own_split_is_used_as_it_is():
    given = ["train", "train", "val", "val", "test", "test"]
    split = split_of(LabelSource([0, 1] * 3, splits=given))
    assert [row["split"] for row in split.rows] == given


def test_a_copy_across_the_sources_own_splits_is_an_error_that_names_it():
    source = LabelSource([0, 1] * 3, splits=["train", "train", "val", "val", "test", "test"])
    source.copy_image(0, onto=4)
    with pytest.raises(UserError, match="case 0 in train, case 4 in test.*group_duplicates=False"):
        split_of(source)
    assert split_of(source, group_duplicates=False).kind == "leaky, for comparison"


def test_a_half_filled_split_column_is_an_error():
    with pytest.raises(UserError, match="case 2 has no split"):
        split_of(LabelSource([0, 1, 0], splits=["train", "test", ""]))


def test_folds_test_every_case_once_and_keep_groups_whole():
    source = twins(count=100, copies=30)
    tested = []
    for fold in range(5):
        split = split_of(source, fold=fold, num_folds=5)
        assert all(row["split"] == "test" for row in split.rows if row["fold"] == fold)
        assert counts(split, source, "test") == [10, 10]
        assert sum(counts(split, source, "val")) == 15  # ceil(0.1765 x 80): the held-out fold selects nothing
        tested += split.indices("test").tolist()
    assert sorted(tested) == list(range(100))


def test_a_fold_that_does_not_exist_is_an_error():
    with pytest.raises(UserError, match="folds are numbered 0..4"):
        split_of(LabelSource(LABELS), fold=5, num_folds=5)


@pytest.mark.parametrize("num_folds", [None, 5])
def test_a_class_too_small_to_divide_is_an_error(num_folds):
    with pytest.raises(UserError, match="class 'malignant' has 2 usable cases"):
        split_of(LabelSource([0] * 30 + [1] * 2), fold=0, num_folds=num_folds)


def test_too_few_cases_for_every_class_are_an_error():
    with pytest.raises(UserError, match="too few"):
        split_of(LabelSource([0, 1] * 3))


def test_a_case_without_label_cannot_be_split():
    with pytest.raises(UserError, match="case 1 has no label"):
        split_of(LabelSource([0, -1, 1]))


def test_a_split_survives_its_file(tmp_path):
    source = twins(count=60, copies=20)
    split = split_of(source, fold=1, num_folds=3)
    write_split(tmp_path / "splits.csv", split)
    back = read_split(tmp_path / "splits.csv", source)
    assert (back.rows, back.notes, back.kind) == (split.rows, split.notes, split.kind)
    header = (tmp_path / "splits.csv").read_text().splitlines()[0]
    assert header == "case_id,label,patient_id,group,split,fold"


def test_a_split_file_without_notes_says_where_it_comes_from(tmp_path):
    source = LabelSource(LABELS)
    write_split(tmp_path / "splits.csv", split_of(source))
    (tmp_path / "splits.json").unlink()
    assert read_split(tmp_path / "splits.csv", source).kind == "read from a file"


def rewrite(path, change):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def without(rows, column):
    return [{key: value for key, value in row.items() if key != column} for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "case 'case 0' of the data is missing there"),
        (lambda rows: [*rows, rows[0] | {"case_id": "stranger"}], "case 'stranger' is not in the data"),
        (lambda rows: [*rows, rows[0]], "case 'case 0' is there 2 times"),
        (lambda rows: without(rows, "group"), "column 'group' is missing"),
        (lambda rows: [rows[0] | {"label": "malignant"}, *rows[1:]], "case 0 is 'malignant' there and 'benign' in the data"),
        (lambda rows: [rows[0] | {"split": "exam"}, *rows[1:]], "split 'exam' is unknown"),
        (lambda rows: [row | {"group": "g"} for row in rows], "duplicate group 'g' is in several splits"),
        (lambda rows: [row | {"patient_id": "p"} for row in rows], "patient 'p' is in several splits"),
        (lambda rows: [row | {"split": "train"} for row in rows], "split 'val' has no case of class 'benign'"),
    ],
)
def test_a_split_file_that_does_not_fit_is_an_error(tmp_path, change, message):
    source = LabelSource(LABELS)
    write_split(tmp_path / "splits.csv", split_of(source))
    rewrite(tmp_path / "splits.csv", change)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / "splits.csv", source)


def test_dropped_cases_may_share_a_group_with_others():
    split = split_of(LabelSource(LABELS))
    split.rows[0] |= {"split": "dropped", "group": split.rows[1]["group"]}
    check_split(split, ("benign", "malignant"))


def test_groups_are_taken_as_close_to_the_target_as_they_allow():
    sizes = np.array([[3, 0], [0, 5], [4, 0], [0, 4]])
    chosen = take_groups(sizes, np.array([4, 4]), np.random.default_rng(0))
    assert abs(sizes[chosen].sum(0) - [4, 4]).sum() <= 1


def test_busi_is_divided_without_leaks(busi_dir):
    source = only_tumours(load_busi(busi_dir))
    split = split_of(source)
    dropped = {source.cases[row].case_id for row in split.indices("dropped")}
    assert {"benign (433)", "malignant (145)"} <= dropped
    kept = 647 - len(dropped)
    test = int(np.ceil(0.15 * kept))
    assert [len(split.indices(name)) for name in ("val", "test")] == [int(np.ceil(0.1765 * (kept - test))), test]
    share = counts(split, source, "test")[1] / test
    assert share == pytest.approx(210 / 647, abs=0.01)
    leaky = split_of(source, group_duplicates=False)
    assert [len(leaky.indices(name)) for name in ("train", "val", "test")] == [452, 97, 98]


def visits(count=80):
    """Studies of patients of whom one in seven comes twice; without thumbnails, as for mammograms."""
    return PhantomMammoSource({"num_cases": count, "phantom_size": 64, "birads_subset": (1, 3, 5)})


def split_studies(source, **keywords):
    options = {"test_fraction": 0.2, "val_fraction": 0.15} | keywords.pop("options", {})
    return make_split(source, None, options, seed=42, **keywords)


def assert_patients_are_whole(split):
    places = {}
    for row in split.rows:
        places.setdefault(row["patient_id"], set()).add(row["split"])
    assert len(places) < len(split.rows)  # some patients have two studies
    assert all(len(found) == 1 for found in places.values())


def test_the_papers_protocol_divides_patients_80_to_20_and_selects_on_the_test_studies():
    source = visits()
    split = split_studies(source, options={"paper_protocol": True})
    np.testing.assert_array_equal(split.indices("val"), split.indices("test"))
    assert {row["split"] for row in split.rows} == {"train", "test"} and split.selects_on_test
    assert abs(len(split.indices("test")) - np.ceil(0.2 * len(source))) <= 1
    assert_patients_are_whole(split)


def test_by_default_an_inner_validation_split_is_held_out_by_patient():
    split = split_studies(visits())
    assert not split.selects_on_test and not set(split.indices("val")) & set(split.indices("test"))
    assert_patients_are_whole(split)
    assert "copies of pictures were not looked for" in split.notes


def test_the_papers_protocol_survives_its_file(tmp_path):
    source = visits()
    split = split_studies(source, options={"paper_protocol": True})
    write_split(tmp_path / "splits.csv", split)
    back = read_split(tmp_path / "splits.csv", source)
    assert back.selects_on_test and back.rows == split.rows


@pytest.mark.parametrize("paper_protocol", [False, True])
def test_patient_level_folds_test_every_study_once(paper_protocol):
    source, tested = visits(), []
    for fold in range(5):
        split = split_studies(source, options={"paper_protocol": paper_protocol}, fold=fold, num_folds=5)
        assert_patients_are_whole(split)
        assert (split.indices("val").tolist() == split.indices("test").tolist()) == paper_protocol
        tested += split.indices("test").tolist()
    assert sorted(tested) == list(range(len(source)))
