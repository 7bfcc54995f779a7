"""One finished synthetic run, for the tests that need a whole workdir."""

from pathlib import Path

import pytest

from .synthetic import make_history, make_table, write_workdir


@pytest.fixture
def workdir(tmp_path) -> Path:
    """A finished single run: 60 test cases in pairs, 40 validation cases, gates, features, a history."""
    tables = [make_table(60, group_size=2), make_table(40, split="val", case_seed=1)]
    return write_workdir(tmp_path / "run", tables, history=make_history())
