"""Puts every backbone of the catalogue and of the user's own shelf on timm's shelf, under its name.

Nothing in anomalib is touched: its detectors ask ``timm.create_model(name)``, and timm finds an entry of ours, which
hands over to timm's own entry point of the architecture with our weights. What comes back is a stock timm model.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs
from timm.models import DefaultCfg, generate_default_cfgs, is_model, model_entrypoint, register_model
from torch import nn

from .catalog import CATALOG_FOLDER, Backbone

__all__ = ["available", "find", "register", "shelf_folder"]

HOME_VARIABLE = "ANOMALIB_SPD_HOME"

# timm's register_model looks here, in the module of the entry points, for their weights
default_cfgs: dict[str, DefaultCfg] = {}


def shelf_folder() -> Path:
    """Return the user's shelf: ``$ANOMALIB_SPD_HOME``, or ``anomalib_spd`` in the platform's folder for user data."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).expanduser() if home else platformdirs.user_data_path("anomalib_spd", appauthor=False)


def available() -> dict[str, Backbone]:
    """Return every backbone by name: the catalogue's, then the user's own.

    A folder that is not a backbone's, or cannot be read, is passed over with a warning: one bad folder must not keep the
    package from being imported.
    """
    found = {folder.name: Backbone.read(folder) for folder in _folders(CATALOG_FOLDER)}
    try:
        own = _folders(shelf_folder())
    except OSError as error:
        warnings.warn(f"The shelf {shelf_folder()} cannot be read: {error}", stacklevel=2)
        own = []
    for folder in own:
        if folder.name in found:
            warnings.warn(f"{folder} is passed over: the catalogue has a backbone of that name.", stacklevel=2)
            continue
        try:
            found[folder.name] = Backbone.read(folder)
        except ValueError as error:
            warnings.warn(f"Passed over: {error}", stacklevel=2)
    return found


def find(name: str) -> Backbone:
    """Return the backbone of a name.

    Raises:
        ValueError: where there is none, with the names there are.
    """
    backbones = available()
    if name not in backbones:
        msg = f"There is no backbone {name!r} on the shelf. There are: {', '.join(backbones)}."
        raise ValueError(msg)
    return backbones[name]


def register() -> None:
    """Register every available backbone with timm; again after the shelf has changed.

    ``ARCH.TAG`` becomes a tag of the model ``ARCH``, as timm's own names are read.
    """
    by_model: dict[str, dict[str, Backbone]] = defaultdict(dict)
    for name, backbone in available().items():
        model_name, _, tag = name.partition(".")
        by_model[model_name][tag] = backbone
    for model_name, backbones in by_model.items():
        if is_model(model_name) and model_name not in default_cfgs:
            warnings.warn(f"Backbone {model_name!r} is passed over: timm has a model of that name.", stacklevel=2)
            continue
        _register_model(model_name, backbones)


def _register_model(model_name: str, backbones: dict[str, Backbone]) -> None:
    cfgs = {f"{model_name}.{tag}" if tag else model_name: b.timm_cfg(tag or None) for tag, b in backbones.items()}
    default_cfgs.update(generate_default_cfgs(cfgs))
    default_tag = default_cfgs[model_name].tags[0]

    def entrypoint(pretrained: bool = False, pretrained_cfg: Any = None, **kwargs: Any) -> nn.Module:
        tag = default_tag if pretrained_cfg is None else pretrained_cfg
        if isinstance(tag, str):
            if tag not in backbones:
                known = ", ".join(sorted(f"{model_name}.{t}" if t else model_name for t in backbones))
                msg = f"There is no backbone '{model_name}.{tag}' on the shelf. There are: {known}."
                raise ValueError(msg)
            backbone = backbones[tag]
            pretrained_cfg = backbone.timm_cfg(tag or None).to_dict()
            if pretrained:
                backbone.verify()
        else:  # a whole record given by the caller, which then names its own weights
            backbone = backbones[default_tag]
        create = model_entrypoint(backbone.architecture)
        model: nn.Module = create(pretrained=pretrained, pretrained_cfg=pretrained_cfg, **backbone.model_args | kwargs)
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = model_name
    entrypoint.__doc__ = f"Backbone {model_name!r} of the anomalib_spd shelf, a stock timm model."
    _publish(entrypoint)


def _publish(entrypoint: Callable[..., nn.Module]) -> None:
    globals()[entrypoint.__name__] = entrypoint
    with warnings.catch_warnings():
        # timm has no way to renew an entry but to overwrite it, and warns: here it is ours that is renewed
        warnings.filterwarnings("ignore", message=f"Overwriting {entrypoint.__name__} in registry", category=UserWarning)
        register_model(entrypoint)


def _folders(parent: Path) -> list[Path]:
    """List the backbones' folders; a leading dot marks one that is being written or removed."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))
