"""What several tests of mammography tables share."""

import cv2
import pytest
from dicom_files import half_bright

from jaxmed.data.folder_views import HEADER


@pytest.fixture
def view_table(tmp_path):
    """A function that writes studies.csv beside a.png .. h.png."""
    for name in "abcdefgh":
        cv2.imwrite(str(tmp_path / f"{name}.png"), half_bright((40, 32)))

    def write_table(rows, header=HEADER):
        (tmp_path / "studies.csv").write_text("\n".join([header, *rows]) + "\n")
        return tmp_path / "studies.csv"

    return write_table
