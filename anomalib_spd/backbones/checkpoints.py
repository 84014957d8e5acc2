"""Reads checkpoints of several origins, and fits their tensors to a timm architecture.

Nothing is unpickled but tensors and plain containers. The origins differ in data alone: the tables ``LAYOUTS`` and
``WRAPPERS``.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from anomalib_spd.files import first_few


class Layout(NamedTuple):
    """The names that a training code gives to the tensors of its encoder.

    Args:
        prefix: of timm's names; tensors with another prefix are no part of the encoder.
        origin: the code that writes such checkpoints, for messages.
        has_classifier: whether tensors in the place of the architecture's classifier may be one; else they are a projection.
    """

    prefix: str
    origin: str
    has_classifier: bool


LAYOUTS = (
    Layout("", "plain state dict", has_classifier=True),
    Layout("encoder.", "Lightning checkpoint of anomalib_spd", has_classifier=False),
    Layout("module.encoder_q.", "MoCo v1 or v2", has_classifier=False),
    Layout("encoder_q.", "MoCo v1 or v2, without DistributedDataParallel", has_classifier=False),
    Layout("module.base_encoder.", "MoCo v3", has_classifier=False),
    Layout("base_encoder.", "MoCo v3, without DistributedDataParallel", has_classifier=False),
    Layout("module.encoder.", "SimSiam", has_classifier=False),
    Layout("module.", "DistributedDataParallel", has_classifier=True),
    Layout("_orig_mod.", "torch.compile", has_classifier=True),
    Layout("module._orig_mod.", "DistributedDataParallel of torch.compile", has_classifier=True),
    Layout("_orig_mod.module.", "torch.compile of DistributedDataParallel", has_classifier=True),
    Layout("model.", "module with the network as its `model`", has_classifier=True),
    Layout("backbone.", "module with the network as its `backbone`", has_classifier=True),
)

# keys under which training codes keep the state dict, in the order in which timm prefers them
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a ``.safetensors`` file or a PyTorch checkpoint, without ever executing pickled code.

    Returns:
        Tensors by name, and the hyper-parameters of the LightningModule that wrote them; empty where there was none.

    Raises:
        ValueError: where the file is damaged, holds pickled objects or no tensors.
        OSError: where it cannot be read.
    """
    content = _load(path)
    hyper_parameters: Any = {}
    if isinstance(content, Mapping):
        hyper_parameters = content.get("hyper_parameters")
        # timm stores an average that it did not compute as None
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
    is_mapping = isinstance(content, Mapping)
    items = content.items() if is_mapping else ()
    tensors = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        found = f"the keys {first_few(map(str, content))}" if is_mapping else type(content).__name__
        raise ValueError(
            f"{path} holds no tensors: found {found}, expected a state dict, or one under "
            f"{', '.join(map(repr, WRAPPERS))}. Save the network's `state_dict()` and give that file."
        )
    return tensors, dict(hyper_parameters) if isinstance(hyper_parameters, Mapping) else {}


def _load(path: Path) -> Any:
    with path.open("rb"):
        pass  # missing and forbidden files raise their own errors, and are not taken for damaged ones below
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            msg = f"{path} is not a complete safetensors file ({error}). Copy or download it again."
            raise ValueError(msg) from error
    try:
        # timm's training checkpoints hold their arguments
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in torch's reader, with any exception
        # torch's own advice, to load without `weights_only`, is not passed on
        advice = "save the state dict alone with safetensors.torch.save_file(state_dict, 'weights.safetensors')"
        if objects := sorted(set(re.findall(r"GLOBAL (\S+)", str(error)))):
            msg = (
                f"{path} holds pickled objects ({', '.join(objects)}), which are not loaded: they can run any code. If "
                f"you trust the file, load it where it was written, {advice}, and give that file."
            )
        else:
            msg = (
                f"{path} is not a complete PyTorch checkpoint: it is damaged, cut off, or of another kind. Copy or "
                f"download it again, or {advice}; a file of safetensors must be named so."
            )
        raise ValueError(msg) from error


def fit(tensors: Mapping[str, Tensor], architecture: str, **model_args: Any) -> nn.Module:
    """Build an architecture with a checkpoint's tensors, in the precision that they are stored in.

    The layout is the one of ``LAYOUTS`` that finds the most of the architecture's tensors. A classifier keeps its own
    number of classes; a projection in its place is dropped, and the network then ends with its pooled features.

    Args:
        tensors: by the checkpoint's own names.
        architecture: timm's name.
        model_args: of timm's entry point.

    Raises:
        ValueError: where tensors are missing, unexpected, of another shape, or not finite.
    """
    model = _create(architecture, model_args | {"num_classes": 0})
    layout = max(LAYOUTS, key=lambda layout: sum(layout.prefix + name in tensors for name in model.state_dict()))
    given = {name.removeprefix(layout.prefix): t for name, t in tensors.items() if name.startswith(layout.prefix)}
    names = classifier_names(model)
    if not layout.has_classifier:
        heads = tuple(f"{name}." for name in names)
        given = {name: tensor for name, tensor in given.items() if not name.startswith(heads)}
    elif names and (weight := given.get(f"{names[0]}.weight")) is not None and weight.ndim:
        model = _create(architecture, model_args | {"num_classes": len(weight)})
    expected = model.state_dict()
    found = sum(name in given for name in expected)
    for name, tensor in expected.items():
        # files from before PyTorch 0.4.1 do not count batches; only training reads the number
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, tensor)
    if problems := _problems(given, expected):
        where = f" under the prefix {layout.prefix!r}" if layout.prefix else ""
        raise ValueError(
            f"The checkpoint does not fit {architecture}: {'; '.join(problems)}. It was read as {layout.origin}{where}, "
            f"where {found} of the {len(expected)} expected tensors were found. Give the architecture that it was "
            "trained with."
        )
    if infinite := [name for name, tensor in given.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(
            f"The checkpoint holds NaN or infinite values in {len(infinite)} of {len(given)} tensors "
            f"({first_few(infinite)}): its training diverged. Give an earlier checkpoint."
        )
    # own, contiguous memory: saved tensors may be views of one another, or in another memory format
    state = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in given.items()}
    model.load_state_dict(state, assign=True)
    return model


def _create(architecture: str, model_args: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(architecture, **model_args)
    except Exception as error:  # the arguments may come from a file, and timm does not check them
        msg = f"timm cannot build {architecture} with {model_args}: {type(error).__name__}: {error}"
        raise ValueError(msg) from error


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """Return timm's names of a model's classifier layers, the main one first."""
    pretrained_cfg: Any = model.pretrained_cfg
    names = pretrained_cfg.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _problems(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return how the given tensors differ from the expected ones, in words."""
    problems = []
    if missing := [name for name in expected if name not in given]:
        problems.append(f"{len(missing)} missing ({first_few(missing)})")
    if unexpected := [name for name in given if name not in expected]:
        problems.append(f"{len(unexpected)} unexpected ({first_few(unexpected)})")
    common = [(name, given[name], tensor) for name, tensor in expected.items() if name in given]
    if shapes := [f"{name} is {tuple(g.shape)}, not {tuple(e.shape)}" for name, g, e in common if g.shape != e.shape]:
        problems.append(f"{len(shapes)} of another shape ({first_few(shapes)})")
    floats = [(name, g.dtype, e.dtype) for name, g, e in common if g.is_floating_point() != e.is_floating_point()]
    if types := [f"{name} is {found}, not {wanted}" for name, found, wanted in floats]:
        problems.append(f"{len(types)} of another type ({first_few(types)})")
    return problems
