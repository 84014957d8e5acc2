"""The command ``anomalib-spd report``: the results of a benchmark as one HTML page and as Markdown."""

import argparse
from pathlib import Path

from anomalib_spd.report.page import PAGE, write_report

PROGRAM = "anomalib-spd report"

DESCRIPTION = """\
Write the results of a benchmark as report.html, one self-contained file, and as report.md with its plots; and as runs.csv,
means.csv and intervals.csv. From a CSV file alone, the report has no curves and no heatmaps."""


def run(args: list[str]) -> int:
    """Run ``anomalib-spd report ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd report``.
    """
    options = _parser().parse_args(args)
    results: Path = options.results
    beside = results.with_name(f"{results.stem.removesuffix('.means')}.report")
    output = options.output or (beside if results.suffix == ".csv" else results / "report")
    write_report(results, output, images=not options.without_images)
    print(f"Wrote {output / PAGE}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description=DESCRIPTION, epilog=f"example: {PROGRAM} results/benchmark")
    parser.add_argument(
        "results",
        metavar="RESULTS",
        type=Path,
        help="folder of 'anomalib-spd benchmark'; or a CSV file, GRID.csv of runs or GRID.means.csv of means",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="new, empty, or an earlier report; by default RESULTS/report, of a CSV file GRID.report beside it",
    )
    parser.add_argument(
        "--without-images",
        action="store_true",
        help="leave out photographs and masks, where these may not be passed on; heatmaps stay",
    )
    return parser
