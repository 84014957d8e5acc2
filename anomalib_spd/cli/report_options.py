"""The options of ``anomalib-spd report``, without what the command imports: the help answers at once."""

import argparse
from pathlib import Path

from anomalib_spd.cli.usage import OneLineParser

PROGRAM = "anomalib-spd report"

DESCRIPTION = """\
Write the results of a benchmark as report.html, one self-contained file, and as report.md with its plots; and as runs.csv,
means.csv and intervals.csv. From a CSV file alone, the report has no curves and no heatmaps."""


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    made = OneLineParser(PROGRAM, description=DESCRIPTION, epilog=f"example: {PROGRAM} results/benchmark")
    made.add_argument(
        "results",
        metavar="RESULTS",
        type=Path,
        help="folder of 'anomalib-spd benchmark'; or a CSV file, GRID.csv of runs or GRID.means.csv of means",
    )
    made.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="new, empty, or an earlier report; by default RESULTS/report, of a CSV file GRID.report beside it",
    )
    made.add_argument(
        "--without-images",
        action="store_true",
        help="leave out photographs and masks, where these may not be passed on; heatmaps stay",
    )
    return made
