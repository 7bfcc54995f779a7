"""Two-view mammogram phantoms: the women of `phantom_mammo`, one case per breast that has both views.

The phantom is square, and no breast is deeper than three quarters of its side: the rest, which is black, is cut off, so that
a picture has the portrait format of real ones (size x 3/4 size, chest wall on the left). At `data.phantom_size=2688` its pixels
are as fine as those of the paper's inputs; a pair then takes 3.6 s on one CPU core (0.02 s at 256).

The pixels are the same for any `data.size`; they are not those of `phantom_mammo`, which draws all four views in one go.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt16

from jaxmed.data import phantom_mammo as women
from jaxmed.data import phantom_mammo_tissue as tissue
from jaxmed.data.breasts import PAIR, BreastSource, pair_views
from jaxmed.data.studies import LABELS
from jaxmed.errors import UserError

VERSION = 1  # part of every fingerprint: raise it when a change alters pixels
WIDTH = 0.75  # of the height


class PhantomPairsSource(BreastSource):
    """The breasts of `data.num_cases` studies of `data.phantom_size` pixels; `data.phantom_seed` gives another set."""

    name = "phantom_pairs"

    def __init__(self, data: Mapping, predict: bool = False):
        """Raises UserError for no study, pictures of less than 64 pixels, and other classes than the phantom's."""
        self.seed, self.size = int(data.get("phantom_seed", 0)), int(data.get("phantom_size", 256))
        count = int(data.get("num_cases", 240))
        if count < 1 or self.size < 64:
            raise UserError(f"data.num_cases={count}, data.phantom_size={self.size}: at least 1 study of 64 pixels")
        if tuple(data.get("classes") or LABELS) != LABELS:
            raise UserError(f"data.classes={tuple(data['classes'])}: phantoms have exactly the classes {LABELS}")
        studies = [women.make_study(self.seed, index) for index in range(count)]
        self._studies = {study.study_id: index for index, study in enumerate(studies)}
        breasts, notes = pair_views(studies)
        about = f"two-view phantoms made on the fly (seed {self.seed}, {self.size} x {int(WIDTH * self.size)} px)"
        super().__init__(breasts, [about, *notes], predict)

    def read(self, index: int) -> dict[str, UInt16[np.ndarray, "h w"]]:
        item = self.breasts[index]
        side = ("left", "right").index(item.side)
        return make_pair(self.seed, self._studies[item.study_id], side, self.size)

    def fingerprint(self, index: int) -> str:
        return f"phantom-pairs-v{VERSION}.{women.VERSION}-seed{self.seed}-{self.size}px-{self.breasts[index].case_id}"


def make_pair(seed: int, study: int, side: int, size: int) -> dict[str, UInt16[np.ndarray, "size w"]]:
    """The CC and the MLO view of the left (`side` 0) or right (1) breast of a study, missing or not."""
    person = women.who(seed, study)
    lesion = women.sample_lesions(person, women.of_person(seed, person, "lesions"))[side]
    build = tissue.sample_breast(women.of_person(seed, person, "breast"))
    look = np.random.default_rng([seed, person.number, person.visit, side, 0x9A12])
    textures = tissue.make_textures(size, np.random.default_rng([seed, person.number, size]), look, breasts=1)
    views = [women.make_view(build, name.upper(), texture, lesion, look) for name, texture in zip(PAIR, textures, strict=True)]
    return {name: view[:, : int(WIDTH * size)].astype(np.uint16) * 257 for name, view in zip(PAIR, views, strict=True)}
