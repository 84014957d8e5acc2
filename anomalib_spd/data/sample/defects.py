"""Synthetic defects of the embedded sample: one function per defect, listed in `DEFECTS`.

Neither SPD (which blends a color-jittered patch into the image) nor CutSwap (which swaps rectangles within the image) draws
such changes, so that a model trained with either has not seen the test's answer. Source: ours.
"""

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from skimage import draw, filters, transform

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Defect = Callable[[Floats, np.random.Generator], tuple[Floats, Bools]]
"""Function that draws one defect into an RGB image of shape (H, W, 3), values in [0, 1]; the generator decides shape and
position. Returns the drawn image (clipped to [0, 1] later) and its support of shape (H, W): changes outside are ignored."""

SIZE = 256
"""Height and width of every image and mask, in pixels."""

# pixels between drawn lines and the border, so that np.roll carries nothing to the other side
_RIM = 10


def _scratch(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Draw a curved groove with a bright lip."""
    start, direction, length = _position(rng, 70), rng.uniform(0, 2 * np.pi), rng.uniform(80, 140)
    along = np.array([np.sin(direction), np.cos(direction)])
    across = along[::-1] * (1.0, -1.0)
    end = np.clip(start + length * along, _RIM, SIZE - 1 - _RIM)
    middle = (start + end) / 2 + rng.uniform(-25, 25) * across
    (r0, c0), (r1, c1), (r2, c2) = np.rint([start, middle, end]).astype(int)
    core = np.zeros(image.shape[:2])
    core[draw.bezier_curve(r0, c0, r1, c1, r2, c2, weight=1.0)] = 1
    groove = _peak_one(filters.gaussian(core, rng.uniform(1.0, 1.5)))
    lip = np.roll(groove, (2, 1), axis=(0, 1)) * (1 - groove)
    depth = rng.uniform(0.65, 0.85)
    drawn = image * (1 - depth * groove[..., None]) + 0.30 * lip[..., None]
    return drawn, np.maximum(groove, lip) > 0.15


def _stain(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Soak a smooth blob: multiply the image by a tint that is strongest at the rim."""
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    waves = sum(rng.uniform(-0.5, 0.5) / k * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(2, 6))
    radius = rng.uniform(16, 30) * (1 + 0.6 * np.asarray(waves))
    row, column = _position(rng, 50)
    outline = np.stack([row + radius * np.sin(angles), column + radius * np.cos(angles)], axis=1)
    blob = draw.polygon2mask(image.shape[:2], outline).astype(float)
    soaked = filters.gaussian(blob, 1.5)
    rim = np.clip(soaked - filters.gaussian(blob, 5), 0, None)
    tint = np.array([(0.72, 0.60, 0.46), (0.62, 0.64, 0.70), (0.66, 0.52, 0.74)][rng.integers(3)])
    strength = np.clip(soaked * 0.9 + rim * 0.8, 0, 1.3)[..., None]
    return image * (1 - strength * (1 - tint)), soaked > 0.1


def _hole(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Punch one to three elliptic holes, dark, with some light on their lower right walls."""
    holes = np.zeros(image.shape[:2])
    center = _position(rng, 50)
    for _ in range(rng.integers(1, 4)):
        row, column = center + rng.uniform(-22, 22, 2)
        high, wide = rng.uniform(5, 10, 2)
        holes[draw.ellipse(row, column, high, wide, rotation=rng.uniform(-np.pi, np.pi))] = 1
    edge = filters.gaussian(holes, 0.7)
    wall = edge * (1 - filters.gaussian(np.roll(holes, (-3, -3), axis=(0, 1)), 1.0))
    inside = image * (0.18 + 0.45 * wall[..., None])
    return image + edge[..., None] * (inside - image), edge > 0.1


def _dent(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Press a round dent: the texture is pulled towards or from its center, and half of it is shaded."""
    row, column = _position(rng, 50)
    radius = rng.uniform(24, 36)
    power = rng.choice([-0.35, 0.8])
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    down, right = (rows - row) / radius, (columns - column) / radius
    distance = np.hypot(down, right)
    # 1 at the border and outside, so that the texture continues into the surroundings
    pull = np.clip(distance, 0.05, 1) ** power
    source = np.stack([row + down * pull * radius, column + right * pull * radius])
    warped = np.stack([transform.warp(image[..., c], source, order=1, mode="edge") for c in range(3)], axis=-1)
    light = rng.uniform(0, 2 * np.pi)
    slope = np.sin(light) * down + np.cos(light) * right
    shade = 1 + 0.45 * slope * np.sin(np.pi * np.clip(distance, 0, 1))
    return warped * shade[..., None], distance < 0.98


def _thread(image: Floats, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Lay a wavy colored fiber on the surface, with its shadow."""
    steps = rng.integers(32, 55)
    directions = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(rng.uniform(-0.08, 0.08), 0.16, steps))
    path = np.cumsum(3 * np.stack([np.sin(directions), np.cos(directions)], axis=1), axis=0)
    path = np.clip(np.rint(path - path.mean(axis=0) + _position(rng, 80)), _RIM, SIZE - 1 - _RIM).astype(int)
    fiber = np.zeros(image.shape[:2])
    for (r0, c0), (r1, c1) in itertools.pairwise(path):
        fiber[draw.line(r0, c0, r1, c1)] = 1
    fiber = _peak_one(filters.gaussian(fiber, rng.uniform(0.8, 1.1)))
    shadow = np.roll(fiber, (3, 2), axis=(0, 1))
    color = np.array([(0.97, 0.95, 0.90), (0.25, 0.33, 0.60), (0.62, 0.20, 0.22)][rng.integers(3)])
    shaded = image * (1 - 0.4 * shadow[..., None])
    return shaded + 0.9 * fiber[..., None] * (color - shaded), np.maximum(fiber, shadow) > 0.15


def _position(rng: np.random.Generator, margin: float) -> Floats:
    return rng.uniform(margin, SIZE - margin, 2)


def _peak_one(profile: Floats) -> Floats:
    scaled: Floats = profile / profile.max()
    return scaled


DEFECTS: dict[str, Defect] = {
    "dent": _dent,
    "hole": _hole,
    "scratch": _scratch,
    "stain": _stain,
    "thread": _thread,
}
"""Defects by name, the prefix of the file names."""
