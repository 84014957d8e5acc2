"""The choice between a backbone's own weights and trained ones, by held-out images."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from anomalib_spd.backbones.layer_reader import LayerReader
from anomalib_spd.training.held_out import FRACTIONS, HeldOutScores, between, choose, compare_on_held_out
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


def test_spoiled_weights_are_not_chosen_and_nothing_is_changed(training: Any) -> None:
    before, state = copy.deepcopy(training.encoder.state_dict()), torch.get_rng_state()
    images = parts(96, 14)
    results = compare_on_held_out(training, images[:8], images[8:])
    assert [each.fraction for each in results] == list(FRACTIONS)
    assert all(0 <= score <= 1 for each in results for score in each)
    assert results[0].image_auroc > 0.6
    assert results[0].total > results[2].total
    assert choose(results).fraction < 1
    assert results == compare_on_held_out(training, images[:8], images[8:])
    assert all(torch.equal(each, before[name]) for name, each in training.encoder.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_weights_between(training: Any) -> None:
    names = dict(training.encoder.named_parameters())
    for fraction, ends in ((0.0, training.teacher), (1.0, training.encoder)):
        own = dict(between(training, fraction).named_parameters())
        assert all(torch.equal(own[name], each) for name, each in ends.named_parameters())
    halfway = dict(between(training, 0.5).named_parameters())
    original = dict(training.teacher.named_parameters())
    for name, each in halfway.items():
        torch.testing.assert_close(each, (names[name] + original[name]) / 2)


@pytest.mark.parametrize(
    ("scores", "fraction"),
    [
        ([(0.8, 0.3), (0.8, 0.35), (0.82, 0.4)], 1.0),
        ([(0.8, 0.3), (0.79, 0.35), (0.7, 0.39)], 0.5),
        ([(0.8, 0.3), (0.79, 0.3), (0.7, 0.39)], 0.0),
        ([(0.8, 0.3), (0.8, 0.3), (0.8, 0.3)], 0.0),
    ],
)
def test_the_larger_sum_is_chosen_and_the_backbone_among_equals(
    scores: list[tuple[float, float]], fraction: float
) -> None:
    results = [HeldOutScores(each, *pair) for each, pair in zip(FRACTIONS, scores, strict=True)]
    assert choose(results).fraction == fraction
