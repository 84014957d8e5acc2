"""Writes the folder of a backbone: timm's config.json, safetensors and a model card."""

import copy
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf
from torch import nn

from anomalib_spd.backbones.layers import describe_layers
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.backbones.record import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Backbone,
    Provenance,
)
from anomalib_spd.files import one_line, sha256_of

# model card, filled by `str.format`
CARD_TEMPLATE = Path(__file__).with_name("card.md")


def write_folder(
    model: nn.Module,
    folder: Path,
    name: str,
    architecture: str,
    provenance: Provenance,
    *,
    model_args: dict[str, Any] | None = None,
    license_id: str = "other",
    origin_url: str | None = None,
    description: str = "",
    half: bool = False,
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``README.md``.

    Args:
        model: timm model that expects ImageNet statistics; it is left unchanged.
        folder: exists and is empty; :func:`anomalib_spd.backbones.add` is the atomic way into the registry.
        name: the backbone's name, for the card.
        architecture: timm's name of the network.
        provenance: origin of the weights; its ``sha256`` is filled in here.
        model_args: arguments of the architecture's entry point that the weights need.
        license_id: SPDX identifier of the weights' licence in small letters.
        origin_url: where the weights were published.
        description: first paragraph of the card.
        half: store floating-point tensors in half precision.
    """
    # safetensors takes contiguous tensors only; training may leave them in another memory format
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    save_for_hf(
        model.half() if half else model,
        str(folder),
        model_args=model_args,
        model_config={
            "pretrained_cfg": {
                "architecture": architecture,
                "mean": IMAGENET_MEAN,
                "std": IMAGENET_STD,
                "license": license_id,
                "origin_url": origin_url,
                "tag": None,
            }
        },
        safe_serialization=True,
    )
    # our section holds the checksum of the weights, so it is written after them
    config_file = folder / CONFIG_FILE
    shutil.copymode(config_file, folder / WEIGHTS_FILE)  # safetensors' own files are closed to all others
    config = json.loads(config_file.read_text(encoding="utf-8"))
    provenance = replace(provenance, sha256=sha256_of(folder / WEIGHTS_FILE))
    config["anomalib_spd"] = describe_layers(architecture, model_args) | {"provenance": provenance.to_json()}
    config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(_card(Backbone.read(folder), name, description), encoding="utf-8")


def _cell(text: str) -> str:
    """Return text for a cell of a table in Markdown: what would be markup stands for itself."""
    return re.sub(r"([\\`|<>\[\]*])", r"\\\1", one_line(text))


def _code(text: str) -> str:
    return one_line(text).replace("`", "'").replace("|", r"\|")


def _card(backbone: Backbone, name: str, description: str) -> str:
    provenance, license_id = backbone.provenance, backbone.license
    return CARD_TEMPLATE.read_text(encoding="utf-8").format(
        name=name,
        # what is no identifier is quoted: the front matter is YAML
        license=license_id if re.fullmatch(r"[A-Za-z0-9][\w.+-]*", license_id) else json.dumps(license_id),
        description=description or f"`{backbone.architecture}` for anomalib, added by anomalib_spd.",
        architecture=backbone.architecture,
        layers=", ".join(f"`{layer}`" for layer in backbone.layers),
        layer_list=json.dumps(backbone.layers),
        n_features=backbone.n_features,
        data=_cell(provenance.data) or "not stated",
        recipe=_cell(provenance.summary()) or "not stated",
        command=f"`{_code(provenance.command)}`" if provenance.command else "not stated",
        checkpoint=_cell(provenance.made_from()) or "not stated",
        origin=_cell(backbone.pretrained_cfg.get("origin_url") or "") or "not stated",
        weights_file=WEIGHTS_FILE,
        sha256=provenance.sha256,
    )
