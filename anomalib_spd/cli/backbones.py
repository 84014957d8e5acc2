"""The command ``anomalib-spd backbones``: what stands on the shelf, and what is put on it."""

import argparse
import json
import os
import shlex
import sys
import warnings
from pathlib import Path

from anomalib_spd.backbones.averaging import average
from anomalib_spd.backbones.install import add, export, remove
from anomalib_spd.backbones.record import CATALOG_FOLDER, Backbone, layers_at
from anomalib_spd.backbones.registry import available, find, registry_folder
from anomalib_spd.files import HOME_VARIABLE

PROGRAM = "anomalib-spd backbones"

DESCRIPTION = f"""\
Manage the shelf: backbones that every detector of anomalib takes by name.

Your own stand in the folder {{shelf}}
({HOME_VARIABLE} names another)."""

ADD_DESCRIPTION = """\
Put a backbone on your shelf.

CHECKPOINT is a file (.safetensors, or a PyTorch checkpoint of tensors only) or a folder with timm's config.json and
model.safetensors. Known are: Lightning checkpoints of this package, plain state dicts, checkpoints of timm's training
script, torchvision's ResNets, MoCo v1 to v3, SimSiam; each also from DistributedDataParallel and torch.compile.

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

AVERAGE_DESCRIPTION = """\
Put the mean of several backbones' weights on your shelf.

They are of one network, and have gone on from the same weights: several trainings that differ in their seed, or a
training and the backbone that it went on from. Without shares, all count alike."""

AVERAGE_EXAMPLES = """\
examples:
  %(prog)s mine_mean mine_0 mine_1 mine_2
  %(prog)s mine_kept mine=0.7 efficientnet_lite0_in1k=0.3
