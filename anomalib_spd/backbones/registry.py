"""The registry: every backbone of the catalogue and of the user's own, registered with timm under its name.

Nothing in anomalib is touched: its detectors ask ``timm.create_model(name)``, and timm finds an entry of ours, which
delegates to timm's own entry point of the architecture with our weights. The result is a stock timm model.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from timm.models import (
    DefaultCfg,
    generate_default_cfgs,
    is_model,
    load_pretrained,
    model_entrypoint,
    register_model,
)
from torch import nn

from anomalib_spd.backbones.record import CATALOG_FOLDER, NAME_PATTERN, Backbone
from anomalib_spd.files import data_folder, data_folder_name, is_system_entry, one_line
from anomalib_spd.spelling import did_you_mean

__all__ = ["available", "find", "is_stock", "register", "registry_folder"]


# timm's register_model looks here, in the module of the entry points, for their weights
default_cfgs: dict[str, DefaultCfg] = {}


def registry_folder() -> Path:
    """Return the folder of the user's own backbones; see :func:`anomalib_spd.files.data_folder`."""
    return data_folder()


def available() -> dict[str, Backbone]:
    """Return every backbone by name: the catalogue's, then the user's own.

    A folder that is not a backbone's, or cannot be read, is skipped with a warning: one bad folder must not keep the
    package from being imported.
    """
    found, unusable = _read_all()
    _warn(unusable)
    return found


def find(name: str) -> Backbone:
    """Return the backbone of a name.

    Raises:
        ValueError: where there is none, with the names there are, or it cannot be used, with the reason.
    """
    found, unusable = _read_all()
    if name in found:
        return found[name]
    if name in unusable:
        raise ValueError(f"Backbone {name!r} cannot be used: {unusable[name]}")
    raise ValueError(
        f"There is no backbone {name!r} in the registry {data_folder_name()}{did_you_mean(name, found)}; it was removed, or never "
        "added. There are: "
        f"{', '.join(found)}."
    )


def _warn(unusable: dict[str, str]) -> None:
    for reason in unusable.values():
        warnings.warn(f"Skipped: {reason}", stacklevel=3)


def _read_all() -> tuple[dict[str, Backbone], dict[str, str]]:
    """Return the backbones by name, and by name the reason why others cannot be used; "" is the whole registry's."""
    found = {folder.name: Backbone.read(folder) for folder in _folders(CATALOG_FOLDER)}
    unusable: dict[str, str] = {}
    try:
        own = _folders(registry_folder())
    except OSError as error:
        return found, {"": f"The registry {data_folder_name()} cannot be read: {error}"}
    for folder in own:
        name = one_line(folder.name)
        if name in found:
            unusable[str(folder)] = f"{folder}: the catalogue has a backbone of that name."
        elif not NAME_PATTERN.fullmatch(folder.name):
            unusable[name] = one_line(f"{folder} has no name of a backbone, NAME or NAME.TAG. Rename it.")
        else:
            try:
                backbone = Backbone.read(folder)
            except ValueError as error:
                unusable[name] = str(error)
                continue
            if is_stock(backbone.architecture):
                found[name] = backbone
            else:
                unusable[name] = f"{folder} is of the architecture {backbone.architecture!r}, which timm does not have."
    return found, unusable


def is_stock(name: str) -> bool:
    """Return whether timm has an architecture of that name, a tag aside, that is not an entry of ours."""
    model_name = name.partition(".")[0]
    return is_model(model_name) and model_name not in default_cfgs


def register() -> None:
    """Register every available backbone with timm; call it again after another process has changed the registry.

    ``ARCH.TAG`` becomes a tag of the model ``ARCH``, as in timm's own names. timm cannot forget a name: one whose backbone
    was removed stays listed without weights, and creating it raises an error that says so.
    """
    by_model: dict[str, dict[str, Backbone]] = {model_name: {} for model_name in default_cfgs}
    found, unusable = _read_all()
    _warn(unusable)
    for name in unusable:
        # the name of one that cannot be used says so; timm itself would say that it is unknown
        if NAME_PATTERN.fullmatch(name) and not is_stock(name):
            by_model.setdefault(name.partition(".")[0], {})
    for name, backbone in found.items():
        model_name, _, tag = name.partition(".")
        if is_stock(model_name):
            warnings.warn(f"Backbone {name!r} is skipped: timm has a model {model_name!r}.", stacklevel=2)
            continue
        by_model.setdefault(model_name, {})[tag] = backbone
    public_names = list(__all__)
    with warnings.catch_warnings():
        # timm can renew an entry only by overwriting it, and warns: here it is ours that is renewed
        warnings.filterwarnings("ignore", message="Overwriting .* in registry", category=UserWarning)
        for model_name, backbones in by_model.items():
            register_model(_entrypoint(model_name, backbones))
    # timm adds each entry to the module's public names, but it is no attribute of this module: a backbone may be called
    # "find", as one of the functions here is
    __all__[:] = public_names


