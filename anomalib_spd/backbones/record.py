"""The record of a backbone: what is known of one folder of weights.

A backbone is a folder ``NAME/{config.json, model.safetensors, README.md}``. ``config.json`` is timm's own format, so the folder
also works without this package (``local-dir:FOLDER``); what timm has no field for is under the key ``anomalib_spd``. The folders
in ``weights/`` ship in the wheel; to add a backbone to the catalogue, add its folder.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg

from anomalib_spd.files import sha256_of

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

CATALOG_FOLDER = Path(__file__).parent / "weights"


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
    """

    sha256: str = ""
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    recipe: str = ""
    command: str = ""
    checkpoint: str = ""
    checkpoint_sha256: str = ""

    def has_settings(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the weights were trained with these settings, compared as JSON: a tuple equals a list."""
        return bool(self.settings == plain_settings(settings))

    def summary(self) -> str:
        """Return method, settings and recipe in one line; empty where none is known."""
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        trained = ": ".join(filter(None, [self.method, settings]))
        return "; ".join(filter(None, [trained, self.recipe]))

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
    def license(self) -> str:
        """SPDX identifier of the weights' licence, or ``"other"``."""
        return self.pretrained_cfg.get("license") or "other"

    @classmethod
    def read(cls, folder: Path) -> "Backbone":
        """Read a folder's record; the weights themselves are not opened.

        Raises:
            ValueError: where ``config.json`` is missing or not such a record.
        """
        try:
            config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            ours = config["anomalib_spd"]
            backbone = cls(
                name=folder.name,
                folder=folder,
                architecture=config["architecture"],
                pretrained_cfg=config["pretrained_cfg"] | {"num_classes": config["num_classes"]},
                model_args=dict(config.get("model_args", {})),
                layers=tuple(ours["layers"]),
                n_features=ours["n_features"],
                provenance=Provenance(**ours["provenance"]),
            )
            backbone.timm_cfg()  # a field that timm does not know fails here, not while names are registered
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder} is not a backbone's folder: {type(error).__name__}: {error}") from error
        return backbone

    def timm_cfg(self, tag: str | None = None) -> PretrainedCfg:
        """Return timm's record, with the weights of this folder and the stock architecture."""
        return PretrainedCfg(
            **self.pretrained_cfg | {"file": str(self.weights), "architecture": self.architecture, "tag": tag}
        )

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
