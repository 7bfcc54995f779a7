"""What predictions.csv and features.npz say of a case whatever the task."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxmed.data.cases import Source


def case_row(source: Source, index: int, group: str, part: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that a row starts with; `target` is empty where the label is not known.

    group: of the patient or duplicates. part: the columns split, fold and repeat.
    """
    case = source.cases[index]
    target = source.classes[case.label] if case.label >= 0 else ""
    return {"case_id": case.case_id, "patient_id": case.patient_id, "group": str(group), **part, "target": target}


def case_features(cases: Mapping[str, np.ndarray], source: Source) -> dict[str, np.ndarray]:
    """{"case_id": [n], "features": [n, d]}: what feeds the classifier, by the rows' case_id."""
    return {"case_id": np.array([source.cases[i].case_id for i in cases["case_id"]]), "features": cases["features"]}
