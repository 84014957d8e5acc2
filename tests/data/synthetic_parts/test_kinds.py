"""Kinds of parts: the same each time, unlike each other, and their good parts alike."""

from typing import Any

import numpy as np
import pytest

from anomalib_spd.data.synthetic_parts import Kind
from anomalib_spd.data.synthetic_parts.textures import SIDE


def _kind(**wanted: object) -> Kind:
    """The first kind that is so."""
    kinds = (Kind(number) for number in range(500))
    return next(kind for kind in kinds if all(getattr(kind, name) == value for name, value in wanted.items()))


def test_a_number_is_a_picture_everywhere() -> None:
    one, again = Kind(3, seed=1), Kind(3, seed=1)
    assert np.array_equal(one.picture(2), again.picture(2))
    again.picture(7)  # in whatever order
    assert np.array_equal(one.picture(2), again.picture(2))
    assert not np.array_equal(one.picture(2), one.picture(3))
    assert not np.array_equal(one.picture(2), Kind(4, seed=1).picture(2))
    assert not np.array_equal(one.picture(2), Kind(3, seed=2).picture(2))


def test_pictures_are_bytes_of_three_colors() -> None:
    pictures = [Kind(number).picture(0) for number in range(12)]
    assert all(each.shape == (SIDE, SIDE, 3) and each.dtype == np.uint8 for each in pictures)
    # they vary, and are not all black or white
    assert np.std([each.mean() for each in pictures]) > 20
    assert np.mean([each.std() for each in pictures]) > 10


def test_parts_of_one_kind_are_more_alike_than_those_of_two() -> None:
    kinds = [[Kind(number).picture(each).astype(float) for each in range(2)] for number in range(20)]
    same = np.array([np.abs(one - other).mean() for one, other in kinds])
    others = np.array([np.abs(kinds[number][0] - kinds[number - 1][0]).mean() for number in range(20)])
    assert np.median(same) < 0.5 * np.median(others)


class _Witness:
    """Stands for a shape, and notes where the part lies."""

    def __init__(self) -> None:
        self.lies: list[tuple[float, float, float, float]] = []

    def cover(self, random: Any, picture: Any, x: Any, y: Any, angle: float, *_: float) -> Any:
        across, along = np.diff(x[0])[0], np.diff(y[0])[0]
        middle = np.unravel_index(np.argmin(x**2 + y**2), x.shape)
        # the frame is turned as is said
        assert np.arctan2(-along, across) == pytest.approx((angle + np.pi) % (2 * np.pi) - np.pi, abs=1e-3)
        self.lies.append((angle, *(float(place) - SIDE / 2 for place in middle), 1 / np.hypot(across, along)))
        return picture


def test_fixed_parts_lie_still_and_others_turn() -> None:
    lies: dict[str, list[Any]] = {"fixed": [], "loose": [], "any": []}
    for kind in filter(lambda kind: kind.shapes, map(Kind, range(60))):
        witness: Any = _Witness()
        kind.shapes = [witness]
        for number in range(3):
            kind.picture(number)
        lies[kind.pose] += witness.lies
    spread = {pose: np.std(of_pose, axis=0) for pose, of_pose in lies.items()}
    assert spread["fixed"][0] < 0.02 < 0.08 < spread["loose"][0] < 0.2 < 1 < spread["any"][0]
    assert (spread["fixed"][1:3] < 1.5).all()
    assert (spread["loose"][1:3] > 2.5).all()
    assert (spread["any"][1:3] > 4).all()
    assert spread["fixed"][3] < 0.007 < spread["any"][3] < 0.03


def test_grey_kinds_are_grey_but_not_all_are() -> None:
    grey = _kind(is_grey=True).picture(0)
    assert (grey == grey[..., :1]).all()
    colored = _kind(is_grey=False).picture(0)
    assert not (colored == colored[..., :1]).all()


@pytest.mark.parametrize("has_shapes", [True, False])
def test_both_parts_and_surfaces_come(has_shapes: bool) -> None:
    share = np.mean([bool(Kind(number).shapes) == has_shapes for number in range(200)])
    assert share == pytest.approx(0.65 if has_shapes else 0.35, abs=0.1)
