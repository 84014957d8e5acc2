"""The coreset is stock's, index for index."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from anomalib.models.components import KCenterGreedy as StockKCenterGreedy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lightning.pytorch import seed_everything
from torch import Tensor
from torchvision.io import ImageReadMode, read_image
from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize

import anomalib_spd  # noqa: F401
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.detectors import KCenterGreedy, k_center_greedy

Sampler = type[StockKCenterGreedy]


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def _clusters(n_points: int, width: int, deviation: float, offset: float = 0.0) -> Tensor:
    return _normal(20, width).repeat(n_points // 20, 1) + deviation * _normal(n_points, width) + offset


EMBEDDINGS: dict[str, Callable[[], Tensor]] = {
    "normal": lambda: _normal(800, 96),
    "double": lambda: _normal(500, 40).double(),
    "clusters": lambda: _clusters(800, 64, 0.05),
    # the distances are a few units in the last place of the values
    "clusters far from zero": lambda: _clusters(600, 64, 1e-3, offset=1e3),
    "duplicates": lambda: _clusters(800, 64, 0.0),
    "all equal": lambda: torch.ones(500, 32),
    "all zero": lambda: torch.zeros(500, 32),
    "low rank": lambda: _normal(800, 3) @ _normal(3, 128),
    "on a lattice": lambda: _normal(800, 4).round(),
    "a few outliers": lambda: torch.cat([1e-3 * _normal(790, 32), 100 * _normal(10, 32)]),
    # squares are below the smallest normal number
    "subnormal": lambda: 1e-22 * _normal(200, 32),
    "not contiguous": lambda: _normal(48, 500).T,
    "one feature": lambda: _normal(500, 1),
    "one point": lambda: _normal(1, 8),
    "two points": lambda: _normal(2, 8),
}

STOCK_CASES: dict[str, Callable[[], Tensor]] = {
    "half": lambda: _normal(300, 32).half(),
    "bfloat16": lambda: _normal(300, 32).bfloat16(),
    "images": lambda: _normal(60, 3, 5, 5),
    "overflowing": lambda: 1e20 * _normal(300, 32),
    "infinite": lambda: _normal(300, 32).index_fill(0, torch.tensor([5]), math.inf),
    "not a number": lambda: _normal(300, 32).index_fill(0, torch.tensor([5]), math.nan),
}


def _select(sampler: Sampler, embedding: Tensor, ratio: float, seed: int = 0) -> list[int]:
    seed_everything(seed, verbose=False)
    return sampler(embedding, ratio).select_coreset_idxs()


@pytest.fixture(scope="module")
def real_embedding(real_images: Path) -> Tensor:
    """Embeddings ``(5 * 784, 152)`` as PatchCore makes them, without its pooling."""
    folder = real_images / "visa_pytorch" / "bottle" / "train" / "good"
    if not folder.is_dir():
        pytest.skip(f"needs real images: {folder} does not exist")
    read = Compose([Resize((256, 256)), CenterCrop((224, 224)), Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    images = [read(read_image(str(path), ImageReadMode.RGB) / 255) for path in sorted(folder.iterdir())[:5]]
    network = timm.create_model(
        "efficientnet_lite0_spd", pretrained=True, features_only=True, out_indices=(2, 3)
    ).eval()
    with torch.no_grad():
        fine, coarse = network(torch.stack(images))
    coarse = torch.nn.functional.interpolate(coarse, size=fine.shape[-2:], mode="bilinear")
    return torch.cat([fine, coarse], dim=1).permute(0, 2, 3, 1).flatten(0, 2)


@pytest.mark.parametrize("ratio", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("name", EMBEDDINGS | STOCK_CASES)
def test_chooses_the_points_of_stock(name: str, ratio: float) -> None:
    embedding = (EMBEDDINGS | STOCK_CASES)[name]()
    ratio = max(ratio, 1 / len(embedding))
    indices = _select(KCenterGreedy, embedding, ratio)
    assert indices == _select(StockKCenterGreedy, embedding, ratio)
    assert len(indices) == int(ratio * len(embedding))


@pytest.mark.parametrize("ratio", [0.01, 0.1])
def test_chooses_the_points_of_stock_on_real_images(real_embedding: Tensor, ratio: float) -> None:
    assert real_embedding.shape == (5 * 784, 152)
    assert _select(KCenterGreedy, real_embedding, ratio) == _select(StockKCenterGreedy, real_embedding, ratio)


@settings(max_examples=40, deadline=None)
@given(
    n_points=st.integers(1, 80),
    width=st.integers(1, 12),
    share=st.floats(0, 1),
    distinct=st.integers(1, 80),
    scale=st.sampled_from([1e-20, 1e-3, 1.0, 1e4]),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
@example(n_points=49, width=1, share=0.0, distinct=1, scale=1.0, offset=0.0, seed=0)
def test_chooses_the_points_of_stock_whatever_the_points(
    n_points: int, width: int, share: float, distinct: int, scale: float, offset: float, seed: int
) -> None:
    values = scale * torch.randn(distinct, width, generator=torch.Generator().manual_seed(seed)) + offset
    embedding = values[torch.arange(n_points) % distinct]
    # one point at the least: stock cuts off n * ratio, and 49 * (1 / 49) is below 1
    ratio = min(1.0, max(share, 1.5 / n_points))
    assert _select(KCenterGreedy, embedding, ratio, seed) == _select(StockKCenterGreedy, embedding, ratio, seed)


def test_each_point_is_the_farthest_from_those_before() -> None:
    seed_everything(3, verbose=False)
    sampler = KCenterGreedy(_normal(800, 30), 0.2)
    indices = sampler.select_coreset_idxs()
    distances = torch.cdist(sampler.features.double(), sampler.features.double()[indices])
    to_nearest = distances.cummin(dim=1).values
    for count in range(1, len(indices)):
        assert to_nearest[indices[count], count - 1] >= to_nearest[:, count - 1].max() * (1 - 1e-6)


@pytest.mark.parametrize("name", ["normal", "duplicates", "half", "one point"])
def test_draws_the_random_numbers_of_stock(name: str) -> None:
    embedding = (EMBEDDINGS | STOCK_CASES)[name]()
    states = []
    for sampler in (StockKCenterGreedy, KCenterGreedy):
        _select(sampler, embedding, 1.0, seed=5)
        states.append((torch.get_rng_state().tolist(), np.random.random(), torch.rand(1).item()))  # noqa: NPY002
    assert states[0] == states[1]


def test_another_seed_chooses_other_points() -> None:
    embedding = _normal(500, 32)
    assert _select(KCenterGreedy, embedding, 0.1, seed=0) != _select(KCenterGreedy, embedding, 0.1, seed=1)


def test_samples_rows_of_the_embedding_and_leaves_it_alone() -> None:
    embedding = _normal(500, 32)
    before = embedding.clone()
    indices = _select(KCenterGreedy, embedding, 0.1)
    seed_everything(0, verbose=False)
    assert torch.equal(KCenterGreedy(embedding, 0.1).sample_coreset(), before[indices])
    assert torch.equal(embedding, before)


def test_takes_an_embedding_that_requires_a_gradient() -> None:
    embedding = _normal(300, 32)
    expected = _select(StockKCenterGreedy, embedding, 0.1)
    assert _select(KCenterGreedy, embedding.requires_grad_(), 0.1) == expected


def test_a_ratio_that_leaves_no_point_is_an_error() -> None:
    with pytest.raises(ValueError, match="coreset_size must be a positive integer"):
        KCenterGreedy(_normal(10, 4), 0.05)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_size_of_the_blocks_does_not_matter(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = _clusters(200, 32, 0.1)
    expected = _select(StockKCenterGreedy, embedding, 0.2)
    monkeypatch.setattr(k_center_greedy, "ROWS", rows)
    monkeypatch.setattr(k_center_greedy, "BLOCK", 100 * rows)
    assert _select(KCenterGreedy, embedding, 0.2) == expected


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0])
def test_the_size_of_a_round_does_not_matter(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = _clusters(400, 32, 0.1)
    expected = _select(StockKCenterGreedy, embedding, 0.2)
    monkeypatch.setattr(k_center_greedy, "ROUND", share)
    assert _select(KCenterGreedy, embedding, 0.2) == expected


@pytest.mark.parametrize("name", ["normal", "clusters", "a few outliers"])
def test_computes_a_fraction_of_the_distances(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    computed, norm = [], torch.linalg.norm

    def count(differences: Tensor, **settings: Any) -> Tensor:
        computed.append(len(differences))
        return norm(differences, **settings)

    monkeypatch.setattr(torch.linalg, "norm", count)
    embedding = EMBEDDINGS[name]()
    chosen = _select(KCenterGreedy, embedding, 0.1)
    assert len(embedding) <= sum(computed) < len(embedding) * len(chosen) / 8
