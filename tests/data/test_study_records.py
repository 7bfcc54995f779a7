"""Studies written as tfds records come back as they were, in order, with and without Apache Beam."""

import numpy as np
import pytest

from jaxmed.data.phantom_mammo import PhantomMammoSource
from jaxmed.data.study_records import RecordStudySource, prepare_studies
from jaxmed.errors import UserError


@pytest.fixture(scope="module")
def source():
    return PhantomMammoSource({"num_cases": 9, "phantom_size": 64})


def check(source, folder):
    again = RecordStudySource({"dir": str(folder)})
    for index, (one, other) in enumerate(zip(source.studies, again.studies, strict=True)):
        facts = [(study.study_id, study.patient_id, study.label, study.birads) for study in (one, other)]
        assert facts[0] == facts[1]
        first, second = source.read(index), again.read(index)
        np.testing.assert_array_equal(first["views"], second["views"])
        np.testing.assert_array_equal(first["present"], second["present"])
        assert source.fingerprint(index) == again.fingerprint(index)


def test_records_hold_what_the_source_holds(source, tmp_path):
    folder = prepare_studies(source, tmp_path)
    check(source, folder)
    part = RecordStudySource({"dir": str(folder), "birads_subset": (1, 5)})
    assert 0 < len(part) < 9
    np.testing.assert_array_equal(part.read(0)["views"].any((1, 2)), part.studies[0].present)


def test_beam_writes_the_same_records(source, tmp_path):
    pytest.importorskip("apache_beam")
    check(source, prepare_studies(source, tmp_path, beam=True))


def test_a_folder_without_records_is_named(tmp_path):
    with pytest.raises(UserError, match="holds no records"):
        RecordStudySource({"dir": str(tmp_path)})
