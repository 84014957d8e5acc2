"""CutSwap: pixels are exchanged and none is lost, and the patches lie where saliency or anchors say."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from anomalib_spd.augmentation import RandomCutSwap
from anomalib_spd.saliency.clustering import kmeans_1d

# patches of one pixel lie at their anchors exactly
DOT: dict[str, Any] = {"scale": (1e-6, 1e-6), "ratio": (1.0, 1.0)}


def _locations(params: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sizes and the two places, rows and columns int64 (B, 2)."""
    pairs = (("heights", "widths"), ("source_ys", "source_xs"), ("target_ys", "target_xs"))
    sizes, source, target = (torch.stack([params[y], params[x]], 1) for y, x in pairs)
    return sizes, source, target


def _assert_apart_and_inside(params: dict[str, Tensor], size: tuple[int, int]) -> None:
    sizes, source, target = _locations(params)
    assert sizes.min() >= 1
    assert ((source - target).abs() >= sizes).any(1).all()
    for place in (source, target):
        assert place.min() >= 0
        assert (place + sizes <= torch.tensor(size)).all()


def _pixels(image: Tensor) -> list[list[tuple[float, ...]]]:
    """Return the pixels of each image, all channels together, sorted."""
    return [sorted(map(tuple, one.flatten(1).T.tolist())) for one in image]


