"""Adds backbones to the user's registry, removes them, and exports them."""

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from anomalib_spd.backbones.card import card_data, card_text
from anomalib_spd.backbones.export import write_folder
from anomalib_spd.backbones.feature_layers import describe_layers
from anomalib_spd.backbones.fitting import check_output, fit
from anomalib_spd.backbones.names import check_free, check_name
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD, fold_input_statistics
from anomalib_spd.backbones.record import (
    CARD_FILE,
    CONFIG_FILE,
    NAME_PATTERN,
    WEIGHTS_FILE,
    Backbone,
    leave_out_folders,
    plain_settings,
)
from anomalib_spd.backbones.registry import find, register, registry_folder
from anomalib_spd.backbones.sources import Network, Source, Statistics, find_network, read_source, source_of
from anomalib_spd.backbones.transformers import build_empty, check_routing
from anomalib_spd.files import HOME_VARIABLE, atomic_folder, hidden_path, is_disk_full, sha256_of


def add(
    name: str,
    checkpoint: str | Path | nn.Module | Mapping[str, Tensor],
    architecture: str | None = None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    sha256: str | None = None,
    license_id: str | None = None,
    origin_url: str | None = None,
    settings: Mapping[str, Any] | None = None,
    data: str = "",
    recipe: str = "",
    command: str = "",
    description: str = "",
) -> Backbone:
    """Add a backbone to the user's registry, all of it or nothing, and register it with timm.

    What is not given is taken from the checkpoint, where that states it.

    Args:
        name: ``NAME`` or ``NAME.TAG``, what detectors will be given.
        checkpoint: file with the network's tensors, whatever stands before their names, or a folder with timm's
            ``config.json`` and ``model.safetensors``, or one of transformers with ``model.safetensors``; or a network or
            its ``state_dict()``, in memory.
        architecture: name of timm's, or of the registry. May be left out for a folder, for a Lightning checkpoint of this
            package and for a network of timm's, which name it themselves.
        mean: three means of images in ``[0, 1]`` that the weights were trained with, where they are not ImageNet's.
        std: three standard deviations, with ``mean``.
        key: of the part of a checkpoint file that holds the network, such as ``"teacher"``; by default it is found.
        prefix: what stands before the names of the network's tensors, such as ``"backbone."``; by default it is found.
        sha256: of the checkpoint (of a folder's ``model.safetensors``), 64 hexadecimal digits, to be compared.
        license_id: SPDX identifier of the weights' licence; ``"other"`` where the checkpoint states none.
        origin_url: where the weights were published.
        settings: of the training, see :class:`Provenance`.
        data: images that the weights were trained on, and their licence.
        recipe: how they were trained, in a line.
        command: command line that made the backbone.
        description: first paragraph of the model card.

    Returns:
        The backbone in the registry.

    Raises:
        ValueError: where the name is taken or cannot be one, the architecture is unknown, the file is damaged, does not
            fit, gives NaN or is not the one meant.
        OSError: where the checkpoint cannot be read, or the registry not be written.
    """
    check_name(name)
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std go together, got mean={mean} and std={std}. Give both.")
    network = None if architecture is None else find_network(architecture)
    if isinstance(checkpoint, str | Path):
        path = Path(checkpoint)
        checksum = _check_sha256(path / WEIGHTS_FILE if path.is_dir() else path, sha256)
        source = read_source(path, network_is_given=network is not None, key=key)
    elif sha256 or key:
        raise ValueError("sha256 and key are of a checkpoint file. Leave them out for what is in memory.")
    else:
        checksum, source = "", source_of(checkpoint)
    network = network or source.network
    if network is None:
        raise ValueError(
            f"{source.file} does not say which network it is for. Give the architecture, such as 'resnet18'."
        )
    if (channels := network.model_args.get("in_chans", 3)) not in (1, 3):
        raise ValueError(f"{source.file} is for images of {channels} channels. anomalib's have 3, and 1 is repeated.")
    network = network.of_three_channels()

    model, changes = fit(source.tensors, network.architecture, prefix=prefix, **network.arguments)
    check_routing(name, model)
    statistics = _statistics(source, network) if mean is None or std is None else (tuple(mean), tuple(std))
    known = source.provenance
    notes = [recipe or known.recipe, *changes]
    if statistics != (IMAGENET_MEAN, IMAGENET_STD):
        fold_input_statistics(model, *statistics)
        mean, std = map(list, statistics)
        notes.append(f"input statistics mean={mean}, std={std} folded into the first convolution")
    check_output(model)
    describe_layers(network.architecture, network.model_args)  # fails before anything is written

    with _new_entry(name) as folder:
        write_folder(
            model,
            folder,
            name,
            network.architecture,
            replace(
                known,
                settings=known.settings if settings is None else plain_settings(settings),
                data=data or known.data,
                recipe="; ".join(filter(None, notes)),
                command=command or known.command,
                checkpoint=known.checkpoint or (source.file.name if checksum else ""),
                checkpoint_sha256=known.checkpoint_sha256 or checksum,
            ),
            model_args=network.model_args,
            license_id=license_id or source.license_id or "other",
            origin_url=origin_url or source.origin_url,
            description=description,
        )
    register()
    return find(name)


