"""The choice between a backbone's own weights and trained ones, by held-out images."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.training.held_out import compare_on_held_out
from tests.data.test_faint_defects import parts


@pytest.fixture
def training() -> Any:
    """A network and one with noise on its weights, as if trained."""
    torch.manual_seed(0)
    teacher = timm.create_model("efficientnet_lite0_in1k", pretrained=True).eval()
    encoder = copy.deepcopy(teacher)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.5 * weight.std(correction=0) * torch.randn_like(weight))
    reader = LayerReader("efficientnet_lite0_in1k", ["blocks.2", "blocks.4"])

    def features(network: Any, images: Tensor) -> list[Tensor]:
        return reader(network, (images - 0.45) / 0.225)

    return SimpleNamespace(encoder=encoder, teacher=teacher, features=features)


def test_spoiled_weights_score_less_and_nothing_is_changed(training: Any) -> None:
    before, state = copy.deepcopy(training.encoder.state_dict()), torch.get_rng_state()
    images = parts(96, 14)
    results = compare_on_held_out(training, images[:8], images[8:])
    assert all(0 <= score <= 1 for each in results for score in each)
    own, trained = results
    assert own.image_auroc > 0.6
    assert own.total > trained.total
    assert results == compare_on_held_out(training, images[:8], images[8:])
    assert all(torch.equal(each, before[name]) for name, each in training.encoder.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
