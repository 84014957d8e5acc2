"""Reads the tensors of a checkpoint. Nothing is unpickled but tensors and plain containers."""

import argparse
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from anomalib_spd.files import first_few

# keys under which training codes keep the state dict, in the order in which timm prefers them
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# of parts within parts; a file can have any depth
_DEEPEST = 20


def read_checkpoint(path: Path, key: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a ``.safetensors`` file or a PyTorch checkpoint, without ever executing pickled code.

    Args:
        path: the file.
        key: of the part to read, such as ``"teacher"`` or, deeper, ``"classy_state_dict.base_model"``; by default the state dict
            that training codes keep under one of ``WRAPPERS``, or else everything.

    Returns:
        Tensors by name, in which the keys of parts within parts are joined by dots, and the hyper-parameters of the
        LightningModule that wrote them; empty where there was none.

    Raises:
        ValueError: where the file is damaged, holds pickled objects or no tensors, or has no such key.
        OSError: where it cannot be read.
    """
    content = _load(path)
    hyper_parameters = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if key is not None:
        content = _part(content, key, path)
    elif isinstance(content, Mapping):
        # timm stores an average that it did not compute as None
        content = next((content[each] for each in WRAPPERS if isinstance(content.get(each), Mapping)), content)
    tensors = dict(_tensors(content, set()))
    if not tensors:
        found = f"the keys {first_few(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
        raise ValueError(
            f"{path} holds no tensors: found {found}, expected a state dict, or one under "
            f"{', '.join(map(repr, WRAPPERS))}. Save the network's `state_dict()` and give that file."
        )
    return tensors, dict(hyper_parameters) if isinstance(hyper_parameters, Mapping) else {}


def _part(content: Any, key: str, path: Path) -> Any:
    """Return the part of a checkpoint under a key, or under several that are joined by dots."""
    for each in (key,) if isinstance(content, Mapping) and key in content else key.split("."):
        if not isinstance(content, Mapping) or each not in content:
            keys = first_few(map(str, content)) if isinstance(content, Mapping) else "none"
            raise ValueError(f"{path} has no part {key!r}: {each!r} is none of its keys ({keys}).")
        content = content[each]
    return content


def _tensors(content: Any, read: set[int], depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of parts within parts, by the keys joined by dots. Each part is read once: it may hold itself."""
    if not isinstance(content, Mapping) or id(content) in read or depth > _DEEPEST:
        return
    read.add(id(content))
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            yield key, value
        elif isinstance(key, str):
            yield from ((f"{key}.{name}", tensor) for name, tensor in _tensors(value, read, depth + 1))


def _load(path: Path) -> Any:
    with path.open("rb"):
        pass  # missing and forbidden files raise their own errors, and are not taken for damaged ones below
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            msg = f"{path} is not a complete safetensors file ({error}). Copy or download it again."
            raise ValueError(msg) from error
    _check_stored(path)
    try:
        # timm's training checkpoints hold their arguments; what torch warns of, such as sparse tensors, is refused later
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
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


def _check_stored(path: Path) -> None:
    """Refuse a compressed file, which PyTorch does not write: a small one may hold any number of zeros."""
    try:
        with zipfile.ZipFile(path) as archive:
            is_compressed = any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # of another kind, or damaged: torch says so
        return
    if is_compressed:
        raise ValueError(
            f"{path} is a compressed archive, which PyTorch does not write. Unpack it, and give its content."
        )
