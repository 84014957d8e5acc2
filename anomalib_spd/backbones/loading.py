"""Networks with their weights, and one message for weights that cannot be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm


def load(backbone: str, pretrained: bool = True, **model_args: Any) -> Any:
    """Return ``timm.create_model(backbone, pretrained, **model_args)``.

    Args:
        backbone: name in timm, ours included.
        pretrained: whether with its weights, which timm downloads where the name is its own.
        model_args: of timm's function.

    Raises:
        OSError: where the weights are not on this machine and cannot be downloaded.
    """
    with named_weights(backbone):
        return timm.create_model(backbone, pretrained=pretrained, **model_args)


@contextmanager
def named_weights(backbone: str) -> Iterator[None]:
    """Say which weights are meant, and what to do, where a download inside fails: huggingface_hub's message has neither.

    Raises:
        OSError: where it fails.
    """
    try:
        yield
    except OSError as error:  # of huggingface_hub and of urllib
        raise OSError(
            f"The weights of {backbone!r} are not on this machine and cannot be downloaded. Give a backbone that "
            "`anomalib-spd backbones list` names, or add a checkpoint that you have: anomalib-spd backbones add NAME FILE"
        ) from error
