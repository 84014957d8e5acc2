"""The options of ``anomalib-spd saliency``, without what the command imports: the help answers at once."""

import argparse
from pathlib import Path

from anomalib_spd.cli.usage import OneLineParser

PROGRAM = "anomalib-spd saliency"

DESCRIPTION = """\
Draw where backbones see that images are not like good ones: LayerCAM of the distance between an image's pooled features and
their mean over good images, of every layer that detectors read. One row an image, each map from its own minimum to its own maximum."""

EXAMPLE = f"""\
example: {PROGRAM} bottle/test/broken_large --good bottle/train/good \\
             --backbones efficientnet_lite0_in1k efficientnet_lite0_spd --output saliency.png"""


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    made = OneLineParser(
        PROGRAM, description=DESCRIPTION, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("images", metavar="IMAGES", nargs="+", type=Path, help="files or folders, of at most 16 images")
    made.add_argument("--good", metavar="FOLDER", type=Path, required=True, help="images without defect")
    made.add_argument("--backbones", metavar="NAME", nargs="+", required=True, help="of the registry or of timm")
    made.add_argument("--output", metavar="FILE", type=Path, required=True, help="the picture: new, .png or .jpg")
    made.add_argument("--layers", metavar="LAYER", nargs="+", default=[], help="by default those that detectors read")
    made.add_argument(
        "--image_size", metavar="N", type=int, default=256, help="height and width, pixels; by default 256"
    )
    return made
