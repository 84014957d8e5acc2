"""Textures: painted anew each time, with the same statistics."""

import numpy as np
import pytest

from anomalib_spd.data.synthetic_parts.textures import SIZE, Texture, draw_color, log_uniform


def _texture(seed: int, **settings: object) -> Texture:
    texture = Texture(np.random.default_rng(seed))
    texture.__dict__.update(settings)
    return texture


@pytest.mark.parametrize("seed", range(6))
def test_one_texture_painted_twice_differs_and_looks_alike(seed: int) -> None:
    texture = _texture(seed, strength=0.1, form="plain", pattern=None, tint=0.0)
    one, other = (texture.paint(np.random.default_rng(number), 0.0)[..., 0] for number in (0, 1))
    assert one.shape == (SIZE, SIZE)
    # coarse grain has few degrees of freedom
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.9
    assert one.std() == pytest.approx(0.1, rel=1e-3)
    # the same differences between neighboring pixels
    rough = [np.diff(each, axis=0).std() for each in (one, other)]
    assert rough[0] == pytest.approx(rough[1], rel=0.25)


def test_a_pattern_repeats_by_its_period_across_its_lines() -> None:
    texture = _texture(
        0, strength=0.0, pattern="lines", period=16.0, angle=0.0, contrast=0.2, sharpness=3.0, bend=0.0, tint=0.0
    )
    lines = texture.paint(np.random.default_rng(0), 0.0)[..., 0]
    np.testing.assert_allclose(lines[:, 16:], lines[:, :-16], atol=1e-4)
    np.testing.assert_allclose(lines, lines[:1].repeat(SIZE, 0), atol=1e-6)
    assert lines.max() == pytest.approx(0.2, rel=0.02)
    # rotated with the part
    turned = texture.paint(np.random.default_rng(0), np.pi / 2)[..., 0]
    np.testing.assert_allclose(turned, turned[:, :1].repeat(SIZE, 1), atol=1e-4)


@pytest.mark.parametrize("form", ["plain", "patches", "spots", "veins"])
@pytest.mark.parametrize("pattern", [None, "lines", "checks", "threads"])
def test_all_forms_are_finite_and_small(form: str, pattern: str | None) -> None:
    for seed in range(3):
        surface = _texture(seed, form=form, pattern=pattern).paint(np.random.default_rng(seed), 0.3)
        assert surface.shape[:2] == (SIZE, SIZE)
        assert np.isfinite(surface).all()
        assert abs(surface.mean()) < 0.5


def test_colors_are_within_range_and_half_of_them_nearly_gray() -> None:
    random = np.random.default_rng(0)
    colors = np.stack([draw_color(random) for _ in range(2000)])
    assert colors.min() >= 0
    assert colors.max() <= 0.9
    saturation = 1 - colors.min(1) / colors.max(1)
    assert 0.5 < (saturation <= 0.15).mean() < 0.6


def test_each_doubling_is_as_likely() -> None:
    random = np.random.default_rng(0)
    drawn = np.array([log_uniform(random, 1, 16) for _ in range(4000)])
    assert np.histogram(drawn, [1, 2, 4, 8, 16])[0] == pytest.approx([1000] * 4, abs=120)
