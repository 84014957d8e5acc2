"""Sources of a backbone: a checkpoint or an exported folder, the network it is for, and what it states of itself."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg
from torch import Tensor, nn

from anomalib_spd.backbones.checkpoints import read_checkpoint
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.backbones.record import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Backbone,
    Provenance,
    check_types,
    plain_settings,
    read_config,
)
from anomalib_spd.backbones.registry import available, is_stock
from anomalib_spd.files import one_line

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

# timm's default record of an architecture is that of certain weights; these fields do not hold for others
OF_THE_WEIGHTS = {
    *("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load", "tag"),
    *("label_offset", "label_names", "label_descriptions"),
    *("license", "description", "origin_url", "paper_name", "paper_ids", "notes"),
}
# of these, and of "other", what is made may have another licence
_PERMISSIVE = re.compile(r"apache-2\.0|mit|isc|zlib|unlicense|cc0-1\.0|bsd(-[23]-clause)?|other")


class Network:
    """What timm needs to build a network.

    Args:
        architecture: timm's own name.
        model_args: of its entry point; the number of classes is left out.
        record: timm's: input size, statistics, names of the first convolution and of the classifier. Fields that hold for
            certain weights are left out.
    """

    def __init__(self, architecture: str, model_args: dict[str, Any], record: dict[str, Any]) -> None:
        self.architecture = architecture
        self.model_args = {key: value for key, value in model_args.items() if key != "num_classes"}
        self.record = {key: value for key, value in record.items() if key not in OF_THE_WEIGHTS}

    @property
    def statistics(self) -> Statistics:
        """Mean and standard deviation in the record."""
        return tuple(self.record["mean"]), tuple(self.record["std"])

    def of_three_channels(self) -> "Network":
        """Return the network for images of three channels, where it is for one."""
        args = {key: value for key, value in self.model_args.items() if key != "in_chans"}
        record = dict(self.record)
        for key in ("mean", "std"):
            record[key] = tuple(record[key]) * 3 if len(record[key]) == 1 else record[key]
        record["input_size"] = (3, *record["input_size"][1:])
        return Network(self.architecture, args, record)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments for ``timm.create_model(architecture, ...)``."""
        return self.model_args | {"pretrained_cfg": self.record | {"architecture": self.architecture}}


@dataclass(frozen=True)
class Source:
    """A file of weights and what it states of them; what it does not state is ``None`` or empty.

    Args:
        file: that the tensors were read from.
        tensors: by the file's own names.
        network: that the tensors are for.
        statistics: mean and standard deviation that the weights were trained with.
        provenance: origin of the weights.
        license_id: SPDX identifier of the weights' licence.
        origin_url: where the weights were published.
    """

    file: Path
    tensors: dict[str, Tensor]
    network: Network | None = None
    statistics: Statistics | None = None
    provenance: Provenance = field(default_factory=Provenance)
    license_id: str | None = None
    origin_url: str | None = None


def find_network(name: str) -> Network:
    """Return the network of a backbone in the registry, or of an architecture of timm's, with or without a tag.

    Raises:
        ValueError: where there is neither, with the nearest names there are.
    """
    registered = available()
    if name in registered:
        backbone = registered[name]
        return Network(backbone.architecture, backbone.model_args, backbone.pretrained_cfg)
    if not is_stock(name):
        near = ", ".join(difflib.get_close_matches(name, sorted({*registered, *timm.list_models()}), n=5)) or "none"
        raise ValueError(
            f"Unknown architecture {name!r}: expected a name of timm's or of the registry. Near it: {near}. "
            "`timm.list_models()` lists all."
        )
    try:
        record = timm.get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError as error:
        msg = f"{name!r}: {error} Give the architecture without its tag, {name.partition('.')[0]!r}."
        raise ValueError(msg) from error
    return Network(name.partition(".")[0], {}, record.to_dict())


