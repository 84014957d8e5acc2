"""Checks of what a grid reads, before its first cell: backbones and their layers, recipes of trainings, data sets."""

import inspect
import json
from pydoc import locate
from typing import Any, cast

import timm
from anomalib.models.components import AnomalibModule

from anomalib_spd.backbones.layers import check_layers
from anomalib_spd.benchmark.build import Config, check
from anomalib_spd.benchmark.cell import ready_data
from anomalib_spd.benchmark.grid import Grid, GridError, backbone_parameter
from anomalib_spd.benchmark.trainings import full_recipe
from anomalib_spd.data.ready import fingerprint
from anomalib_spd.spelling import did_you_mean


def check_grid(grid: Grid) -> dict[str, str]:
    """Check a grid and all that it reads, and prepare its data sets.

    Args:
        grid: what is measured.

    Returns:
        Configuration of a data module, as JSON with sorted keys -> fingerprint of its images.

    Raises:
        GridError: all that is wrong.
    """
    errors, fingerprints = dict.fromkeys(grid.errors()), dict[str, str]()

    def attempt(where: str, work: Any, *args: Any) -> Any:
        try:
            return work(*args)
        except Exception as error:  # data modules raise nearly anything
            text = " ".join(str(error).split()) or type(error).__name__
            errors[text if text.startswith("backbones: ") else f"{where}: {text}"] = None

    made = attempt("backbones", grid.trainings) or {}
    for name, options in made.items():
        # a recipe's error names the backbone
        made[name] = attempt("backbones", full_recipe, options, name) or {}
    for cell in grid.cells():
        name = grid.backbone(cell.backbone, cell.category, cell.seed)
        if name not in made:
            attempt(f"backbones: {cell.backbone}", check_backbone, name, grid.model_config(cell))
    for where, base, config in grid.classes():
        if base is AnomalibModule:
            attempt(where, check_detector, config, made)
        elif images := attempt(where, _images, config):
            fingerprints[json.dumps(config, sort_keys=True)] = images
    if errors:
        raise GridError(list(errors))
    return fingerprints


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


def check_detector(config: Config, made: dict[str, Config]) -> None:
    """Check that the backbone of a detector has the layers that it reads.

    Args:
        config: ``class_path`` and ``init_args``.
        made: name -> recipe of the backbones that are not there yet: they have the layers of what they are made from.

    Raises:
        ValueError: it does not.
    """
    name = config["init_args"].get("backbone")
    if name in made:
        name = made[name].get("model", {}).get("init_args", {}).get("backbone")
    if not name or (":" not in name and not timm.is_model(name)):
        return
    arguments = check(AnomalibModule, config)
    layers = arguments.get("layers") or [arguments.get("layer")]
    check_layers(name, [layer for layer in layers if isinstance(layer, str)])
