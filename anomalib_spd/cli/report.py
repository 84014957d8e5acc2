"""The command ``anomalib-spd report``: the results of a benchmark as one HTML page and as Markdown."""

from pathlib import Path

from anomalib_spd.cli.report_options import parser
from anomalib_spd.report.page import PAGE, write_report


def run(args: list[str]) -> int:
    """Run ``anomalib-spd report ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd report``.
    """
    options = parser().parse_args(args)
    results: Path = options.results
    beside = results.with_name(f"{results.stem.removesuffix('.means')}.report")
    output = options.output or (beside if results.suffix == ".csv" else results / "report")
    write_report(results, output, images=not options.without_images)
    print(f"Wrote {output / PAGE}")
    return 0
