"""`make_source` opens what the config asks for, and data modules never start jax."""

import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from jaxmed.data.sources import cache_root, check_classes, first_ten, make_source
from jaxmed.errors import UserError


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(UserError, match="'bussi' is unknown.*busi, busi_whu, folder, phantom"):
        make_source({"source": "bussi"})


def test_a_config_dict_opens_the_same_source_as_a_dict():
    data = {"source": "phantom", "num_cases": 20}
    assert make_source(ConfigDict(data)).cases == make_source(data).cases


def test_importing_data_modules_does_not_import_jax():
    modules = "sources, phantom, folder, busi, busi_whu, cmmd, folder_views, phantom_mammo, study_records, breast_checks"
    modules += ", folder_pairs, vindr_mammo, cbis_ddsm"
    code = f"import sys; from jaxmed.data import {modules}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_cache_folder_comes_from_the_config_then_the_environment_then_home(monkeypatch):
    monkeypatch.setenv("JAXMED_CACHE", "/from/environment")
    assert str(cache_root({"cache_dir": "/from/config"})) == "/from/config"
    assert str(cache_root({})) == "/from/environment"
    monkeypatch.delenv("JAXMED_CACHE")
    assert cache_root({}).parts[-2:] == (".cache", "jaxmed")


@pytest.mark.parametrize("asked", [("benign", "cyst"), ("benign",), ("benign", "benign")])
def test_classes_must_be_different_ones_of_the_set(asked):
    with pytest.raises(UserError, match="data.classes"):
        check_classes(asked, ("normal", "benign", "malignant"))


def test_long_lists_are_cut_with_their_count():
    assert first_ten(range(3)) == "0, 1, 2"
    assert first_ten(range(14)).endswith("9 and 4 more")