def check_addable(name: str, backbone: str | None = None) -> None:
    """Check, before a training, that what it will have made of a backbone can be added; see :func:`add`.

    Args:
        name: that it will have.
        backbone: that is trained, by its name in the registry or in timm; None leaves that part out.

    Raises:
        ValueError: where the name is taken or cannot be one, or detectors could not read the backbone under it.
        OSError: where the registry cannot be written.
    """
    check_name(name)
    if backbone is not None:
        network = find_network(backbone)
        check_routing(name, build_empty(network.architecture, **network.model_args))
        describe_layers(network.architecture, network.model_args)
    probe = hidden_path(registry_folder() / name)
    try:
        probe.mkdir(parents=True)
        probe.rmdir()
    except OSError as error:
        raise _registry_error(error) from error


def remove(name: str) -> None:
    """Remove a backbone from the user's registry, and delete its folder.

    Raises:
        ValueError: where the user's registry has none of that name.
        OSError: where the registry cannot be written.
    """
    folder = registry_folder() / name
    # a broken folder can be removed too: it is not read unless the name is missing
    if not NAME_PATTERN.fullmatch(name) or not os.path.lexists(folder):
        found = find(name).folder
        raise ValueError(f"Backbone {name!r} belongs to the package ({found}) and stays. Only your own can be removed.")
    removed = hidden_path(folder)
    try:
        folder.rename(removed)  # in one step: no process sees half a folder
    except OSError as error:
        raise _registry_error(error) from error
    register()
    if removed.is_symlink():
        removed.unlink()
    else:
        shutil.rmtree(removed)


def export(name: str, folder: str | Path) -> Path:
    """Copy a backbone into a folder that works without this package, as ``local-dir:FOLDER``.

    Of the absolute paths in its record and card, such as those of the command that made it, the last parts are copied. The
    card's metadata are written anew, as the Hugging Face hub reads them: ``hf upload USER/NAME FOLDER`` takes the folder.

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
    _check_empty(target)
    try:
        with atomic_folder(target) as temporary:
            for file in (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE):
                if (backbone.folder / file).is_file():
                    # contents alone: the modes are those of the target's owner, not those of the registry
                    shutil.copyfile(backbone.folder / file, temporary / file)
            leave_out_folders(temporary)
            _renew_card(temporary, name)
    except OSError as error:
        _check_empty(target)  # another process was faster
        msg = f"Cannot write {target}: {error.strerror or error}. Give a folder that you may write to."
        raise type(error)(msg) from error
    try:
        check_routing(f"local-dir:{target}", build_empty(backbone.architecture, **backbone.model_args))
    except ValueError as error:
        warnings.warn(f"{error} Move the folder, or give a relative path.", stacklevel=2)
    return target


def _renew_card(folder: Path, name: str) -> None:
    """Write the card's metadata as the record has them, and the whole card where a copied folder came without one."""
    from huggingface_hub import metadata_save  # not before it is needed: who names a backbone writes no card

    backbone = Backbone.read(folder)
    card = folder / CARD_FILE
    if card.is_file():
        metadata_save(card, card_data(backbone, name).to_dict())
    else:
        card.write_text(card_text(backbone, name, ""), encoding="utf-8")


@contextmanager
def _new_entry(name: str) -> Iterator[Path]:
    """Yield a folder to fill, which becomes the registry's entry of a name when the block ends without an error.

    Raises:
        ValueError: where another process has taken the name meanwhile.
        OSError: where the registry cannot be written.
    """
    try:
        with atomic_folder(registry_folder() / name) as folder:
            yield folder
    except (OSError, SafetensorError) as error:
        check_free(name)  # another process was faster
        raise _registry_error(error) from error


def _registry_error(error: Exception) -> OSError:
    """Return the error to raise where the registry cannot be written."""
    reason = error.strerror if isinstance(error, OSError) else None
    if is_disk_full(error):
        return OSError(f"Cannot write to the registry {registry_folder()}: {reason or error}. Make room there.")
    msg = (
        f"Cannot write to the registry {registry_folder()}: {reason or error}. Set {HOME_VARIABLE} to a folder that you "
        "may write to."
    )
    return PermissionError(msg) if isinstance(error, PermissionError) else OSError(msg)


def _check_empty(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder. Give another, or delete it first.")


def _check_sha256(file: Path, expected: str | None) -> str:
    if file.exists() and not file.is_file():  # reading a pipe or a device would not end
        raise ValueError(f"{file} is no file. Give a checkpoint file or an exported folder.")
    try:
        found = sha256_of(file)
    except OSError as error:
        msg = f"Cannot read {file}: {error.strerror or error}. Give a checkpoint file or an exported folder."
        if (other := file.with_name("pytorch_model.bin")).is_file():
            msg = f"There is no {file.name} in {file.parent}. Give its file {other.name} instead of the folder."
        raise type(error)(msg) from error
    if expected is not None and expected.lower() != found:
        msg = f"{file} has sha256 {found}, expected {expected}: it is damaged or another file. Get it again."
        raise ValueError(msg)
    return found


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
