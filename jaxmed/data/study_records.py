"""Four-view studies as tfds records: every view decoded, oriented and resized once, by one process or by a Beam runner.

Records hold PNG bytes in array_record; reading them needs neither TensorFlow nor the original files. With `beam=True` the
studies are spread over the workers of an Apache Beam runner (each opens only the files of its own studies): for sets of
hundreds of thousands of DICOM files on a cluster's file system. `pip install apache-beam` brings it; it is no dependency.
"""

import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxmed.data import image_io
from jaxmed.data.studies import VIEWS, Study, StudySource
from jaxmed.errors import UserError

SPLIT = "studies"  # one tfds split: train / val / test are the run's own, and grouped


class StudyBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Mammography studies of four views (L_CC, L_MLO, R_CC, R_MLO) with a label and a BI-RADS category per breast."""

    name = "jaxmed_studies"
    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, source: StudySource, *, beam: bool = False, **options):
        self.source, self.beam = source, beam
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Image(shape=(None, None, 1)) for name in VIEWS}
        features |= {key: tfds.features.Text() for key in ("study_id", "patient_id", "split", "fingerprint")}
        features |= {key: tfds.features.Tensor(shape=(2,), dtype=np.int32) for key in ("label", "birads")}
        features["present"] = tfds.features.Tensor(shape=(len(VIEWS),), dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self, description=self.__doc__, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager) -> dict:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self):
        """A generator or, with Beam, a pipeline; study k has the key k, so that the order is the source's in both."""
        if not self.beam:
            return (record(self.source, index) for index in range(len(self.source)))
        try:
            import apache_beam as beam
        except ImportError as error:
            raise UserError("beam=True needs Apache Beam: pip install apache-beam, or prepare without it") from error
        source = self.source
        return beam.Create(range(len(source))) | beam.Reshuffle() | beam.Map(lambda index: record(source, index))


def record(source: StudySource, index: int) -> tuple[int, dict]:
    """The key and the record of one study; missing views are black pictures with `present` 0."""
    study, pixels = source.studies[index], source.read(index)
    pictures = {
        name: io.BytesIO(cv2.imencode(".png", view)[1].tobytes()) for name, view in zip(VIEWS, pixels["views"], strict=True)
    }
    return index, pictures | {
        "study_id": study.study_id,
        "patient_id": study.patient_id,
        "split": study.split,
        "fingerprint": source.fingerprint(index),
        "label": np.array(study.label, np.int32),
        "birads": np.array(study.birads, np.int32),
        "present": pixels["present"].astype(np.int32),
    }


def prepare_studies(source: StudySource, folder: str | Path, *, beam: bool = False, beam_options=None) -> Path:
    """Writes the records of `source` below `folder` (once) and returns the folder to give to `data.dir`.

    Args:
        beam_options: `apache_beam.options.pipeline_options.PipelineOptions` that choose the runner and its workers.
    """
    builder = StudyBuilder(source, beam=beam, data_dir=str(folder))
    config = tfds.download.DownloadConfig(beam_options=beam_options)
    builder.download_and_prepare(download_config=config)
    return Path(str(builder.data_dir))


class RecordStudySource(StudySource):
    """The studies of a folder that `prepare_studies` wrote: `data.dir` is the folder that it returned."""

    name = "study_records"

    def __init__(self, data: Mapping, needs: tuple[str, ...] = ("views",), predict: bool = False):
        folder = Path(data.get("dir") or "").expanduser()
        if not (folder / "dataset_info.json").is_file():
            raise UserError(f"data.dir={str(folder)!r} holds no records; give the folder that prepare_studies printed")
        builder = tfds.builder_from_directory(str(folder))
        skip = {name: tfds.decode.SkipDecoding() for name in VIEWS}
        self._records = builder.as_data_source(split=SPLIT, decoders=skip)
        studies = [_study(row, self._records[row]) for row in range(len(self._records))]
        self._rows = {study.study_id: row for row, study in enumerate(studies)}  # a BI-RADS subset leaves some out
        super().__init__(studies, (), data, predict)

    def read(self, index: int) -> dict[str, np.ndarray]:
        study = self.studies[index]
        found = self._records[self._rows[study.study_id]]
        views = [image_io.decode_gray(found[name], f"{study.study_id} {name}") for name in VIEWS]
        return {"views": np.stack(views), "present": study.present}

    def fingerprint(self, index: int) -> str:
        return self._records[self._rows[self.studies[index].study_id]]["fingerprint"].decode()


def _study(row: int, found: Mapping) -> Study:
    text = {key: found[key].decode() for key in ("study_id", "patient_id", "split")}
    views = {name: f"record {row} {name}" for name, there in zip(VIEWS, found["present"], strict=True) if there}
    label, birads = (tuple(int(value) for value in found[key]) for key in ("label", "birads"))
    return Study(text["study_id"], text["patient_id"], views, label, birads, text["split"])