def source_of(weights: nn.Module | Mapping[str, Tensor]) -> Source:
    """Return the source of a network in memory, or of its ``state_dict()``; a network of timm's says what it is.

    Raises:
        ValueError: where timm does not know the network that it says it is.
        TypeError: for what is neither.
    """
    if isinstance(weights, nn.Module):
        tensors, record = weights.state_dict(), getattr(weights, "pretrained_cfg", None) or {}
    else:
        tensors, record = dict(weights), {}
    if wrong := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
        raise TypeError(f"Expected a state_dict of tensors. Got {type(tensors[wrong[0]]).__name__} as {wrong[0]!r}.")
    file = Path("the network given" if isinstance(weights, nn.Module) else "the tensors given")
    if not record.get("architecture"):
        return Source(file, tensors)
    return Source(file, tensors, find_network(record["architecture"]), (tuple(record["mean"]), tuple(record["std"])))


def read_source(path: Path, *, network_is_given: bool = False, key: str | None = None) -> Source:
    """Read a checkpoint file, or a folder with ``config.json`` and ``model.safetensors``.

    Args:
        path: file or folder.
        network_is_given: do not look up the network that a checkpoint names.
        key: of the part of a checkpoint file to read; see :func:`~anomalib_spd.backbones.checkpoints.read_checkpoint`.

    Raises:
        ValueError: where it is damaged, or names a network that is unknown here.
        OSError: where it cannot be read.
    """
    if path.is_dir():
        return _read_folder(path, network_is_given)
    tensors, settings = read_checkpoint(path, key)
    backbone = settings.get("backbone")
    if not isinstance(backbone, str):
        return Source(path, tensors)
    try:
        network = None if network_is_given else find_network(backbone)
    except ValueError as error:
        msg = f"The checkpoint was trained from backbone {backbone!r}, unknown here. Give the architecture. ({error})"
        raise ValueError(msg) from error
    return Source(
        path,
        tensors,
        network,
        # every training of this package normalizes with them
        statistics=(IMAGENET_MEAN, IMAGENET_STD),
        provenance=Provenance(
            method=str(settings.get("_class_path", "")).rpartition(".")[-1],
            settings=plain_settings({key: value for key, value in settings.items() if not key.startswith("_")}),
        ),
        license_id=_inherited_license(backbone) if settings.get("pretrained", True) else None,
    )


def _inherited_license(base: str) -> str | None:
    """Return the licence of a training's base, unless that lets the user choose one for what is made of it."""
    if base in (registered := available()):
        license_id: str | None = registered[base].license
    else:
        license_id = cfg.license if is_stock(base) and (cfg := timm.get_pretrained_cfg(base)) else None
    return None if license_id and _PERMISSIVE.fullmatch(license_id) else license_id


def _read_folder(folder: Path, network_is_given: bool) -> Source:
    """Read a folder of ours or of timm's ``save_for_hf``; of transformers, the weights alone."""
    file = folder / WEIGHTS_FILE
    try:
        config = read_config(folder)
        if network_is_given and "architecture" not in config:  # such as transformers'
            return Source(file, read_checkpoint(file)[0])
        # timm's older folders have the record at the top
        record = dict(config.get("pretrained_cfg", config))
        known = {each.name for each in fields(PretrainedCfg)}
        cfg = PretrainedCfg(**{key: record[key] for key in known & record.keys()}).to_dict()
        model_args = config.get("model_args", {})
        check_types(cfg | {"architecture": config["architecture"], "model_args": model_args})
        stated = find_network(config["architecture"])
        network = Network(stated.architecture, stated.model_args | model_args, cfg)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            one_line(
                f"{folder} is not an exported backbone ({type(error).__name__}: {error}). Expected a folder with timm's "
                f"{CONFIG_FILE} and {WEIGHTS_FILE}, or give the architecture for one of transformers."
            )
        ) from error
    provenance = Provenance()
    if "anomalib_spd" in config:
        backbone = Backbone.read(folder)
        backbone.verify()
        provenance = backbone.provenance
    tensors, _ = read_checkpoint(file)
    texts = (one_line(cfg.get(field) or "") or None for field in ("license", "origin_url"))
    return Source(file, tensors, network, network.of_three_channels().statistics, provenance, *texts)
