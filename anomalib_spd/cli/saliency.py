"""The command ``anomalib-spd saliency``: where backbones see that images are not like good ones, as one picture."""

from anomalib_spd.cli.saliency_options import parser
from anomalib_spd.report.saliency import write_saliency


def run(args: list[str]) -> int:
    """Run ``anomalib-spd saliency ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd saliency``.
    """
    options = parser().parse_args(args)
    write_saliency(options.images, options.good, options.backbones, options.output, options.layers, options.image_size)
    print(f"Wrote {options.output}")
    return 0