def _entrypoint(model_name: str, backbones: dict[str, Backbone]) -> Callable[..., nn.Module]:
    """Return timm's entry point of a model, whose backbones are given by tag, and set their default configurations."""
    names = {tag: f"{model_name}.{tag}" if tag else model_name for tag in backbones}
    cfgs = generate_default_cfgs({names[tag]: backbone.timm_cfg(tag or None) for tag, backbone in backbones.items()})
    default_cfgs[model_name] = cfgs.get(model_name, DefaultCfg())
    default_tag = default_cfgs[model_name].tags[0] if backbones else ""

    def entrypoint(pretrained: bool = False, pretrained_cfg: Any = None, **kwargs: Any) -> nn.Module:
        # a whole record from the caller names its own weights, and takes the architecture alone from here
        tag = pretrained_cfg if isinstance(pretrained_cfg, str) else default_tag
        # read again: another process may have removed the backbone and added another under its name
        backbone = find(f"{model_name}{tag and '.'}{tag}")
        create = model_entrypoint(backbone.architecture)
        if is_own := pretrained_cfg is None or isinstance(pretrained_cfg, str):
            pretrained_cfg = backbone.timm_cfg(tag or None).to_dict()
            if pretrained:
                backbone.verify()
        arguments = {"pretrained_cfg": pretrained_cfg, **backbone.model_args, **kwargs}
        try:
            if pretrained and is_own and kwargs.get("features_only"):
                return _features(create, backbone, arguments)
            model: nn.Module = create(pretrained=pretrained, **arguments)
        except Exception:
            _check_arguments(backbone)  # the record's arguments are to blame, or else the caller's
            raise
        return model

    entrypoint.__name__ = entrypoint.__qualname__ = model_name
    entrypoint.__doc__ = f"Backbone {model_name!r} of the anomalib_spd registry, a stock timm model."
    return entrypoint


def _features(create: Callable[..., nn.Module], backbone: Backbone, arguments: dict[str, Any]) -> nn.Module:
    """Return the network of feature maps with a backbone's weights.

    Some architectures, EfficientNet's among them, have a class of its own for it, without classifier and head. timm would load
    these nevertheless, and warn that they are unexpected.
    """
    generator = torch.get_rng_state()
    model = create(pretrained=False, **arguments)
    with safe_open(backbone.weights, "pt") as file:
        names = set(file.keys())
    if not model.state_dict().keys() <= names:  # timm gives its parts other names once they are loaded
        torch.set_rng_state(generator)
        return create(pretrained=True, **arguments)
    load_pretrained(
        model,
        arguments["pretrained_cfg"],
        num_classes=0,
        in_chans=arguments.get("in_chans", 3),
        filter_fn=lambda state, model: {name: state[name] for name in model.state_dict()},
    )
    return model


def _check_arguments(backbone: Backbone) -> None:
    """Check that timm can build a backbone's architecture with the arguments of its record.

    Raises:
        ValueError: where it cannot.
    """
    try:
        with torch.device("meta"):
            model_entrypoint(backbone.architecture)(pretrained=False, **backbone.model_args)
    except Exception as error:  # timm does not check them
        text = f"timm cannot build {backbone.architecture} with {backbone.model_args}: {type(error).__name__}: {error}"
        raise ValueError(one_line(f"Backbone {backbone.name!r} cannot be used: {text}")) from error


def _folders(parent: Path) -> list[Path]:
    """List the backbones' folders, without a system's own; a dot marks caches, and folders being written or removed."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not is_system_entry(path.name))
