"""The command ``anomalib-spd recipes``: list, show and copy the configuration files that ship."""

import argparse
import re
from pathlib import Path
from typing import Any

from anomalib_spd.cli.usage import OneLineParser
from anomalib_spd.config_files import RULE, load_config_files, recipe_names, shipped
from anomalib_spd.files import write_text

PROGRAM = "anomalib-spd recipes"
#: characters of a description
MOST = 100
COMMAND = re.compile(r"anomalib(-spd)? (\w+) ")


def run(args: list[str]) -> int:
    """Run ``anomalib-spd recipes ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd recipes``.
    """
    options = _parser().parse_args(args)
    options.run(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = OneLineParser(
        PROGRAM,
        description=f"Recipes are the configuration files that ship.\n\n{RULE}",
        epilog=f"example: {PROGRAM} copy patchcore_spd mine.yaml",
        formatter_class=raw,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="list all recipes", description="List all recipes.")
    listing.set_defaults(run=_list)
    showing = commands.add_parser("show", help="print a recipe", description="Print a recipe.")
    showing.add_argument("name", metavar="NAME")
    showing.set_defaults(run=_show)
    copying = commands.add_parser("copy", help="copy a recipe to a file of yours", description="Copy a recipe.")
    copying.add_argument("name", metavar="NAME")
    copying.add_argument("file", metavar="FILE", type=Path, help="new")
    copying.set_defaults(run=_copy)
    return parser


def _list(_options: argparse.Namespace) -> None:
    rows = [("NAME", "COMMAND", "IMAGES", "WHAT IT IS"), *(_row(name) for name in recipe_names())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(name: str) -> tuple[str, str, str, str]:
    text = shipped(name).read_text(encoding="utf-8")
    head = [line[1:].strip() for line in text.split("\n\n")[0].splitlines() if line.startswith("#")]
    command = next((match[2] for line in head if (match := COMMAND.match(line))), "")
    # the line of the command may go on in others
    about = [
        line
        for before, line in zip(["", *head], head, strict=False)
        if line and not COMMAND.match(line) and not before.endswith("\\")
    ]
    first = re.split(r"(?<=\.) |\.$", " ".join(about))[0]
    return (
        name,
        command,
        _images(load_config_files([name], resolve=False)),
        first if len(first) <= MOST else f"{first[: MOST - 1]}…",
    )


def _images(content: dict[str, Any]) -> str:
    """Return which images a recipe reads, in a few words."""
    data = content.get("data", {})
    class_path = str(data.get("class_path", "")).rpartition(".")[2]
    if not class_path:
        # the recipes of the command `finetune` say nothing of the data; others without any are given behind another
        return (
            "yours, by --data" if "model" in content and "class_path" in content["model"] else "as the recipe before it"
        )
    inner = data.get("init_args", {}).get("datamodule", {})
    if "Sample" in (class_path, str(inner.get("class_path", "")).rpartition(".")[2]):
        return "none: the sample"
    if "class_path" in inner:
        return f"{inner['class_path'].rpartition('.')[2]}, by --data.datamodule.init_args.root"
    if class_path == "SyntheticParts":  # makes its own, beside which it replays others
        return "yours, by --data.replay_images"
    return f"{class_path}, by --data.root"


def _show(options: argparse.Namespace) -> None:
    print(shipped(options.name).read_text(encoding="utf-8"), end="")


def _copy(options: argparse.Namespace) -> None:
    text = shipped(options.name).read_text(encoding="utf-8")
    if options.file.exists():
        raise FileExistsError(f"{options.file} exists already: give another name, or remove it")
    write_text(options.file, text)
    print(f"Copied {options.name} to {options.file}: --config {options.file}")
