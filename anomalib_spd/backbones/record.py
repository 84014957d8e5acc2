"""The record of a backbone: what is known of one folder of weights.

A backbone is a folder ``NAME/{config.json, model.safetensors, README.md}``. ``config.json`` is timm's own format, so the folder
also works without this package (``local-dir:FOLDER``); what timm has no field for is under the key ``anomalib_spd``. The folders
in ``weights/`` ship in the wheel; to add a backbone to the catalogue, add its folder.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg

from anomalib_spd.files import one_line, sha256_of

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

CATALOG_FOLDER = Path(__file__).parent / "weights"

NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)?")

# bytes; one with the names of ImageNet-21k's classes has two million
_LARGEST_CONFIG = 2**24
# the folders of an absolute path, or of one from home, in a command line, a recipe or a setting
_FOLDERS = re.compile(
    r"""(?<![^\s'"`=:,(\[])(?:(?:file://)?/(?=[^\s/])|~[^\s/]*/|[A-Za-z]:[\\/]|\\\\)(?:[^\s'"`,:)\]/\\]*[\\/])*"""
)


@dataclass(frozen=True)
class Provenance:
    """The origin of a backbone's weights; fields that are unknown are empty.

    Two fields identify a training. Whether a backbone is the outcome of one run: compare ``checkpoint_sha256`` with the
    SHA-256 of the run's checkpoint. Whether it was made as a recipe says: :meth:`has_settings`. Text fields are for people and
    are not compared.

    Args:
        sha256: of ``model.safetensors``, hexadecimal.
        method: class name of the training, such as ``"CrossImageSPD"``.
        settings: what decides the training's outcome, as JSON: at least the arguments of the method.
        data: images that the weights were trained on, and their licence.
        recipe: in a line, what ``method`` and ``settings`` do not say.
        command: command line that made the backbone.
        checkpoint: name of the file that the weights were read from.
        checkpoint_sha256: of that file, hexadecimal.
        figures: of detectors with these weights, on images that they have not seen; each a mapping with the arguments of
            ``huggingface_hub.EvalResult``.
    """

    sha256: str = ""
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    recipe: str = ""
    command: str = ""
    checkpoint: str = ""
    checkpoint_sha256: str = ""
    figures: Sequence[Mapping[str, Any]] = ()

    def has_settings(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the weights were trained with these settings, compared as JSON, without the folders of paths."""
        return bool(_without_folders(self.settings) == _without_folders(plain_settings(settings)))

    def summary(self) -> str:
        """Return method, settings and recipe in one line; empty where none is known."""
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        trained = ": ".join(filter(None, [self.method, settings]))
        return one_line("; ".join(filter(None, [trained, self.recipe])))

    def made_from(self) -> str:
        """Return name and SHA-256 of the file that the weights were read from; empty where it is not known."""
        return ", sha256 ".join(filter(None, [self.checkpoint, self.checkpoint_sha256]))

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known, as JSON holds them."""
        return {key: value for key, value in asdict(self).items() if value}


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON holds them; what JSON cannot hold becomes its text."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings), default=str))
    return plain


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    return without_folders(value) if isinstance(value, str) else value


def without_folders(text: str) -> str:
    """Return text with the last parts alone of the absolute paths in it."""
    return _FOLDERS.sub("", text)


def leave_out_folders(folder: Path) -> None:
    """Leave the folders of this machine out of an exported record and its card."""
    config = read_config(folder)
    config["anomalib_spd"]["provenance"] = _without_folders(config["anomalib_spd"]["provenance"])
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if (card := folder / CARD_FILE).is_file():
        card.write_text(without_folders(card.read_text(encoding="utf-8")), encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``, whatever is there.

    Raises:
        ValueError: where it is missing, no file, too large, or not a mapping in JSON; the message is one line.
    """
    file = folder / CONFIG_FILE
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for ever
            raise ValueError("it is no file")
        if file.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it is larger than {_LARGEST_CONFIG} bytes")
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError("it is no mapping")
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(one_line(f"{CONFIG_FILE}: {type(error).__name__}: {error}")) from error
    return config


def check_types(fields: Mapping[str, Any]) -> None:
    """Check the types of a record's fields, which timm and detectors take as they are.

    Args:
        fields: by their names; unknown ones are left alone.

    Raises:
        ValueError: where one has another type; the message names it.
    """
    for name, value in fields.items():
        expected, is_right = _TYPES.get(name, ("", None))
        if is_right is not None and not is_right(value):
            raise ValueError(f"{name} is {str(value)[:100]!r}, expected {expected}")


def _is_integer(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are(is_right: Callable[[Any], bool], value: Any, number: int | None = None) -> bool:
    return isinstance(value, list | tuple) and len(value) == (number or len(value)) and all(map(is_right, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"[\w.]+", value))


def _are_arguments(value: Any) -> bool:
    # what decides where timm takes weights from is no part of an architecture
    others = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "features_only"}
    return isinstance(value, dict) and others.isdisjoint(value)


def _is_figure(value: Any) -> bool:
    needed = {"task_type", "dataset_type", "dataset_name", "metric_type", "metric_value"}
    known = needed | {"task_name", "dataset_config", "metric_name"}
    return (
        isinstance(value, dict)
        and needed <= value.keys() <= known
        and all(_is_number(each) if key == "metric_value" else isinstance(each, str) for key, each in value.items())
    )


_TEXT = ("text", lambda value: isinstance(value, str))
_TEXT_OR_NONE = ("text", lambda value: value is None or isinstance(value, str))
_NUMBERS = ("one number per channel", lambda value: _are(_is_number, value, 3) or _are(_is_number, value, 1))
_SIZE = ("three positive whole numbers", lambda value: _are(_is_integer, value, 3))
_SIZE_OR_NONE = (_SIZE[0], lambda value: value is None or _are(_is_integer, value, 3))
_MODULES = ("names of modules", lambda value: value is None or _is_name(value) or _are(_is_name, value))
#: field of a record -> what it has to be, in words, and the test
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("method", "data", "recipe", "command", "checkpoint", "checkpoint_sha256", "sha256"), _TEXT),
    **dict.fromkeys(("license", "origin_url", "interpolation", "crop_mode", "description"), _TEXT_OR_NONE),
    **dict.fromkeys(("mean", "std"), _NUMBERS),
    **dict.fromkeys(("test_input_size", "min_input_size"), _SIZE_OR_NONE),
    "input_size": _SIZE,
    **dict.fromkeys(("first_conv", "classifier"), _MODULES),
    "architecture": ("a name of timm's", lambda value: _is_name(value) and "." not in value),
    "layers": ("names of modules", lambda value: bool(value) and _are(_is_name, value)),
    "n_features": ("a positive whole number", _is_integer),
    "num_classes": ("a whole number", lambda value: _is_integer(value, 0)),
    "figures": ("figures with the arguments of EvalResult", lambda value: _are(_is_figure, value)),
    "settings": ("a mapping", lambda value: isinstance(value, dict)),
    "model_args": ("arguments of the architecture alone", _are_arguments),
    "crop_pct": ("a number", lambda value: value is None or _is_number(value)),
}


def _plain_text(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: one_line(value) if isinstance(value, str) else value for key, value in fields.items()}


@dataclass(frozen=True)
class Backbone:
    """The record of one backbone.

    Args:
        name: what detectors are given, ``ARCHITECTURE`` or ``ARCHITECTURE.TAG`` of our own.
        folder: holds its three files.
        architecture: timm's name of the network.
        pretrained_cfg: timm's record of the weights (statistics, input size, classes, licence, origin).
        model_args: arguments of the architecture's entry point that the weights need.
        layers: timm's names of the layers at strides 8 and 16, those that PatchCore reads.
        n_features: channels that PaDiM keeps of strides 4, 8 and 16.
        provenance: origin of the weights.
    """

    name: str
    folder: Path
    architecture: str
    pretrained_cfg: dict[str, Any]
    model_args: dict[str, Any]
    layers: tuple[str, ...]
    n_features: int
    provenance: Provenance

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.folder / WEIGHTS_FILE

    @property
    def usage(self) -> str:
        """The line that makes a detector on the backbone."""
        return f"Patchcore(backbone={json.dumps(self.name)}, layers={json.dumps(self.layers)})"

    @property
    def license(self) -> str:
        """SPDX identifier of the weights' licence, or ``"other"``."""
        return self.pretrained_cfg.get("license") or "other"

    @classmethod
    def read(cls, folder: Path) -> "Backbone":
        """Read a folder's record; the weights themselves are not opened. Text in it becomes lines without control characters.

        Raises:
            ValueError: where ``config.json`` is missing or not such a record.
        """
        try:
            config = read_config(folder)
            ours, pretrained_cfg = config["anomalib_spd"], config["pretrained_cfg"]
            backbone = cls(
                name=folder.name,
                folder=folder,
                architecture=config["architecture"],
                pretrained_cfg=_plain_text(pretrained_cfg | {"num_classes": config["num_classes"]}),
                model_args=config.get("model_args", {}),
                layers=tuple(ours["layers"]),
                n_features=ours["n_features"],
                provenance=Provenance(**_plain_text(ours["provenance"])),
            )
            check_types(
                {**backbone.provenance.to_json(), **backbone.pretrained_cfg}
                | {
                    "architecture": backbone.architecture,
                    "model_args": backbone.model_args,
                    "layers": backbone.layers,
                    "n_features": backbone.n_features,
                }
            )
            backbone.timm_cfg()  # a field that timm does not know fails here, not while names are registered
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            text = one_line(f"{folder} is not a backbone's folder: {type(error).__name__}: {error}")
            raise ValueError(text) from error
        return backbone

    def timm_cfg(self, tag: str | None = None) -> PretrainedCfg:
        """Return timm's record, with the weights of this folder and the stock architecture."""
        # what else timm would load before the file of this folder
        other_weights = dict.fromkeys(("url", "source", "state_dict", "hf_hub_id", "hf_hub_filename"))
        own = {"file": str(self.weights), "architecture": self.architecture, "tag": tag, "custom_load": False}
        return PretrainedCfg(**self.pretrained_cfg | other_weights | own)

    def verify(self) -> None:
        """Compare the weights with the checksum that was stored beside them.

        Raises:
            ValueError: where the file is missing, or was changed or damaged since.
            OSError: where it cannot be read.
        """
        if not self.weights.is_file():
            raise ValueError(f"The weights of backbone {self.name!r} are missing: there is no file {self.weights}.")
        found = sha256_of(self.weights)
        if found != self.provenance.sha256:
            raise ValueError(
                f"The weights of backbone {self.name!r} are not those that were put there: {self.weights} has sha256 "
                f"{found}, its config.json says {self.provenance.sha256}. Remove the backbone and add it again."
            )
