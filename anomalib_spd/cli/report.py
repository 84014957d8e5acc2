"""The command ``anomalib-spd report``: what a benchmark found, as one HTML page and as Markdown."""

import argparse
import sys
from pathlib import Path

from anomalib_spd.report.page import PAGE, write_report

PROGRAM = "anomalib-spd report"

DESCRIPTION = """\
Write down what a benchmark found: report.html, one file that needs nothing else, and report.md with its plots."""


def run(args: list[str]) -> int:
    """Run ``anomalib-spd report ...``; returns its exit status: 0, or 1 after an error. Wrong usage exits with 2.

    Args:
        args: what follows ``anomalib-spd report``.
    """
    options = _parser().parse_args(args)
    output = options.output or options.results / "report"
    try:
        write_report(options.results, output, images=not options.without_images)
    except (ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(f"Wrote {output / PAGE}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(PROGRAM, description=DESCRIPTION, epilog=f"example: {PROGRAM} results/benchmark")
    parser.add_argument("results", metavar="RESULTS", type=Path, help="folder of 'anomalib-spd benchmark'")
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="new, empty, or an earlier report; by default RESULTS/report"
    )
    parser.add_argument(
        "--without-images",
        action="store_true",
        help="show heatmaps only, no photographs and no masks, where these may not be passed on",
    )
    return parser
