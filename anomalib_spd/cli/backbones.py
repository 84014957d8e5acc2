"""The command ``anomalib-spd backbones``: list, show, add, remove and export backbones."""

import argparse
import json
import os
import shlex
import sys
import warnings
from pathlib import Path

from anomalib_spd.backbones.install import add, export, remove
from anomalib_spd.backbones.layers import layers_at
from anomalib_spd.backbones.record import CATALOG_FOLDER, Backbone
from anomalib_spd.backbones.registry import available, find, registry_name
from anomalib_spd.files import HOME_VARIABLE, one_line

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


def run(args: list[str]) -> int:
    """Run ``anomalib-spd backbones ...``; returns its exit status.

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
        except BrokenPipeError:  # the reader, such as head, has closed the pipe; Python flushes once more when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            for warning in caught:
                print("warning:", one_line(warning.message), file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        PROGRAM,
        description=DESCRIPTION.format(registry=registry_name()),
        epilog=f"example: {PROGRAM} list",
        formatter_class=raw,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="list all backbones", description="List all backbones.")
    listing.set_defaults(run=_list)

    show = commands.add_parser(
        "show",
        help="show the record of a backbone, and how to use it",
        description="Show the record of a backbone, compare its weights with their checksum, and print the lines that use it.",
        epilog=f"example: {PROGRAM} show efficientnet_lite0_in1k",
    )
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)

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
    adding.set_defaults(run=_add)

    removing = commands.add_parser(
        "remove", help="remove a backbone of your own", description="Delete a backbone of your own."
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
    for name, each in available().items():
        layers = ",".join(each.layers)
        rows.append((name, each.architecture, layers, str(each.n_features), each.license, _where(each)))
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
        "licence": backbone.license,
        "origin": backbone.pretrained_cfg.get("origin_url"),
        "data": provenance.data,
        "recipe": provenance.summary(),
        "command": provenance.command,
        "made from": provenance.made_from(),
        "where": f"{backbone.folder} ({_where(backbone)})",
        "sha256": provenance.sha256,
    }
    print(backbone.name)
    for key, value in facts.items():
        print(f"  {key:<12}  {value or 'not stated'}")
    backbone.verify()
    print(f"  {'weights':<12}  as put there, the checksum is right\n")
    padim = json.dumps([layer["module"] for layer in layers_at((4, 8, 16), backbone.architecture, backbone.model_args)])
    print("import anomalib_spd")
    print(_patchcore(backbone))
    print(f"Padim(backbone={json.dumps(backbone.name)}, layers={padim}, n_features={backbone.n_features})")


def _add(options: argparse.Namespace) -> None:
    backbone = add(
        options.name,
        options.checkpoint,
        options.architecture,
        mean=options.mean,
        std=options.std,
        key=options.key,
        prefix=options.prefix,
        sha256=options.sha256,
        license_id=options.license,
        origin_url=options.origin,
        data=options.data,
        recipe=options.recipe,
        command=options.command_line,
    )
    print(f"Added {backbone.name} ({backbone.architecture}) in {backbone.folder}")
    print(f"Use it: {_patchcore(backbone)}")


def _remove(options: argparse.Namespace) -> None:
    remove(options.name)
    print(f"Removed {options.name}")


def _export(options: argparse.Namespace) -> None:
    print(f"Exported {options.name} to {export(options.name, options.folder)}")
    print(f"Use it without the plugin: backbone={json.dumps(f'local-dir:{options.folder}')}")


def _where(backbone: Backbone) -> str:
    return "catalogue" if backbone.folder.parent == CATALOG_FOLDER else "own"


def _patchcore(backbone: Backbone) -> str:
    return f"Patchcore(backbone={json.dumps(backbone.name)}, layers={json.dumps(backbone.layers)})"
