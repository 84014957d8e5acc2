"""The options of ``anomalib-spd defects``, without what the command imports: the helps answer at once."""

import argparse
from pathlib import Path

from anomalib_spd.cli.usage import OneLineParser

PROGRAM = "anomalib-spd defects"

DESCRIPTION = """\
Draw defects on the good images that thresholds are chosen on: look at them before you trust a threshold.

The folder gets images/, masks/ and contact_sheet.png. They are the defective images of the validation set of
anomalib_spd.data.SyntheticValidation; any other data module is wrapped by it, with its defaults. Test images are not read."""


def parser() -> argparse.ArgumentParser:
    """Return the parser; what it does not know are the options of the data module."""
    made = OneLineParser(PROGRAM, description="Make defects on good images.", allow_abbrev=False)
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    make = commands.add_parser(
        "make",
        help="write defective images, their masks and a contact sheet",
        description=DESCRIPTION,
        epilog=f"example: {PROGRAM} make --data anomalib.data.MVTecAD --data.root MVTecAD --data.category bottle --output defects",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage=f"{PROGRAM} make --data CLASS --data.root FOLDER --output FOLDER [OPTION ...]",
        allow_abbrev=False,
    )
    make.add_argument(
        "-c",
        "--config",
        metavar="RECIPE",
        action="append",
        default=[],
        help="name of a recipe or a file, whose data are taken; of several, later ones win",
    )
    make.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="new, or empty")
    make.add_argument("--data", metavar="CLASS", help="data module, and its arguments: --data.root FOLDER ...")
    return made
