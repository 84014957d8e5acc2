"""Part categories: deterministic, unlike each other, and their good parts alike."""

from typing import Any

import numpy as np
import pytest

from anomalib_spd.data.synthetic_parts import PartCategory
from anomalib_spd.data.synthetic_parts.textures import SIZE


def _category(**wanted: object) -> PartCategory:
    """The first category with these attributes."""
    categories = (PartCategory(number) for number in range(500))
    return next(each for each in categories if all(getattr(each, name) == value for name, value in wanted.items()))


def test_a_number_is_the_same_image_everywhere() -> None:
    one, again = PartCategory(3, seed=1), PartCategory(3, seed=1)
    assert np.array_equal(one.image(2), again.image(2))
    again.image(7)  # in whatever order
    assert np.array_equal(one.image(2), again.image(2))
    assert not np.array_equal(one.image(2), one.image(3))
    assert not np.array_equal(one.image(2), PartCategory(4, seed=1).image(2))
    assert not np.array_equal(one.image(2), PartCategory(3, seed=2).image(2))


def test_images_are_bytes_of_three_colors() -> None:
    images = [PartCategory(number).image(0) for number in range(12)]
    assert all(each.shape == (SIZE, SIZE, 3) and each.dtype == np.uint8 for each in images)
    # they vary, and are not all black or white
    assert np.std([each.mean() for each in images]) > 20
    assert np.mean([each.std() for each in images]) > 10


def test_parts_of_one_category_are_more_alike_than_those_of_two() -> None:
    categories = [[PartCategory(number).image(each).astype(float) for each in range(2)] for number in range(20)]
    same = np.array([np.abs(one - other).mean() for one, other in categories])
    others = np.array([np.abs(categories[number][0] - categories[number - 1][0]).mean() for number in range(20)])
    assert np.median(same) < 0.5 * np.median(others)


class _Witness:
    """Stands for a shape, and records the pose of the part."""

    def __init__(self) -> None:
        self.poses: list[tuple[float, float, float, float]] = []

    def cover(self, random: Any, image: Any, x: Any, y: Any, angle: float, *_: float) -> Any:
        across, along = np.diff(x[0])[0], np.diff(y[0])[0]
        center = np.unravel_index(np.argmin(x**2 + y**2), x.shape)
        # the frame is rotated by the angle
        assert np.arctan2(-along, across) == pytest.approx((angle + np.pi) % (2 * np.pi) - np.pi, abs=1e-3)
        self.poses.append((angle, *(float(each) - SIZE / 2 for each in center), 1 / np.hypot(across, along)))
        return image


def test_fixed_parts_lie_still_and_others_turn() -> None:
    poses: dict[str, list[Any]] = {"fixed": [], "loose": [], "any": []}
    for category in filter(lambda category: category.shapes, map(PartCategory, range(60))):
        witness: Any = _Witness()
        category.shapes = [witness]
        for number in range(3):
            category.image(number)
        poses[category.pose] += witness.poses
    deviation = {pose: np.std(values, axis=0) for pose, values in poses.items()}
    assert deviation["fixed"][0] < 0.02 < 0.08 < deviation["loose"][0] < 0.2 < 1 < deviation["any"][0]
    assert (deviation["fixed"][1:3] < 1.5).all()
    assert (deviation["loose"][1:3] > 2.5).all()
    assert (deviation["any"][1:3] > 4).all()
    assert deviation["fixed"][3] < 0.007 < deviation["any"][3] < 0.03


def test_gray_categories_are_gray_but_not_all_are() -> None:
    gray = _category(is_gray=True).image(0)
    assert (gray == gray[..., :1]).all()
    colored = _category(is_gray=False).image(0)
    assert not (colored == colored[..., :1]).all()


@pytest.mark.parametrize("has_shapes", [True, False])
def test_both_parts_and_surfaces_come(has_shapes: bool) -> None:
    share = np.mean([bool(PartCategory(number).shapes) == has_shapes for number in range(200)])
    assert share == pytest.approx(0.65 if has_shapes else 0.35, abs=0.1)
