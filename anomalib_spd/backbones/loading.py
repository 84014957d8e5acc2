"""Networks with their weights, and one message for weights that cannot be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch

from anomalib_spd.backbones.transformers import build_empty, is_transformer


def load(backbone: str, pretrained: bool = True, **model_args: Any) -> Any:
    """Return ``timm.create_model(backbone, pretrained, **model_args)``; a transformer as anomalib reads it, for any size of image.

    Args:
        backbone: name in timm, ours included.
        pretrained: whether with its weights, which timm downloads where the name is its own.
        model_args: of timm's function.

    Raises:
        OSError: where the weights are not on this machine and cannot be downloaded.
    """
    if is_transformer(build_empty(backbone)):
        _resample_positions_as_anomalib()
        model_args = {"dynamic_img_size": True, **model_args}
    with named_weights(backbone):
        return timm.create_model(backbone, pretrained=pretrained, **model_args)


def _resample_positions_as_anomalib() -> None:
    """Let embeddings of positions be resampled as detectors will: what is trained is what is read.

    Its first extractor of a transformer sets it for the whole process, see docs/upstream.md; else a training would
    depend on whether a detector was built before it.
    """
    from anomalib.models.components import (
        TimmFeatureExtractor,  # not before it is needed: who names a backbone needs none
    )

    with torch.random.fork_rng([]), torch.device("meta"):
        TimmFeatureExtractor("test_vit", ["blocks.0"], pre_trained=False)


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