"""


def run(args: list[str]) -> int:
    """Run ``anomalib-spd backbones ...``; returns its exit status: 0, or 1 after an error. Wrong usage exits with 2.

    Args:
        args: what follows ``anomalib-spd backbones``.
    """
    options = _parser().parse_args(args)
    options.command_line = shlex.join([*PROGRAM.split(), *args])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            options.run(options)
            sys.stdout.flush()
            status = 0
        except BrokenPipeError:  # who reads it, such as head, has had enough; Python flushes once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = 0
        except (ValueError, OSError) as error:
            print("error:", " ".join(str(error).split()), file=sys.stderr)
            status = 1
    for warning in caught:
        print("warning:", " ".join(str(warning.message).split()), file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROGRAM,
        description=DESCRIPTION.format(shelf=registry_folder()),
        epilog=f"example: {PROGRAM} list",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="list all backbones", description="List all backbones.")
    listing.set_defaults(run=_list)

    show = commands.add_parser(
        "show",
        help="show what is known of a backbone, and how to use it",
        description="Show what is known of a backbone, compare its weights with their checksum, and print the lines "
        "that use it.",
        epilog=f"example: {PROGRAM} show efficientnet_lite0_in1k",
    )
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)

    adding = commands.add_parser(
        "add",
        help="put a backbone on your shelf",
        description=ADD_DESCRIPTION,
        epilog=ADD_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    adding.add_argument("name", metavar="NAME", help="NAME or NAME.TAG; the tag tells recipe or data")
    adding.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="file or exported folder")
    adding.add_argument(
        "--architecture",
        metavar="ARCH",
        help="name of timm's or of the shelf; a folder and a checkpoint of this package name their own",
    )
    adding.add_argument("--mean", nargs=3, type=float, metavar="M", help="of images in [0, 1], where not ImageNet's")
    adding.add_argument("--std", nargs=3, type=float, metavar="S", help="goes with --mean")
    adding.add_argument("--sha256", metavar="HEX", help="refuse a checkpoint that has another")
    adding.add_argument("--license", metavar="ID", help="SPDX identifier of the weights' licence, such as apache-2.0")
    adding.add_argument("--origin", metavar="URL", help="where the weights were published")
    adding.add_argument("--data", default="", help="images that the weights were trained on, and their licence")
    adding.add_argument("--recipe", default="", help="how they were trained, in a line")
    adding.set_defaults(run=_add)

    averaging = commands.add_parser(
        "average",
        help="put the mean of several backbones' weights on your shelf",
        description=AVERAGE_DESCRIPTION,
        epilog=AVERAGE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    averaging.add_argument("name", metavar="NAME", help="NAME or NAME.TAG")
    averaging.add_argument(
        "parts", metavar="BACKBONE[=SHARE]", nargs="+", type=_share, help="on the shelf, two or more"
    )
    averaging.set_defaults(run=_average)

    removing = commands.add_parser(
        "remove", help="take a backbone of your own off the shelf", description="Delete a backbone of your own."
    )
    removing.add_argument("name", metavar="NAME")
    removing.set_defaults(run=_remove)

    exporting = commands.add_parser(
        "export",
        help="copy a backbone to a folder that needs no plugin",
        description="Copy a backbone to a folder that stock anomalib reads without this package, as local-dir:FOLDER.",
        epilog=f"example: {PROGRAM} export efficientnet_lite0_in1k ./backbone",
    )
    exporting.add_argument("name", metavar="NAME")
    exporting.add_argument("folder", metavar="FOLDER", type=Path, help="new, or empty")
    exporting.set_defaults(run=_export)
    return parser


def _list(_options: argparse.Namespace) -> None:
    rows = [("NAME", "ARCHITECTURE", "LAYERS", "N_FEATURES", "LICENCE", "WHERE")]
    for name, backbone in available().items():
        layers = ",".join(backbone.layers)
        rows.append(
            (name, backbone.architecture, layers, str(backbone.n_features), _licence(backbone), _where(backbone))
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _show(options: argparse.Namespace) -> None:
    backbone = find(options.name)
    provenance = backbone.provenance
    facts = {
        "architecture": backbone.architecture,
        "classes": backbone.pretrained_cfg["num_classes"] or "none, ends with pooled features",
        "input size": "x".join(map(str, backbone.pretrained_cfg.get("input_size", ("not stated",)))),
        "layers": ", ".join(backbone.layers),
        "n_features": backbone.n_features,
        "licence": _licence(backbone),
        "origin": backbone.pretrained_cfg.get("origin_url"),
        "data": provenance.data,
        "recipe": provenance.recipe,
        "command": provenance.command,
        "made from": provenance.checkpoint,
        "where": f"{backbone.folder} ({_where(backbone)})",
        "sha256": provenance.sha256,
    }
    print(backbone.name)
    for key, value in facts.items():
        print(f"  {key:<12}  {value or 'not stated'}")
    backbone.verify()
    print(f"  {'weights':<12}  as put there, the checksum is right\n")
    name, layers = json.dumps(backbone.name), json.dumps(backbone.layers)
    padim = json.dumps([layer["module"] for layer in layers_at((4, 8, 16), backbone.architecture, backbone.model_args)])
    print("import anomalib_spd")
    print(f"Patchcore(backbone={name}, layers={layers})")
    print(f"Padim(backbone={name}, layers={padim}, n_features={backbone.n_features})")


def _add(options: argparse.Namespace) -> None:
    backbone = add(
        options.name,
        options.checkpoint,
        options.architecture,
        mean=options.mean,
        std=options.std,
        sha256=options.sha256,
        license_id=options.license,
        origin_url=options.origin,
        data=options.data,
        recipe=options.recipe,
        command=options.command_line,
    )
    print(f"Added {backbone.name} ({backbone.architecture}) in {backbone.folder}")
    print(f"Use it: Patchcore(backbone={json.dumps(backbone.name)}, layers={json.dumps(backbone.layers)})")


def _share(text: str) -> tuple[str, float]:
    name, equals, share = text.partition("=")
    try:
        return name, float(share) if equals else 1.0
    except ValueError:
        msg = f"{share!r} is no share of {name!r}: expected a number, such as {name}=0.7"
        raise argparse.ArgumentTypeError(msg) from None


def _average(options: argparse.Namespace) -> None:
    names = [name for name, _ in options.parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"{', '.join(twice)}: given twice. Give each backbone once, with its share: NAME=SHARE."
        raise ValueError(msg)
    backbone = average(options.name, dict(options.parts), command=options.command_line)
    print(f"Added {backbone.name} ({backbone.architecture}) in {backbone.folder}: {backbone.provenance.recipe}")
    print(f"Use it: Patchcore(backbone={json.dumps(backbone.name)}, layers={json.dumps(backbone.layers)})")


def _remove(options: argparse.Namespace) -> None:
    remove(options.name)
    print(f"Removed {options.name}")


def _export(options: argparse.Namespace) -> None:
    print(f"Exported {options.name} to {export(options.name, options.folder)}")
    print(f"Use it without the plugin: backbone={json.dumps(f'local-dir:{options.folder}')}")


def _licence(backbone: Backbone) -> str:
    return backbone.pretrained_cfg.get("license") or "other"


def _where(backbone: Backbone) -> str:
    return "catalogue" if backbone.folder.parent == CATALOG_FOLDER else "own"
