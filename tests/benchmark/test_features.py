"""Shared features are those that detectors compute themselves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from anomalib.models import Padim, Patchcore, Stfpm
from anomalib.models.components import TimmFeatureExtractor

from anomalib_spd.benchmark.features import SharedFeatures
from tests.benchmark.grids import LAYERS, small_registry


@pytest.fixture(scope="module", autouse=True)
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("registry")
    with small_registry(folder):
        yield folder


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> SharedFeatures:
    """Counts the images that pass the network, in ``seen``."""
    shared = SharedFeatures("small_a", ["blocks.0", *LAYERS])
    seen: list[int] = []
    shared.extractor.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    monkeypatch.setattr(shared, "seen", seen, raising=False)
    return shared


def detector(**kwargs: Any) -> Padim:
    settings: dict[str, Any] = {"evaluator": False, "visualizer": False, "n_features": 10, **kwargs}
    return Padim(**{"backbone": "small_a", "layers": LAYERS, **settings})


def test_a_detector_that_is_served_sees_what_it_would_have_computed(
    shared: SharedFeatures, images: torch.Tensor
) -> None:
    own = TimmFeatureExtractor("small_a", LAYERS)(images)
    model = detector()
    assert shared.serve(model)
    served = model.model.feature_extractor(images)
    assert list(served) == LAYERS
    for layer in LAYERS:
        torch.testing.assert_close(served[layer], own[layer])


def test_an_image_passes_the_network_once(shared: SharedFeatures, images: torch.Tensor) -> None:
    first, second = detector(), Patchcore("small_a", LAYERS, evaluator=False, visualizer=False)
    assert shared.serve(first)
    assert shared.serve(second)
    a = first.model.feature_extractor(images)
    assert shared.take_seconds_saved() == 0
    b = second.model.feature_extractor(images.flip(0))
    assert sum(shared.seen) == 5  # type: ignore[attr-defined]
    assert shared.take_seconds_saved() > 0
    for layer in LAYERS:
        assert torch.equal(a[layer], b[layer].flip(0))
    first.model.feature_extractor(images + 1e-6)
    assert sum(shared.seen) == 10  # type: ignore[attr-defined]


def test_features_do_not_depend_on_the_company(shared: SharedFeatures, images: torch.Tensor) -> None:
    alone = SharedFeatures("small_a", LAYERS)(images[3:4])
    among = shared(images)
    for layer in LAYERS:
        assert torch.equal(alone[layer][0], among[layer][3])


def test_detectors_that_need_their_own_are_left_alone(shared: SharedFeatures) -> None:
    trains = Stfpm("small_a", LAYERS, evaluator=False, visualizer=False)
    other_layer = detector(layers=["blocks.1", "blocks.4"])
    before = other_layer.model.feature_extractor
    assert not shared.serve(trains)
    assert not shared.serve(other_layer)
    assert other_layer.model.feature_extractor is before
