"""Which names a backbone may have, and how its folder comes to stand on the user's shelf in one step."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from timm.models import VisionTransformer
from torch import nn

from anomalib_spd.backbones.record import CATALOG_FOLDER
from anomalib_spd.backbones.registry import is_stock, registry_folder
from anomalib_spd.files import HOME_VARIABLE, atomic_folder

NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)?")

# in a name, these make a detector of anomalib treat the backbone as a transformer (TimmFeatureExtractor, PatchFlow)
TRANSFORMER_WORDS = ("vit", "dinov2")


def check_name(name: str) -> None:
    """Refuse what cannot be a new backbone's name.

    Args:
        name: ``NAME`` or ``NAME.TAG``.

    Raises:
        ValueError: where it is no such name, taken, or timm's own.
    """
    if len(name) > 100 or not NAME_PATTERN.fullmatch(name):
        msg = (
            f"{name!r} cannot be a backbone's name: expected NAME or NAME.TAG of letters, digits, '_' and '-', at most "
            "100 in all."
        )
        raise ValueError(msg)
    refuse_taken(name)
    model_name, dot, tag = name.partition(".")
    if is_stock(model_name):
        msg = (
            f"{model_name!r} is a model of timm's own, and timm refuses tags on it that it does not know. Take a name "
            f"that is not timm's, such as '{model_name}_spd{dot}{tag}'."
        )
        raise ValueError(msg)


def refuse_taken(name: str) -> None:
    """Refuse a name that the user's shelf or the catalogue has.

    Raises:
        ValueError: where it has.
    """
    for folder, what in ((registry_folder() / name, "on your shelf"), (CATALOG_FOLDER / name, "in the catalogue")):
        if os.path.lexists(folder):
            advice = f"remove it first (anomalib-spd backbones remove {name}), or " if what == "on your shelf" else ""
            msg = f"The name {name!r} is taken {what}: {folder} exists; {advice}take another name."
            raise ValueError(msg)


def transformer_words(text: str) -> list[str]:
    """Return what of a name or path anomalib tells transformers by."""
    return [word for word in TRANSFORMER_WORDS if word in text.lower()]


def check_routing(name: str, model: nn.Module) -> None:
    """Refuse a name by which anomalib would take a network for a transformer.

    Raises:
        ValueError: where it is none.
    """
    if (words := transformer_words(name)) and not isinstance(model, VisionTransformer):
        msg = (
            f"The name {name!r} contains {words[0]!r}, by which anomalib tells vision transformers. This network is a "
            f"{type(model).__name__}, and anomalib would fail to read its layers. Take a name without it."
        )
        raise ValueError(msg)


@contextmanager
def new_on_shelf(name: str) -> Iterator[Path]:
    """Give a folder to be filled, which becomes the backbone of that name on the user's shelf, or disappears where anything fails.

    Raises:
        ValueError: where another process has taken the name meanwhile.
        OSError: where the shelf cannot be written.
    """
    try:
        with atomic_folder(registry_folder() / name) as folder:
            yield folder
    except (OSError, SafetensorError) as error:
        refuse_taken(name)  # another process was faster
        raise shelf_error(error) from error


def shelf_error(error: Exception) -> OSError:
    """Return the error to be raised where the shelf cannot be written."""
    reason = error.strerror if isinstance(error, OSError) else None
    msg = (
        f"Cannot write to the shelf {registry_folder()}: {reason or error}. Set {HOME_VARIABLE} to a folder that you may "
        "write to."
    )
    return PermissionError(msg) if isinstance(error, PermissionError) else OSError(msg)
