"""The mean of several backbones' weights, as one backbone."""

import math
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from anomalib_spd.backbones.export import write_folder
from anomalib_spd.backbones.placing import check_name, check_routing, new_on_shelf
from anomalib_spd.backbones.record import Backbone, Provenance
from anomalib_spd.backbones.registry import find, register
from anomalib_spd.backbones.sources import find_network


def average(name: str, shares: Mapping[str, float], *, command: str = "", description: str = "") -> Backbone:
    """Put the mean of several backbones' weights on the user's shelf, and register it. Either all of it is written or nothing.

    Trainings that went on from the same weights, and have not gone far, can be averaged: the mean of several is what they have in
    common, without what chance gave each; the mean with the backbone that they went on from keeps more of what that one could do.
    Layers that a training has brought to one energy are averaged with such of a backbone for which the same was done. Classifiers are left out.

    Source: Wortsman et al., Model soups (ICML 2022), section 2, uniform soup; the same, Robust fine-tuning of zero-shot models (CVPR 2022),
    section 4. Batch norm's statistics are averaged as the weights are.

    Args:
        name: ``NAME`` or ``NAME.TAG`` of the new backbone.
        shares: of the mean, of each backbone on the shelf by name; two or more, positive. Their sum need not be 1.
        command: what made the backbone.
        description: what the model card says first.

    Returns:
        The backbone as it stands on the shelf.

    Raises:
        ValueError: where the name is taken or cannot be one, a backbone is unknown or damaged, a share is not positive, or the
            backbones are not of one network.
        OSError: where the shelf cannot be written.
    """
    check_name(name)
    if len(shares) < 2 or not all(share > 0 and math.isfinite(share) for share in shares.values()):
        given = ", ".join(f"{part}={share:g}" for part, share in shares.items()) or "none"
        msg = f"A mean is of two or more backbones, with positive shares. Got {given}."
        raise ValueError(msg)
    parts = [find(part) for part in shares]
    models = [timm.create_model(part.name, pretrained=True, num_classes=0) for part in parts]
    check_routing(name, models[0])
    states = [model.state_dict() for model in models]
    for part, state in zip(parts, states, strict=True):
        if part.architecture != parts[0].architecture or _shapes(state) != _shapes(states[0]):
            msg = (
                f"{part.name!r} ({part.architecture}) is not the same network as {parts[0].name!r} "
                f"({parts[0].architecture}). A mean is of backbones of one network."
            )
            raise ValueError(msg)
    whole = sum(shares.values())
    weights = [share / whole for share in shares.values()]
    mean = {}
    for key, tensor in states[0].items():
        parts_of_it = (weight * state[key].double() for weight, state in zip(weights, states, strict=True))
        mean[key] = sum(parts_of_it, torch.zeros(())).to(tensor.dtype)
    models[0].load_state_dict(mean)

    with new_on_shelf(name) as folder:
        write_folder(
            models[0],
            folder,
            name,
            parts[0].architecture,
            Provenance(
                sha256="",
                data="; ".join(dict.fromkeys(part.provenance.data for part in parts if part.provenance.data)),
                recipe="mean of weights: "
                + " + ".join(f"{weight:.4g} {part.name}" for weight, part in zip(weights, parts, strict=True)),
                command=command,
                checkpoint="; ".join(f"{part.name}, sha256 {part.provenance.sha256}" for part in parts),
            ),
            model_args=find_network(parts[0].name).model_args,
            license_id=_license(parts),
            description=description,
        )
    register()
    return find(name)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {key: tensor.shape for key, tensor in state.items()}


def _license(parts: list[Backbone]) -> str:
    """Return the licence that all have, or what says that there is no such one."""
    licenses = {part.pretrained_cfg.get("license") for part in parts}
    return (licenses.pop() if len(licenses) == 1 else None) or "other"