def _dots(saliency: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    """Return the first and the second anchor (B, 2) that are drawn for each map (B, H, W)."""
    swap = RandomCutSwap(**DOT, **arguments)
    swap(torch.rand(len(saliency), 1, *saliency.shape[-2:]), saliency=saliency)
    _, source, target = _locations(swap._params)
    return source, target


def _at(maps: Tensor, places: Tensor) -> Tensor:
    return maps[torch.arange(len(maps)), places[:, 0], places[:, 1]]


@settings(deadline=None, max_examples=80)
@given(
    height=st.integers(8, 80),
    width=st.integers(8, 80),
    channels=st.integers(1, 4),
    scale=st.sampled_from([(0.02, 0.15), (0.2, 0.25), (0.001, 0.25)]),
    ratio=st.sampled_from([(0.3, 1 / 0.3), (0.05, 20.0), (1.0, 1.0)]),
    where=st.sampled_from(["anywhere", "saliency", "anchors", "corner", "one pixel"]),
    seed=st.integers(0, 2**31),
)
def test_pixels_are_exchanged_and_the_same_again_restores(
    height: int, width: int, channels: int, scale: Any, ratio: Any, where: str, seed: int
) -> None:
    torch.manual_seed(seed)
    image, swap = torch.rand(3, channels, height, width), RandomCutSwap(scale, ratio)
    if where == "anywhere":
        out = swap(image)
    elif where == "saliency":
        out = swap(image, saliency=torch.rand(3, 1, height, width) ** 4)
    else:
        reach = {"anchors": (width, height), "corner": (3, 3), "one pixel": (1, 1)}[where]
        anchors = (torch.rand(3, 5, 2) * torch.tensor(reach)).floor()
        corner = torch.randint(0, 2, (2,)) * (torch.tensor([width, height]) - torch.tensor(reach))
        out = swap(image, anchors=anchors + corner)
    params = swap._params
    _assert_apart_and_inside(params, (height, width))
    assert _pixels(out) == _pixels(image)
    assert (swap(out, params=params) == image).all()
    expected = image.clone()
    for index, ((h, w), (sy, sx), (ty, tx)) in enumerate(zip(*(x.tolist() for x in _locations(params)), strict=True)):
        expected[index, :, sy : sy + h, sx : sx + w] = image[index, :, ty : ty + h, tx : tx + w]
        expected[index, :, ty : ty + h, tx : tx + w] = image[index, :, sy : sy + h, sx : sx + w]
    assert (out == expected).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("cluster", ["max", "min", "random"])
@pytest.mark.parametrize("case", ["noise", "binary", "zeros", "one", "two pixels", "negative", "small"])
def test_any_saliency_map_is_accepted(dtype: torch.dtype, cluster: Any, case: str) -> None:
    torch.manual_seed(0)
    saliency = torch.rand(4, 1, 30, 22)
    if case == "binary":
        saliency = (saliency > 0.7).float()
    elif case in ("zeros", "one", "two pixels"):
        saliency = torch.zeros_like(saliency)
        saliency.flatten(1)[:, : {"zeros": 0, "one": 1, "two pixels": 2}[case]] = 1
    elif case == "negative":
        saliency = -100 * saliency
    elif case == "small":
        saliency = 1e-4 * saliency
    swap = RandomCutSwap(cluster=cluster)
    swap(torch.rand(4, 3, 30, 22), saliency=saliency.to(dtype))
    _assert_apart_and_inside(swap._params, (30, 22))


@pytest.mark.parametrize("size", [(40, 60), (130, 200)])
def test_the_first_patch_lies_in_the_top_cluster(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    saliency = torch.rand(1, *size).square().expand(400, *size)
    boundary = kmeans_1d(saliency[:1], 4).boundaries[0, -1]
    source, target = _dots(saliency)
    # levels are 256 to the map's range; of large maps a part of the pixels is looked at
    tolerance = 2 / 255 if size[0] < 100 else 0.03
    for place in (source, target):
        assert _at(saliency, place).min() > boundary - tolerance
        assert _at(saliency, place).min() < boundary + 0.1


@settings(deadline=None, max_examples=30)
@given(height=st.integers(12, 60), width=st.integers(12, 60), seed=st.integers(0, 2**31))
def test_patches_begin_in_the_salient_part_unless_shifted_inwards(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    # of two levels, the higher is the top cluster
    salient = torch.rand(8, height, width) > 0.95
    salient[:, :2, :2] = salient[:, -2:, -2:] = True
    swap = RandomCutSwap()
    swap(torch.rand(8, 3, height, width), saliency=0.3 + 0.5 * salient)
    sizes, source, target = _locations(swap._params)
    limits = torch.tensor([height, width])
    for index in range(8):
        begins = torch.minimum(salient[index].nonzero(), limits - sizes[index]).tolist()
        assert source[index].tolist() in begins
        assert target[index].tolist() in begins


def test_other_clusters_are_chosen() -> None:
    torch.manual_seed(0)
    saliency = torch.zeros(300, 20, 20)
    saliency[:, :10] = 1
    maximum, minimum = (_dots(saliency, clusters=2, cluster=cluster) for cluster in ("max", "min"))
    chosen = _dots(saliency, clusters=2, cluster="random")
    assert all((_at(saliency, place) == 1).all() for place in maximum)
    assert all((_at(saliency, place) == 0).all() for place in minimum)
    # one cluster for both, either as often
    first, second = (_at(saliency, place) for place in chosen)
    assert (first == second).all()
    assert stats.binomtest(int(first.sum()), 300).pvalue > 0.01


def test_the_lowest_cluster_of_fewer_levels_than_clusters() -> None:
    torch.manual_seed(0)
    saliency = torch.zeros(100, 20, 20)
    saliency[:, :10] = 1
    assert all((_at(saliency, place) == 0).all() for place in _dots(saliency, clusters=4, cluster="min"))


def test_the_top_pixels_are_chosen() -> None:
    torch.manual_seed(0)
    saliency = torch.rand(1, 40, 40).expand(2000, 40, 40)
    rank = saliency[0].flatten().argsort(descending=True).argsort().view(40, 40).expand_as(saliency)
    for place in _dots(saliency, top=300):
        counts = _at(rank, place).bincount()
        assert len(counts) <= 300
        assert stats.chisquare(counts.numpy()).pvalue > 0.01
    with pytest.raises(ValueError, match="`top` 2 pixels or more"):
        RandomCutSwap(top=1)


@pytest.mark.parametrize("case", ["no map", "flat", "one cluster", "more top than pixels"])
def test_all_pixels_are_salient(case: str) -> None:
    torch.manual_seed(0)
    saliency = torch.full((4000, 6, 9), 0.3) if case == "flat" else torch.rand(4000, 6, 9)
    if case == "no map":
        swap = RandomCutSwap(**DOT)
        swap(torch.rand(4000, 1, 6, 9))
        places = _locations(swap._params)[1:]
    else:
        more = {"flat": {}, "one cluster": {"clusters": 1}, "more top than pixels": {"top": 300}}[case]
        places = _dots(saliency, **more)
    for place in places:
        counts = (place[:, 0] * 9 + place[:, 1]).bincount(minlength=54)
        assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_a_single_hot_pixel_falls_back_to_the_most_salient() -> None:
    torch.manual_seed(0)
    saliency = torch.rand(64, 64)
    saliency[20, 30] = 10
    maps = saliency.expand(2000, 64, 64)
    least = saliency.flatten().sort(descending=True).values[299]
    for place in _dots(maps):
        # up to a few of 256 levels
        assert _at(maps, place).min() >= least - 3 * 10 / 255
        assert 250 < len(place.unique(dim=0)) < 1000


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_anchors_are_uniform_over_the_region(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    saliency = torch.zeros(1500, 16, 20, dtype=dtype)
    # rows of different lengths, in pieces
    for row, columns in ((0, [0]), (3, [2, 3, 4, 17]), (4, [5, 19]), (15, [0, 7, 8, 9, 19])):
        saliency[:, row, columns] = 1
    region = saliency[0].flatten().nonzero()[:, 0]
    for place in _dots(saliency):
        counts = (place[:, 0] * 20 + place[:, 1]).bincount(minlength=320)
        assert counts.sum() == counts[region].sum()
        assert stats.chisquare(counts[region].numpy()).pvalue > 0.01


def test_maps_of_either_rank_and_dtype_say_the_same() -> None:
    image, saliency = torch.rand(3, 3, 24, 32), torch.rand(3, 24, 32).half()
    outs = []
    for given_map in (saliency, saliency[:, None], saliency.float(), saliency.double()):
        torch.manual_seed(0)
        outs.append(RandomCutSwap()(image, saliency=given_map))
    assert all((out == outs[0]).all() for out in outs)
    torch.manual_seed(0)
    assert (RandomCutSwap()(image) != outs[0]).any()


def test_given_anchors_are_where_patches_begin() -> None:
    # columns, rows
    anchors = torch.tensor([[[3.0, 10.0], [4.0, 10.0], [25.0, 2.0]], [[39.0, 0.0], [0.0, 29.0], [0.0, 0.0]]])
    swap = RandomCutSwap(scale=(0.03, 0.03), ratio=(1.0, 1.0))
    swap(torch.rand(2, 3, 30, 40), anchors=anchors)
    assert swap._params["source_ys"].tolist() == [10, 0]
    assert swap._params["source_xs"].tolist() == [3, 34]
    assert swap._params["target_ys"].tolist() == [2, 24]
    assert swap._params["target_xs"].tolist() == [25, 0]


def test_maps_stay_each_images_own_on_the_same_batch() -> None:
    torch.manual_seed(0)
    saliency = torch.zeros(2, 20, 20)
    saliency[0, :5, :5] = saliency[1, 15:, 15:] = 1
    source, target = _dots(saliency, same_on_batch=True)
    assert (source[1] - source[0]).tolist() == [15, 15] == (target[1] - target[0]).tolist()


def test_compiles_with_a_map_as_one_graph() -> None:
    torch._dynamo.reset()
    image, saliency, swap = torch.rand(2, 3, 24, 32), torch.rand(2, 1, 24, 32), RandomCutSwap()
    torch.manual_seed(0)
    out = torch.compile(swap, fullgraph=True, backend="eager")(image, saliency=saliency)
    torch.manual_seed(0)
    assert (out == swap(image, saliency=saliency)).all()
