"""The locations of two patches that swap, against a brute-force search over all shares of their size."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anomalib_spd.augmentation.swap_locations import swap_locations

Pair = tuple[int, int]


def _placed(anchor: Pair, size: Pair, image: Pair) -> Pair:
    return min(anchor[0], image[0] - size[0]), min(anchor[1], image[1] - size[1])


def _fit(first: Pair, second: Pair, size: Pair, image: Pair) -> bool:
    """Whether patches at two anchors, shifted inwards, share no pixel."""
    (y1, x1), (y2, x2) = _placed(first, size, image), _placed(second, size, image)
    return abs(y1 - y2) >= size[0] or abs(x1 - x2) >= size[1]


def _half_the_image_away(anchor: Pair, image: Pair) -> Pair:
    return (anchor[0] + image[0] // 2) % image[0], (anchor[1] + image[1] // 2) % image[1]


def _largest_share(anchors: list[Pair], size: Pair, image: Pair) -> float:
    """Return the largest share of ``size`` at which one of the other anchors leaves room."""
    others = [anchor for anchor in anchors[1:] if anchor != anchors[0]]
    others = others or [_half_the_image_away(anchors[0], image)]
    shares = sorted({n / side for side in size for n in range(1, side + 1)}, reverse=True)
    for share in shares:
        # the pixels that a patch of exactly this share touches
        shrunk = math.ceil(size[0] * share - 1e-6), math.ceil(size[1] * share - 1e-6)
        if any(_fit(anchors[0], other, shrunk, image) for other in others):
            return share
    return 0.0


def _swap(anchors: list[list[Pair]], sizes: list[Pair], image: Pair) -> list[dict[str, int]]:
    heights, widths = torch.tensor(sizes).T
    locations = swap_locations(torch.tensor(anchors), heights, widths, image)
    used = locations.pop("anchors")
    assert all(value.dtype == torch.int64 and value.shape == (len(sizes),) for value in locations.values())
    # columns and rows, of which the patches may have been shifted
    assert used.dtype == torch.int64
    assert used[:, 0].flip(1).tolist() == [list(own[0]) for own in anchors]
    for (x, y), height, width, *target in zip(
        used[:, 1].tolist(),
        *(locations[k].tolist() for k in ("heights", "widths", "target_ys", "target_xs")),
        strict=True,
    ):
        assert _placed((y, x), (height, width), image) == tuple(target)
    return [{key: int(value[index]) for key, value in locations.items()} for index in range(len(sizes))]


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[list[Pair]], list[Pair], Pair]:
    image = draw(st.integers(2, 24)), draw(st.integers(2, 24))
    # where anchors crowd, they lie within so many pixels of one corner
    spread = draw(st.sampled_from([1, 2, 4, 24]))
    corner = draw(st.booleans()), draw(st.booleans())
    batch, number = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    offset = st.integers(0, spread - 1)

    def anchor() -> Pair:
        steps = min(draw(offset), image[0] - 1), min(draw(offset), image[1] - 1)
        rows, columns = (
            limit - 1 - step if far else step for limit, step, far in zip(image, steps, corner, strict=True)
        )
        return rows, columns

    anchors = [[anchor() for _ in range(number)] for _ in range(batch)]
    sizes = []
    for _ in range(batch):
        # two fit side by side
        height, width = draw(st.integers(1, image[0])), draw(st.integers(1, image[1]))
        sizes.append((max(1, height // 2), width) if draw(st.booleans()) else (height, max(1, width // 2)))
    return anchors, sizes, image


@settings(deadline=None, max_examples=400)
@given(case=_cases())
def test_locations_are_those_of_a_search(case: tuple[list[list[Pair]], list[Pair], Pair]) -> None:
    anchors, sizes, image = case
    for own, size, place in zip(anchors, sizes, _swap(anchors, sizes, image), strict=True):
        shrunk = place["heights"], place["widths"]
        source, target = (place["source_ys"], place["source_xs"]), (place["target_ys"], place["target_xs"])
        for y, x in (source, target):
            assert 0 <= y <= image[0] - shrunk[0]
            assert 0 <= x <= image[1] - shrunk[1]
        assert abs(source[0] - target[0]) >= shrunk[0] or abs(source[1] - target[1]) >= shrunk[1]
        # each at an anchor; the second half the image away only where there is no other
        assert source == _placed(own[0], shrunk, image)
        others = [anchor for anchor in own[1:] if anchor != own[0]] or [_half_the_image_away(own[0], image)]
        assert target in [_placed(other, shrunk, image) for other in others]

        fitting = [other for other in others if _fit(own[0], other, size, image)]
        if fitting:
            # the first that fits, at full size
            assert shrunk == size
            assert target == _placed(fitting[0], size, image)
        else:
            share = _largest_share(own, size, image)
            for side, full in zip(shrunk, size, strict=True):
                assert 1 <= side <= full
                assert abs(side - max(1, full * share)) <= 1


def _crowded(anchors: list[Pair], size: Pair, image: Pair) -> dict[str, int]:
    return _swap([anchors], [size], image)[0]


@pytest.mark.parametrize("anchor", [(0, 0), (63, 47), (0, 47), (30, 20), (63, 0)])
def test_one_anchor_for_both_puts_the_second_half_the_image_away(anchor: Pair) -> None:
    image = (64, 48)
    place = _crowded([anchor] * 5, (10, 8), image)
    size = place["heights"], place["widths"]
    assert size == (10, 8)
    assert (place["target_ys"], place["target_xs"]) == _placed(_half_the_image_away(anchor, image), size, image)


def test_shrinking_keeps_the_aspect() -> None:
    place = _crowded([(0, 0), (0, 10), (3, 4)], (40, 20), (100, 100))
    assert (place["heights"], place["widths"]) == (20, 10)
    assert (place["target_ys"], place["target_xs"]) == (0, 10)


def test_no_pixel_is_lost_to_rounding() -> None:
    # every size and every smaller distance
    distances, sizes = torch.combinations(torch.arange(1, 129)).T
    anchors = torch.zeros(len(sizes), 2, 2, dtype=torch.int64)
    anchors[:, 1, 0] = distances
    assert (swap_locations(anchors, sizes, sizes, (512, 512))["heights"] == distances).all()


def test_the_anchor_that_leaves_most_is_taken() -> None:
    place = _crowded([(5, 5), (6, 5), (5, 17), (5, 9)], (20, 20), (64, 64))
    assert (place["heights"], place["target_xs"]) == (12, 17)


def test_images_of_a_batch_do_not_meet() -> None:
    torch.manual_seed(0)
    anchors = torch.randint(0, 30, (8, 4, 2))
    heights, widths = torch.randint(1, 15, (2, 8))
    together = swap_locations(anchors, heights, widths, (30, 30))
    for index in range(8):
        one: dict[str, Tensor] = swap_locations(
            anchors[index : index + 1], heights[index : index + 1], widths[index : index + 1], (30, 30)
        )
        assert all((together[key][index] == one[key][0]).all() for key in one)
