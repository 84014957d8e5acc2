"""The command ``anomalib-spd backbones``: list, show, add, convert, remove and export backbones."""

import argparse
import json
import os
import shlex
import sys
import warnings

from anomalib_spd.backbones.efficientnet_lite import convert
from anomalib_spd.backbones.feature_layers import layers_at
from anomalib_spd.backbones.install import add, export, remove
from anomalib_spd.backbones.record import CATALOG_FOLDER, Backbone
from anomalib_spd.backbones.registry import available, find
from anomalib_spd.cli.backbones_options import PROGRAM, parser
from anomalib_spd.files import one_line


def run(args: list[str]) -> int:
    """Run ``anomalib-spd backbones ...``; returns its exit status.

    Args:
        args: what follows ``anomalib-spd backbones``.
    """
    options = parser().parse_args(args)
    options.command_line = shlex.join([*PROGRAM.split(), *args])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            ACTIONS[options.action](options)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as head, has closed the pipe; Python flushes once more when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        finally:
            for warning in caught:
                print("warning:", one_line(warning.message), file=sys.stderr)
    return 0


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
    print(backbone.usage)
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
    _print_added(backbone)


def _convert(options: argparse.Namespace) -> None:
    _print_added(convert(options.network, options.name))


def _print_added(backbone: Backbone) -> None:
    print(f"Added {backbone.name} ({backbone.architecture}) in {backbone.folder}")
    print(f"Use it: {backbone.usage}")


def _remove(options: argparse.Namespace) -> None:
    remove(options.name)
    print(f"Removed {options.name}")


def _export(options: argparse.Namespace) -> None:
    print(f"Exported {options.name} to {export(options.name, options.folder)}")
    print(f"Use it without the plugin: backbone={json.dumps(f'local-dir:{options.folder}')}")


def _where(backbone: Backbone) -> str:
    return "catalogue" if backbone.folder.parent == CATALOG_FOLDER else "own"


ACTIONS = {"list": _list, "show": _show, "add": _add, "convert": _convert, "remove": _remove, "export": _export}
