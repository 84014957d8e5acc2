"""Checks of what a grid reads, before its first cell: backbones and their layers, recipes of trainings, data sets."""

import inspect
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from pydoc import locate
from typing import Any, TypeVar, cast

import timm
from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule

from anomalib_spd.backbones.feature_layers import check_layers
from anomalib_spd.benchmark.build import Config, build, check
from anomalib_spd.benchmark.cell import SPLIT_SEED, ready_data
from anomalib_spd.benchmark.grid import Grid, GridError, backbone_parameter
from anomalib_spd.benchmark.trainings import full_recipe
from anomalib_spd.data.ready import FOLDER, check_root, fingerprint, missing_folder, prepares_files, set_up
from anomalib_spd.spelling import did_you_mean

T = TypeVar("T")

#: beginnings of errors that concern more than the place in the grid where they were found
SAY_WHERE = ("backbones: ", FOLDER)


class _Errors:
    """What is wrong, each line once."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self.lines = dict.fromkeys(lines)

    def attempt(self, where: str, work: Callable[..., T], *args: Any) -> T | None:
        """Return what a piece of work returns; where it fails, note why, and return None.

        Args:
            where: place in the grid.
            work: any function.
            *args: of it.
        """
        try:
            return work(*args)
        except Exception as error:  # data modules raise nearly anything
            text = " ".join(str(error).split()) or type(error).__name__
            self.lines[text if text.startswith(SAY_WHERE) else f"{where}: {text}"] = None
            return None

    def check(self) -> None:
        """Raise what was noted, if anything."""
        if self.lines:
            raise GridError(list(self.lines))


def check_grid(grid: Grid, results: Path) -> dict[str, str]:
    """Check a grid and all that it reads, and prepare its data sets.

    Names, layers and folders come first: a data set is prepared, which may be a download, where nothing else is wrong.

    Args:
        grid: what is measured.
        results: folder of results.

    Returns:
        Configuration of a data module, as JSON with sorted keys -> fingerprint of its images.

    Raises:
        GridError: all that is wrong.
    """
    errors = _Errors()
    modules = _look_at(grid, results, errors)
    errors.check()
    fingerprints: dict[str, str] = {}
    failed = set[Any]()
    for where, config, module in modules:
        place = type(module), config["init_args"].get("root")
        if place in failed:
            continue
        if images := errors.attempt(where, _images, config):
            fingerprints[json.dumps(config, sort_keys=True)] = images
        elif missing_folder(module):
            failed.add(place)  # to download: one that fails is enough
    errors.check()
    return fingerprints


def look_at(grid: Grid, results: Path) -> list[str]:
    """Return all that is wrong with a grid and what it reads, a line each; nothing is downloaded or written.

    Args:
        grid: what is measured.
        results: folder of results.
    """
    errors = _Errors()
    for *_, module in _look_at(grid, results, errors):
        if folder := missing_folder(module):
            errors.lines[f"{FOLDER} {folder} does not exist; {type(module).__name__} would be downloaded."] = None
    return list(errors.lines)


def _look_at(grid: Grid, results: Path, errors: _Errors) -> list[tuple[str, Config, AnomalibDataModule]]:
    """Note what is wrong, and return the data modules whose folder is there: where the grid has them, and their configuration."""
    errors.lines |= dict.fromkeys(grid.errors())
    errors.attempt("results", _check_results, results)
    made = errors.attempt("backbones", grid.trainings) or {}
    for name, options in made.items():
        # a recipe's error names the backbone
        made[name] = errors.attempt("backbones", full_recipe, options, name) or {}
    for cell in grid.cells():
        name = grid.backbone(cell.backbone, cell.category, cell.seed)
        if name not in made:
            errors.attempt(f"backbones: {cell.backbone}", check_backbone, name, grid.model_config(cell))
    modules, looked_at = [], set[str]()
    for where, base, config in grid.classes():
        if base is AnomalibModule:
            config = _as_made_from(config, made)
            if (text := json.dumps(config, sort_keys=True)) not in looked_at:
                looked_at.add(text)
                errors.attempt(where, check_detector, config)
        elif module := errors.attempt(where, _data_module, config):
            modules.append((where, config, module))
    return modules


def _check_results(results: Path) -> None:
    there = next(path for path in (results, *results.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"{results} cannot be written, as {there} is no folder that you may write: give another with --results"
        )


def _data_module(config: Config) -> AnomalibDataModule:
    module: AnomalibDataModule = build(AnomalibDataModule, config)
    check_root(module)
    if not prepares_files(module):
        set_up(module, SPLIT_SEED)  # lists the files
    return module


def _images(config: Config) -> str:
    return fingerprint(ready_data(config))


def check_backbone(name: str, detector: Config) -> None:
    """Check that a detector's backbone is registered or timm's, where the detector takes timm's names.

    Args:
        name: of the backbone.
        detector: ``class_path`` and ``init_args``.

    Raises:
        ValueError: it is neither.
    """
    parameter = backbone_parameter(detector["class_path"])
    if not parameter or ":" in name or detector["init_args"].get(parameter) != name:
        return
    default = inspect.signature(cast(type, locate(detector["class_path"]))).parameters[parameter].default
    if isinstance(default, str) and not timm.is_model(default):
        return  # the detector's encoders have names of its own
    if not timm.is_model(name):
        raise ValueError(f"neither the registry nor timm has {name!r}{did_you_mean(name, timm.list_models())}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:
        known = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise ValueError(f"timm has no {name!r}{did_you_mean(name, known)}; it has: {', '.join(known)}") from None


def _as_made_from(config: Config, made: dict[str, Config]) -> Config:
    """Return a detector's configuration with a backbone that is not there yet replaced by what it is made from, with the same layers."""
    recipe = made.get(config["init_args"].get("backbone"), {})
    source = recipe.get("model", {}).get("init_args", {}).get("backbone")
    return {**config, "init_args": {**config["init_args"], "backbone": source}} if source else config


def check_detector(config: Config) -> None:
    """Check that the backbone of a detector has the layers that it reads.

    Args:
        config: ``class_path`` and ``init_args``.

    Raises:
        ValueError: it does not.
    """
    name = config["init_args"].get("backbone")
    if not name or (":" not in name and not timm.is_model(name)):
        return
    arguments = check(AnomalibModule, config)
    layers = arguments.get("layers") or [arguments.get("layer")]
    check_layers(name, [layer for layer in layers if isinstance(layer, str)])
