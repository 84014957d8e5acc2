"""The command ``anomalib-spd deploy``: a trained detector as files, each measured beside it."""

import logging
import sys
from argparse import ArgumentError
from pathlib import Path

import anomalib.data  # noqa: F401 - its data modules are known by their names
from anomalib.data import AnomalibDataModule
from jsonargparse import ArgumentParser

from anomalib_spd.config_files import merge_config_files
from anomalib_spd.deploy.export import FORMATS, check_formats
from anomalib_spd.deploy.run import CARD, RECORD, deploy
from anomalib_spd.files import one_line

PROGRAM = "anomalib-spd deploy"


def run(args: list[str]) -> int:
    """Run ``anomalib-spd deploy ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd deploy``.
    """
    parser = _parser()
    try:
        options = parser.parse_args(merge_config_files(args))
    except ArgumentError as error:
        print(f"error: {one_line(error)} ('{PROGRAM} --help' has the options)", file=sys.stderr)
        raise SystemExit(2) from None
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    check_formats(options.formats)
    data: AnomalibDataModule = parser.instantiate_classes(options).data
    record = deploy(options.ckpt_path, data, options.output, options.formats, options.model)
    for name, each in record["formats"].items():
        speeds = ", ".join(f"{value:.1f} with {threads}" for threads, value in each["images_per_second"].items())
        print(
            f"{name}: scores differ by {each['score_difference']['largest']:.1e} at most; images/s by threads: {speeds}"
        )
    print(f"Figures: {options.output / RECORD}; page: {options.output / CARD}; files: {options.output / 'weights'}")
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog=PROGRAM, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="file of these options, such as the data")
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of a run of anomalib")
    parser.add_subclass_arguments(AnomalibDataModule, "data", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--formats", type=str, nargs="+", default=[*FORMATS], help=f"of {', '.join(FORMATS)}")
    parser.add_argument(
        "--model", type=str | None, help="class of the detector; by default that of the run's config.yaml"
    )
    return parser
