"""Writes four-view studies as records, once: decoded, oriented, resized. Needed only where reading DICOM is too slow.

    python tools/prepare_data.py --source=cmmd --dir=/data/CMMD --out=/data/records --size=512
    python tools/prepare_data.py --source=cmmd --dir=/data/CMMD --out=/data/records --beam \\
        --beam_options=runner=DirectRunner,direct_num_workers=8,direct_running_mode=multi_processing

Then train with --config.data.source=study_records --config.data.dir=<the folder that this prints>.
"""

import argparse

from jaxmed.data.sources import make_study_source
from jaxmed.data.study_records import prepare_studies
from jaxmed.errors import UserError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="cmmd, folder_views or phantom_mammo")
    parser.add_argument("--dir", default="", help="the source's files")
    parser.add_argument("--out", required=True, help="where the records go")
    parser.add_argument("--size", type=int, default=512, help="height and width of a view")
    parser.add_argument("--crop_breast", action="store_true")
    parser.add_argument("--skip_bad", action="store_true", help="leave unreadable files out")
    parser.add_argument("--beam", action="store_true", help="spread the work with Apache Beam")
    parser.add_argument("--beam_options", default="", help="runner=...,key=value: Beam's pipeline options")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Opens the source, says what is in it, and writes it."""
    args = parse(arguments)
    data = {key: getattr(args, key) for key in ("source", "dir", "size", "crop_breast", "skip_bad")}
    source = make_study_source(data, predict=True)  # sets without labels are welcome
    for note in source.notes:
        print(note)
    folder = prepare_studies(source, args.out, beam=args.beam, beam_options=pipeline_options(args.beam_options))
    print(f"records: {folder}")


def pipeline_options(text: str):
    """Beam's options from "key=value,key=value"; None for none."""
    if not text:
        return None
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise SystemExit("--beam_options needs Apache Beam: pip install apache-beam") from error
    return PipelineOptions(flags=[f"--{part.strip()}" for part in text.split(",")])


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
