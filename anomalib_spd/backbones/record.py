"""What is known of a backbone: one folder on a shelf, one record here.

A backbone is a folder ``NAME/{config.json, model.safetensors, README.md}``. ``config.json`` is timm's own format, so the
folder also works without this package (``local-dir:FOLDER``); what timm has no field for stands under the key
``anomalib_spd``. The folders beside this file ship in the wheel; to add a backbone to the catalogue, add its folder.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg

from anomalib_spd.files import sha256_of

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"

CATALOG_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Provenance:
    """Where a backbone's weights come from; every field may be empty for a user's own.

    Args:
        sha256: of ``model.safetensors``, hexadecimal.
        data: images that the weights were trained on, and their licence.
        recipe: how they were trained, in a line.
        command: what made the file.
        checkpoint: name and sha256 of the file that the weights were read from.
    """

    sha256: str
    data: str = ""
    recipe: str = ""
    command: str = ""
    checkpoint: str = ""


@dataclass(frozen=True)
class Backbone:
    """One backbone on a shelf.

    Args:
        name: what detectors are given, ``ARCHITECTURE`` or ``ARCHITECTURE.TAG`` of our own.
        folder: holds its three files.
        architecture: timm's name of the network.
        pretrained_cfg: timm's record of the weights (statistics, input size, classes, licence, origin).
        model_args: arguments of the architecture's entry point that the weights need.
        layers: timm's names of the layers at strides 8 and 16, those that PatchCore reads.
        n_features: channels that PaDiM keeps of strides 4, 8 and 16.
        provenance: where the weights come from.
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
            backbone.timm_cfg()  # a field that timm does not know fails here, not while the shelf is registered
        except (OSError, KeyError, TypeError, ValueError) as error:
            msg = f"{folder} is not a backbone's folder: {type(error).__name__}: {error}"
            raise ValueError(msg) from error
        return backbone

    def timm_cfg(self, tag: str | None = None) -> PretrainedCfg:
        """Return timm's record, pointing at the weights of this folder and at the stock architecture."""
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
            msg = f"The weights of backbone {self.name!r} are missing: there is no file {self.weights}."
            raise ValueError(msg)
        found = sha256_of(self.weights)
        if found != self.provenance.sha256:
            msg = (
                f"The weights of backbone {self.name!r} are not those that were put there: {self.weights} has sha256 "
                f"{found}, its config.json says {self.provenance.sha256}. Remove the backbone and add it again."
            )
            raise ValueError(msg)


def describe_layers(architecture: str, model_args: dict[str, Any] | None = None) -> dict[str, Any]:
    """Find the layers that detectors read, from timm's own description of the architecture.

    Returns:
        ``layers``: names at strides 8 and 16; ``n_features``: what PaDiM keeps, 100 channels or all if there are fewer
        (PaDiM paper, section 3.2: 100 random dimensions lose next to nothing for ResNet-18).
    """
    layers = layers_at((4, 8, 16), architecture, model_args)
    return {
        "layers": [layer["module"] for layer in layers if layer["reduction"] != 4],
        "n_features": min(100, sum(layer["num_chs"] for layer in layers)),
    }


def layers_at(
    strides: Iterable[int], architecture: str, model_args: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return timm's records (``module``, ``num_chs``, ``reduction``) of the last layer at each stride.

    A network that has none of the strides, as a transformer of 14-pixel patches, gives its very last layer.
    """
    model: Any = timm.create_model(architecture, features_only=True, **(model_args or {}))
    layers = model.feature_info.get_dicts()
    by_stride = {layer["reduction"]: layer for layer in layers}
    return [by_stride[stride] for stride in strides if stride in by_stride] or layers[-1:]


def provenance_record(provenance: Provenance) -> dict[str, str]:
    """Return a provenance as JSON writes it, without its empty fields."""
    return {key: value for key, value in asdict(provenance).items() if value}
