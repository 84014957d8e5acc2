"""Kinds of parts and surfaces that nobody makes: what all parts of a kind have in common, and how good ones differ."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalib_spd.data.synthetic_parts.shapes import draw_shapes
from anomalib_spd.data.synthetic_parts.textures import SIDE, Floats, Texture, X, Y, draw_color

Pose = Literal["fixed", "loose", "any"]

#: how parts lie under the camera: by how much they are turned (radians), moved (pixels) and near
_TURN = {"fixed": 0.01, "loose": 0.12}
_MOVE = {"fixed": 1.0, "loose": 4.0, "any": 7.0}
_ZOOM = {"fixed": 0.004, "loose": 0.02, "any": 0.02}


class Kind:
    """One kind of part on its background, or one kind of surface, as a camera above a line sees it.

    What is drawn of the kind's number alone: shapes, materials, light and camera. What is drawn for each picture, as good
    parts differ: pose within what the kind allows, grain and phase of textures, sizes by a percent or two, brightness,
    specks where the kind has such, and the camera's noise.

    Source: ours. It follows what is called domain randomisation (Tobin et al., IROS 2017): pictures need not look real, if they vary by
    more than real ones do.

    Args:
        number: of the kind, not negative; the same number is the same kind everywhere.
        seed: of all kinds.
    """

    def __init__(self, number: int, seed: int = 0) -> None:
        self._key = (seed, number)
        random = np.random.default_rng(self._key)
        self.shapes = draw_shapes(random) if random.random() < 0.65 else []
        self.background = draw_color(random)
        self.grounds = [Texture(random) for _ in range(random.integers(1, 3))]
        self.is_grey = random.random() < 0.3
        poses: tuple[Pose, ...] = ("fixed", "loose", "any")
        self.pose: Pose = poses[random.choice(3, p=(0.45, 0.35, 0.2))]
        self.play = random.uniform(0, 0.02)
        self.light, self.falloff = random.uniform(0, 2 * np.pi), random.normal(0, 0.12, 3)
        self.gain, self.hue = random.uniform((0.01, 0), (0.08, 0.03))
        self.specks = random.integers(15) if random.random() < 0.35 else 0
        self.speck_size, self.speck_color = np.exp(random.uniform(0, 1.5)), random.normal(0, 0.2)
        self.noise, self.blur = random.choice((0.003, 0.01, 0.02, 0.04)), random.uniform(0, 1.4)

    def picture(self, number: int) -> npt.NDArray[np.uint8]:
        """Return a good part's picture.

        Args:
            number: of the picture, not negative; the same number is the same picture.

        Returns:
            RGB in ``[0, 255]``, ``(256, 256, 3)``.
        """
        random = np.random.default_rng((*self._key, number))
        angle = random.normal(0, _TURN[self.pose]) if self.pose in _TURN else random.uniform(0, 2 * np.pi)
        middle = SIDE / 2 + random.normal(0, _MOVE[self.pose], 2)
        zoom = np.exp(random.normal(0, _ZOOM[self.pose]))
        picture = self.background + self._ground(random, 0 if self.shapes else angle)
        right, below = (X - middle[0]) / zoom, (Y - middle[1]) / zoom
        x, y = np.cos(angle) * right + np.sin(angle) * below, np.cos(angle) * below - np.sin(angle) * right
        light = self.light + random.normal(0, 0.1)
        for shape in self.shapes:
            picture = shape.cover(random, picture, x, y, angle, light, self.play)
        return self._seen(random, self._lit(random, self._dusted(random, picture)))

    def _ground(self, random: np.random.Generator, angle: float) -> Floats:
        first, *others = (ground.paint(random, angle) for ground in self.grounds)
        return sum((0.6 * other for other in others), first)

    def _dusted(self, random: np.random.Generator, picture: Floats) -> Floats:
        for _ in range(random.poisson(self.specks)):
            x, y = random.uniform(0, SIDE, 2)
            size = self.speck_size * random.uniform(0.6, 1.4)
            picture = picture + self.speck_color * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / size**2)[..., None]
        return picture

    def _lit(self, random: np.random.Generator, picture: Floats) -> Floats:
        """Brighter to one side, as lamps are, and by a little from part to part."""
        falloff = self.falloff + random.normal(0, 0.02, 3)
        right, below = 2 * X / SIDE - 1, 2 * Y / SIDE - 1
        lamp = 1 + falloff[0] * right + falloff[1] * below + falloff[2] * (right**2 + below**2)
        color = 1 + random.normal(0, self.gain) + random.normal(0, self.hue, 3)
        lit: Floats = picture * (lamp[..., None] * color)
        return lit

    def _seen(self, random: np.random.Generator, picture: Floats) -> npt.NDArray[np.uint8]:
        """As the camera gives it: some see grey alone, some are out of focus, all are noisy."""
        if self.is_grey:
            picture = picture.mean(-1, keepdims=True)
        picture = ndimage.gaussian_filter(picture, (self.blur, self.blur, 0), truncate=2.5)
        noisy = np.clip(picture + random.normal(0, self.noise, picture.shape), 0, 1)
        return np.broadcast_to((255 * noisy).round().astype(np.uint8), (SIDE, SIDE, 3))
