"""Puts backbones on the user's shelf, takes them off, and copies them out."""

import os
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import timm
from timm.models import VisionTransformer

from anomalib_spd.backbones.checkpoints import fit
from anomalib_spd.backbones.export import write_folder
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD, fold_input_statistics
from anomalib_spd.backbones.placing import (
    NAME_PATTERN,
    check_name,
    check_routing,
    new_on_shelf,
    shelf_error,
    transformer_words,
)
from anomalib_spd.backbones.record import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, Backbone, describe_layers
from anomalib_spd.backbones.registry import find, register, registry_folder
from anomalib_spd.backbones.sources import Network, Source, Statistics, find_network, read_source
from anomalib_spd.files import atomic_folder, hidden_path, sha256_of


def add(
    name: str,
    checkpoint: str | Path,
    architecture: str | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    sha256: str | None = None,
    license_id: str | None = None,
    origin_url: str | None = None,
    data: str = "",
    recipe: str = "",
    command: str = "",
    description: str = "",
) -> Backbone:
    """Put a backbone on the user's shelf, and register it. Either all of it is written or nothing.

    Args:
        name: ``NAME`` or ``NAME.TAG``, what detectors will be given.
        checkpoint: file in one of the layouts of :data:`anomalib_spd.backbones.checkpoints.LAYOUTS`, or a folder with
            timm's ``config.json`` and ``model.safetensors``.
        architecture: name of timm's, or of the shelf. May be left out for a folder and for a Lightning checkpoint of
            this package, which name it themselves.
        mean: three means of images in ``[0, 1]`` that the weights were trained with, where they are not ImageNet's.
        std: three standard deviations, with ``mean``.
        sha256: of the checkpoint (of a folder's ``model.safetensors``), 64 hexadecimal digits, to be compared.
        license_id: SPDX identifier of the weights' licence; by default what a folder states, or ``"other"``.
        origin_url: where the weights were published.
        data: images that the weights were trained on, and their licence.
        recipe: how they were trained, in a line.
        command: what made the backbone.
        description: what the model card says first.

    Returns:
        The backbone as it stands on the shelf.

    Raises:
        ValueError: where the name is taken or cannot be one, the architecture is unknown, the file is damaged, does not
            fit or is not the one meant.
        OSError: where the checkpoint cannot be read, or the shelf not be written.
    """
    check_name(name)
    if (mean is None) != (std is None):
        msg = f"mean and std go together, got mean={mean} and std={std}. Give both."
        raise ValueError(msg)
    network = None if architecture is None else find_network(architecture)
    path = Path(checkpoint)
    checksum = _check_sha256(path / WEIGHTS_FILE if path.is_dir() else path, sha256)
    source = read_source(path, network_is_given=network is not None)
    network = network or source.network
    if network is None:
        msg = f"{source.file} does not say which network it is for. Give the architecture, such as 'resnet18'."
        raise ValueError(msg)
    if network.model_args.get("in_chans", 3) != 3:
        msg = f"{source.file} is for images of {network.model_args['in_chans']} channels. anomalib's have 3."
        raise ValueError(msg)

    model = fit(source.tensors, network.architecture, **network.arguments)
    check_routing(name, model)
    mean_std = _statistics(source, network) if mean is None or std is None else (tuple(mean), tuple(std))
    folded = mean_std != (IMAGENET_MEAN, IMAGENET_STD)
    if folded:
        fold_input_statistics(model, *mean_std)
    _check_layers(network)

    known = source.provenance
    notes = [recipe or known.recipe]
    if folded:
        notes += [
            f"input statistics mean={list(mean_std[0])}, std={list(mean_std[1])} folded into the first convolution"
        ]
    with new_on_shelf(name) as folder:
        write_folder(
            model,
            folder,
            name,
            network.architecture,
            replace(
                known,
                data=data or known.data,
                recipe="; ".join(filter(None, notes)),
                command=command or known.command,
                checkpoint=f"{source.file.name}, sha256 {checksum}"
                + (f"; itself from {known.checkpoint}" if known.checkpoint else ""),
            ),
            model_args=network.model_args,
            license_id=license_id or source.license_id or "other",
            origin_url=origin_url or source.origin_url,
            description=description,
        )
    register()
    return find(name)


