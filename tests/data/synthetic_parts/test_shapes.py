"""Shapes: their outlines and the area that they cover."""

from typing import get_args

import numpy as np
import pytest

from anomalib_spd.data.synthetic_parts.shapes import Form, Shape, draw_shapes
from anomalib_spd.data.synthetic_parts.textures import SIZE, X, Y

RIGHT, BELOW = X - SIZE / 2, Y - SIZE / 2


def _shape(form: Form, **settings: object) -> Shape:
    shape = Shape(np.random.default_rng(0), 60, [(0.0, 0.0, 0.0)])
    plain = {
        "form": form,
        "size": 60.0,
        "aspect": 1.0,
        "edge": 0.0,
        "shade": np.zeros(2),
        "color": np.ones(3, np.float32),
    }
    shape.__dict__.update({**plain, **settings})
    shape.texture.__dict__.update(strength=0.0, pattern=None, tint=0.0)
    return shape


def _covered(shape: Shape) -> np.ndarray:
    black = np.zeros((SIZE, SIZE, 3), np.float32)
    return shape.cover(np.random.default_rng(0), black, RIGHT, BELOW, 0.0, 0.0, 0.0)[..., 0]


@pytest.mark.parametrize(
    ("form", "settings", "area"),
    [
        ("ellipse", {}, np.pi * 60**2),
        ("ellipse", {"aspect": 0.5}, np.pi * 60 * 30),
        ("box", {"corner": 0.0}, 120**2),
        ("box", {"corner": 0.4}, 120**2 - (4 - np.pi) * 24**2),
        ("ring", {"width": 0.2}, np.pi * (60**2 - 36**2)),
        ("capsule", {"width": 0.3}, np.pi * 18**2 + 84 * 36),
        ("polygon", {"teeth": 6}, 3 * np.sqrt(3) / 4 * 60**2 * 1.0),
        ("polygon", {"teeth": 3}, 3 * np.sqrt(3) / 2 * 60**2),
        ("gear", {"depth": 0.1, "teeth": 10}, np.pi * 60**2),
        ("blob", {"waves": [(3, 0.1, 0.5)]}, np.pi * 60**2 * (1 + 0.1**2 / 2)),
    ],
)
def test_a_shape_covers_its_area(form: Form, settings: dict[str, object], area: float) -> None:
    """Polygons have 3 + teeth % 6 corners; a gear has as much tooth as gap."""
    assert _covered(_shape(form, **settings)).sum() == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("form", get_args(Form))
def test_outlines_are_smooth_and_the_rest_is_unchanged(form: Form) -> None:
    covered = _covered(_shape(form))
    assert set(np.unique(covered[[0, -1]])) == {0.0}
    assert covered.max() == 1
    assert ((covered > 0) & (covered < 1)).any()


def test_a_shape_stands_at_all_of_its_positions() -> None:
    positions = [(-60.0, 0.0, 0.0), (60.0, 0.0, 0.0), (0.0, 60.0, 0.0)]
    covered = _covered(_shape("ellipse", size=10.0, positions=positions))
    for x, y, _ in positions:
        assert covered[int(SIZE / 2 + y), int(SIZE / 2 + x)] == 1
    assert covered.sum() == pytest.approx(3 * np.pi * 10**2, rel=0.05)


def test_a_rounded_edge_is_lit_on_one_side_and_dark_on_the_other() -> None:
    lit = _covered(_shape("ellipse", edge=10.0, gloss=0.5))
    row = lit[SIZE // 2]
    left, right = row[SIZE // 2 - 55], row[SIZE // 2 + 55]
    assert left == pytest.approx(1.5, abs=0.05)
    assert right == pytest.approx(0.5, abs=0.05)
    assert row[SIZE // 2] == pytest.approx(1)


def test_a_part_has_a_body_and_one_to_six_shapes_more() -> None:
    drawn = [draw_shapes(np.random.default_rng(seed)) for seed in range(60)]
    assert {len(shapes) for shapes in drawn} == set(range(2, 8))
    assert all(shapes[0].positions == [(0.0, 0.0, 0.0)] and shapes[0].size >= 36 for shapes in drawn)
    assert max(len(shape.positions) for shapes in drawn for shape in shapes) > 9
