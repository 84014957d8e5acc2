"""The names that a backbone may have."""

import os

from anomalib_spd.backbones.record import CATALOG_FOLDER, NAME_PATTERN
from anomalib_spd.backbones.registry import is_stock, registry_folder


def check_name(name: str) -> None:
    """Check that a new backbone may have a name.

    Args:
        name: ``NAME`` or ``NAME.TAG``.

    Raises:
        ValueError: where it is no such name, is taken, or is timm's own.
    """
    if len(name) > 100 or not NAME_PATTERN.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a backbone's name: expected NAME or NAME.TAG of letters, digits, '_' and '-', at most "
            "100 in all."
        )
    check_free(name)
    model_name, dot, tag = name.partition(".")
    if is_stock(model_name):
        raise ValueError(
            f"{model_name!r} is a model of timm's own, and timm refuses tags on it that it does not know. Take a name "
            f"that is not timm's, such as '{model_name}_spd{dot}{tag}'."
        )


def check_free(name: str) -> None:
    """Check that neither the user's registry nor the catalogue has a backbone of a name.

    Raises:
        ValueError: where one of them has.
    """
    own, remove = registry_folder() / name, f"remove it first (anomalib-spd backbones remove {name}), or "
    for folder, where, advice in ((own, "in your registry", remove), (CATALOG_FOLDER / name, "in the catalogue", "")):
        if os.path.lexists(folder):
            raise ValueError(f"The name {name!r} is taken {where}: {folder} exists; {advice}take another name.")