def remove(name: str) -> None:
    """Take a backbone off the user's shelf and delete its folder.

    Raises:
        ValueError: where there is none of that name on the user's shelf.
        OSError: where the shelf cannot be written.
    """
    folder = registry_folder() / name
    # a broken folder can be removed too, so it is not looked up but where there is none
    if not NAME_PATTERN.fullmatch(name) or not os.path.lexists(folder):
        found = find(name).folder
        msg = f"Backbone {name!r} belongs to the package ({found}) and stays. Only your own can be removed."
        raise ValueError(msg)
    removed = hidden_path(folder)
    try:
        folder.rename(removed)  # off the shelf at once: nobody sees half a folder
    except OSError as error:
        raise shelf_error(error) from error
    register()
    if removed.is_symlink():
        removed.unlink()
    else:
        shutil.rmtree(removed)


def export(name: str, folder: str | Path) -> Path:
    """Copy a backbone into a folder that works without this package, as ``local-dir:FOLDER``.

    Args:
        name: of a backbone of the catalogue or of the user's own.
        folder: is made; may exist if it is empty.

    Returns:
        The folder, absolute.

    Raises:
        ValueError: where there is no such backbone, its weights are damaged, or the folder is not empty.
        OSError: where the folder cannot be written.
    """
    backbone = find(name)
    backbone.verify()
    target = Path(folder).absolute()
    _refuse_filled(target)
    try:
        with atomic_folder(target) as temporary:
            for file in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
                if (backbone.folder / file).is_file():
                    # contents alone: the modes are those of the target's owner, not those of the shelf
                    shutil.copyfile(backbone.folder / file, temporary / file)
    except OSError as error:
        _refuse_filled(target)  # another process was faster
        msg = f"Cannot write {target}: {error.strerror or error}. Give a folder that you may write to."
        raise type(error)(msg) from error
    if words := transformer_words(str(target)):
        model = timm.create_model(backbone.architecture, **backbone.model_args)
        if not isinstance(model, VisionTransformer):
            warnings.warn(
                f"The path {target} contains {words[0]!r}: anomalib takes the backbone at 'local-dir:{target}' for a "
                "transformer, and fails. Move the folder to a path without it, or give a relative path without it.",
                stacklevel=2,
            )
    return target


def _refuse_filled(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        msg = f"{folder} exists and is not an empty folder. Give another, or delete it first."
        raise ValueError(msg)


def _check_sha256(file: Path, expected: str | None) -> str:
    try:
        found = sha256_of(file)
    except OSError as error:
        msg = f"Cannot read {file}: {error.strerror or error}. Give a checkpoint file or an exported folder."
        raise type(error)(msg) from error
    if expected is not None and expected.lower() != found:
        msg = f"{file} has sha256 {found}, expected {expected}: it is damaged or another file. Get it again."
        raise ValueError(msg)
    return found


def _check_layers(network: Network) -> None:
    try:
        describe_layers(network.architecture, network.model_args)
    except (RuntimeError, AttributeError, TypeError) as error:
        msg = f"timm gives no feature maps of {network.architecture} ({error}), so no detector could read them."
        raise ValueError(msg) from error


def _statistics(source: Source, network: Network) -> Statistics:
    """Return the statistics that the weights were trained with: what the source states, or else ImageNet's."""
    if source.statistics is not None:
        return source.statistics
    if network.statistics != (IMAGENET_MEAN, IMAGENET_STD):
        mean, std = (" ".join(f"{value:g}" for value in values) for values in network.statistics)
        warnings.warn(
            f"ImageNet's mean and std are assumed for {source.file.name}, but timm's own weights of "
            f"{network.architecture} were trained with others. If yours were too, remove the backbone and add it again "
            f"with mean {mean} and std {std} (--mean {mean} --std {std}).",
            stacklevel=3,
        )
    return IMAGENET_MEAN, IMAGENET_STD
