"""Writes the folder of a backbone: timm's config.json, safetensors and a model card."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf
from torch import nn

from anomalib_spd.backbones.card import card_text
from anomalib_spd.backbones.feature_layers import describe_layers
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.backbones.record import (
    CARD_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Backbone,
    Provenance,
)
from anomalib_spd.files import sha256_of


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
    (folder / CARD_FILE).write_text(card_text(Backbone.read(folder), name, description), encoding="utf-8")
