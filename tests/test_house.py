"""The house of the package: which room may import which, and which words are no names any more."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "anomalib_spd"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

#: rooms from low to high; those of one entry do not import each other. The package's own two modules stand apart
FLOORS = (
    ("version", "files", "spelling"),
    ("config_files",),
    ("metrics", "losses", "saliency"),
    ("augmentation",),
    ("backbones",),
    ("data",),
    ("detectors",),
    ("training",),
    ("pretraining", "local", "finetuning"),
    ("twoclass",),
    ("benchmark",),
    ("report",),
    ("deploy",),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

#: parts of names, between underscores and capitals, that design took out of the code; the field's words replace them
RETIRED = {
    "shelf": "registry",
    "placing": "install",
    "replacing": "atomic_write",
    "places": "locations",
    "remembered": "memory",
    "shown": "query",
    "taught": "teacher_maps",
    "kept": "distillation",
    "kind": "category",
    "kinds": "categories",
    "strangers": "background",
    "photographs": "replay_images",
    "equalize": "equalize_rms",
    "energy": "mean_square",
    "energies": "mean_square",
    "writers": "output_norms",
    "told": "a word of logging",
    "tell": "a word of logging",
    "findings": "GridResults",
    "circumstances": "run_metadata",
    "words": "format_*",
    "spread": "format_*",
    "signed": "format_*",
    "having": "with_metric",
    "sheet": "heatmap_grid",
    "stripe": "ForestRow",
    "chapter": "DetectorSection",
    "side": "image_size",
    "stretch": "keep_aspect",
    "ranked": "hash_order",
    "divided": "hash_split",
    "visibly": "change_mask",
    "colour": "color",
    "centre": "center",
    "grey": "gray",
}
#: names that hold such a part and have a meaning of their own in the field
ALLOWED = {"equalize_rms"}


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "anomalib_spd":
                yield from (f"anomalib_spd.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("anomalib_spd."):
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("anomalib_spd."))


def defined_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname


def parts(name: str) -> set[str]:
    spaced = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
    return set(spaced.lower().split("_"))


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in MODULES} <= {*FLOOR, "__init__", "__main__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "__main__"}:
        return
    upwards = [
        module
        for module in imports(ast.parse(path.read_text()))
        if (other := module.split(".")[1]) != room and FLOOR[other] >= FLOOR[room]
    ]
    assert not upwards, f"{room}/ imports what stands above it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_hides_in_a_function(path: Path) -> None:
    if room_of(path) == "__init__":  # names are registered when they are asked for
        return
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert not [module for function in functions for module in imports(function)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_are_the_fields(path: Path) -> None:
    names = {*defined_names(ast.parse(path.read_text())), path.stem} - ALLOWED
    retired = {name: RETIRED[part] for name in sorted(names) for part in parts(name) & RETIRED.keys()}
    assert not retired, f"say instead: {retired}"
