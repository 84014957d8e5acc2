"""Pixels are drawn where maps are salient, evenly, and somewhere sensible where maps say nothing."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from anomalib_spd.augmentation.anchors import ClusterChoice, salient_mask, sample_inside, sample_top
from anomalib_spd.saliency import kmeans_1d


def _draw(maps: Tensor, choice: ClusterChoice = "max", clusters: int = 4, number: int = 400) -> tuple[Tensor, Tensor]:
    """Return the values at pixels drawn from each map, and the pixels."""
    draws, draw = torch.rand(len(maps), number, 2), torch.rand(len(maps))
    pixels = sample_inside(salient_mask(maps, clusters, choice, draw), draws)
    values = maps.flatten(1).gather(1, pixels[..., 0] * maps.shape[2] + pixels[..., 1])
    return values, pixels


def _smooth(height: int, width: int) -> Tensor:
    return F.interpolate(torch.rand(3, 1, 6, 7) ** 2, size=(height, width), mode="bilinear")[:, 0]


@pytest.mark.parametrize("size", [(8, 8), (64, 40), (256, 256), (37, 300)])
@pytest.mark.parametrize("clusters", [1, 2, 4, 6])
def test_anchors_lie_in_the_cluster_of_the_largest_center(size: tuple[int, int], clusters: int) -> None:
    torch.manual_seed(0)
    maps = _smooth(*size)
    values, pixels = _draw(maps, clusters=clusters)
    assert (pixels >= 0).all()
    assert (pixels < torch.tensor(size)).all()
    if clusters == 1:
        assert (values.amin(1) < maps.mean((1, 2))).all()
    else:
        # levels and a sample of rows move the boundary a little
        boundary = kmeans_1d(maps, clusters).boundaries[:, -1]
        tolerance = 0.03 * (maps.amax((1, 2)) - maps.amin((1, 2)))
        assert (values.amin(1) > boundary - tolerance).all()


def test_other_choices_of_cluster() -> None:
    torch.manual_seed(0)
    maps = (torch.arange(64 * 64) % 4).float().view(1, 64, 64).expand(64, -1, -1) / 3
    assert (_draw(maps, "max")[0] == 1).all()
    assert (_draw(maps, "min")[0] == 0).all()
    values = _draw(maps, "random")[0]
    assert (values == values[:, :1]).all()  # one cluster for each map
    assert len(values[:, 0].unique()) == 4


def test_pixels_are_sampled_uniformly() -> None:
    torch.manual_seed(0)
    maps = torch.zeros(1, 12, 20)
    maps[0, 2:4, 3:18] = 1
    maps[0, 9, 5:8] = 1
    _, pixels = _draw(maps, clusters=2, number=33 * 200)
    counts = torch.bincount(pixels[0, :, 0] * 20 + pixels[0, :, 1], minlength=240)
    assert (counts[maps.flatten() == 0] == 0).all()
    assert stats.chisquare(counts[maps.flatten() == 1].numpy()).pvalue > 0.01


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_all_of_a_flat_map_is_salient(value: float) -> None:
    torch.manual_seed(0)
    _, pixels = _draw(torch.full((1, 10, 10), value), number=20_000)
    counts = torch.bincount(pixels[0, :, 0] * 10 + pixels[0, :, 1], minlength=100)
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


@pytest.mark.parametrize("size", [64, 256])
def test_one_hot_pixel_is_too_few(size: int) -> None:
    torch.manual_seed(0)
    maps = torch.rand(1, size, size) * 0.1
    maps[0, 0, 0] = 50.0
    _, pixels = _draw(maps, clusters=2)
    assert len((pixels[0, :, 0] * size + pixels[0, :, 1]).unique()) > 100


def test_too_few_pixels_are_replaced_by_the_300_most_salient() -> None:
    torch.manual_seed(0)
    maps = torch.linspace(0, 1, 64 * 64).view(1, 64, 64).clone()
    maps[0, 0, 0] = 50.0
    # apart from the hot pixel all values share one level: more than 300 are taken, not fewer
    values, _ = _draw(maps, clusters=2, number=3000)
    assert len(values.unique()) > 300
    maps[0, 0, 0] = 1.6
    values, _ = _draw(maps, clusters=4, number=3000)
    inside = salient_mask(maps, 4, "max", torch.zeros(1))
    assert inside.sum() >= 2
    assert values.min() >= maps[inside].min()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    maps = _smooth(64, 64).to(dtype)
    values, _ = _draw(maps)
    assert (values >= kmeans_1d(maps, 4).boundaries[:, -1:] - 0.05).all()


def test_an_empty_batch_has_no_pixels() -> None:
    assert _draw(torch.rand(0, 16, 16))[1].shape == (0, 400, 2)
    assert sample_top(torch.rand(0, 16, 16), 300, torch.rand(0, 5, 2)).shape == (0, 5, 2)


def test_the_most_salient_pixels() -> None:
    torch.manual_seed(0)
    maps = torch.rand(3, 40, 30)
    pixels = sample_top(maps, 300, torch.rand(3, 5000, 2))
    flat = pixels[..., 0] * 30 + pixels[..., 1]
    for index in range(3):
        top = set(maps[index].flatten().topk(300).indices.tolist())
        assert set(flat[index].tolist()) == top
    # a map of fewer pixels than asked for
    assert sample_top(maps[:, :8, :8], 300, torch.rand(3, 50, 2)).max() < 8


@pytest.mark.parametrize("size", [16, 400])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_maps_that_are_not_finite_are_refused(size: int, bad: float) -> None:
    # the pixel is one that k-means does not look at in the large map
    maps = torch.rand(2, size, size)
    maps[1, 1, 1] = bad
    with pytest.raises(RuntimeError, match="finite"):
        salient_mask(maps, 4, "max", torch.rand(2))
    with pytest.raises(RuntimeError, match="finite"):
        sample_top(maps, 300, torch.rand(2, 3, 2))


def test_extremes_that_k_means_does_not_see_belong_to_the_clusters_at_the_ends() -> None:
    torch.manual_seed(0)
    maps = 0.4 + 0.2 * torch.rand(1, 400, 400)
    maps[0, 1::3, 1::3] = 0.0
    maps[0, 2::3, 2::3] = 1.0
    assert 0.2 < (_draw(maps, "min", 2, 4000)[0] == 0).float().mean() < 0.3
    assert 0.2 < (_draw(maps, "max", 2, 4000)[0] == 1).float().mean() < 0.3


def test_the_greatest_draws_there_are() -> None:
    maps = torch.zeros(1, 256, 256)
    maps[0, :200] = 1.0
    draws = torch.full((1, 1, 2), 1 - 2**-24)
    assert (draws < 1).all()
    assert sample_inside(salient_mask(maps, 2, "max", torch.zeros(1)), draws).tolist() == [[[199, 255]]]


def test_compiles_as_one_graph() -> None:
    maps, draws, draw = torch.rand(2, 32, 32), torch.rand(2, 5, 2), torch.rand(2)

    def anchors() -> Tensor:
        return sample_inside(salient_mask(maps, 4, "max", draw), draws)

    assert (torch.compile(anchors, fullgraph=True, backend="eager")() == anchors()).all()
