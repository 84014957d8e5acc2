"""Categories of synthetic parts and surfaces: what all parts of one share, and how good ones differ."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from anomalib_spd.data.synthetic_parts.shapes import draw_shapes
from anomalib_spd.data.synthetic_parts.textures import SIZE, Floats, Texture, X, Y, draw_color

Pose = Literal["fixed", "loose", "any"]

#: how parts lie under the camera: standard deviations of rotation (radians), shift (pixels) and log zoom
_ROTATION = {"fixed": 0.01, "loose": 0.12}
_SHIFT = {"fixed": 1.0, "loose": 4.0, "any": 7.0}
_ZOOM = {"fixed": 0.004, "loose": 0.02, "any": 0.02}


class PartCategory:
    """One category of parts on a background, or of surfaces, as a camera above a production line sees it.

    The number of the category decides shapes, materials, light and camera. Drawn for each image, as good parts differ: pose
    within what the category allows, grain and phase of textures, sizes by a percent or two, brightness, specks in some
    categories, and the camera's noise.

    Source: ours. It follows domain randomization (Tobin et al., IROS 2017): images need not look real if they vary more than
    real ones do.

    Args:
        number: of the category, not negative; the same number is the same category everywhere.
        seed: of all categories.
    """

    def __init__(self, number: int, seed: int = 0) -> None:
        self._key = (seed, number)
        random = np.random.default_rng(self._key)
        self.shapes = draw_shapes(random) if random.random() < 0.65 else []
        self.background = draw_color(random)
        self.grounds = [Texture(random) for _ in range(random.integers(1, 3))]
        self.is_gray = random.random() < 0.3
        poses: tuple[Pose, ...] = ("fixed", "loose", "any")
        self.pose: Pose = poses[random.choice(3, p=(0.45, 0.35, 0.2))]
        self.tolerance = random.uniform(0, 0.02)
        self.light, self.falloff = random.uniform(0, 2 * np.pi), random.normal(0, 0.12, 3)
        self.gain, self.hue = random.uniform((0.01, 0), (0.08, 0.03))
        self.specks = random.integers(15) if random.random() < 0.35 else 0
        self.speck_size, self.speck_color = np.exp(random.uniform(0, 1.5)), random.normal(0, 0.2)
        self.noise, self.blur = random.choice((0.003, 0.01, 0.02, 0.04)), random.uniform(0, 1.4)

    def image(self, number: int) -> npt.NDArray[np.uint8]:
        """Return the image of a good part.

        Args:
            number: of the image, not negative; the same number is the same image.

        Returns:
            RGB in ``[0, 255]``, ``(256, 256, 3)``.
        """
        random = np.random.default_rng((*self._key, number))
        angle = random.normal(0, _ROTATION[self.pose]) if self.pose in _ROTATION else random.uniform(0, 2 * np.pi)
        center = SIZE / 2 + random.normal(0, _SHIFT[self.pose], 2)
        zoom = np.exp(random.normal(0, _ZOOM[self.pose]))
        image = self.background + self._paint_ground(random, 0 if self.shapes else angle)
        right, below = (X - center[0]) / zoom, (Y - center[1]) / zoom
        x, y = np.cos(angle) * right + np.sin(angle) * below, np.cos(angle) * below - np.sin(angle) * right
        light = self.light + random.normal(0, 0.1)
        for shape in self.shapes:
            image = shape.cover(random, image, x, y, angle, light, self.tolerance)
        return self._photograph(random, self._illuminate(random, self._add_specks(random, image)))

    def _paint_ground(self, random: np.random.Generator, angle: float) -> Floats:
        first, *others = (ground.paint(random, angle) for ground in self.grounds)
        return sum((0.6 * other for other in others), first)

    def _add_specks(self, random: np.random.Generator, image: Floats) -> Floats:
        for _ in range(random.poisson(self.specks)):
            x, y = random.uniform(0, SIZE, 2)
            size = self.speck_size * random.uniform(0.6, 1.4)
            image = image + self.speck_color * np.exp(-((X - x) ** 2 + (Y - y) ** 2) / size**2)[..., None]
        return image

    def _illuminate(self, random: np.random.Generator, image: Floats) -> Floats:
        """Apply a lamp that is brighter on one side, and a gain and hue that vary between parts."""
        falloff = self.falloff + random.normal(0, 0.02, 3)
        right, below = 2 * X / SIZE - 1, 2 * Y / SIZE - 1
        lamp = 1 + falloff[0] * right + falloff[1] * below + falloff[2] * (right**2 + below**2)
        color = 1 + random.normal(0, self.gain) + random.normal(0, self.hue, 3)
        lit: Floats = image * (lamp[..., None] * color)
        return lit

    def _photograph(self, random: np.random.Generator, image: Floats) -> npt.NDArray[np.uint8]:
        """Apply the camera: gray levels for some, blur, noise, 8 bits."""
        if self.is_gray:
            image = image.mean(-1, keepdims=True)
        image = ndimage.gaussian_filter(image, (self.blur, self.blur, 0), truncate=2.5)
        noisy = np.clip(image + random.normal(0, self.noise, image.shape), 0, 1)
        return np.broadcast_to((255 * noisy).round().astype(np.uint8), (SIZE, SIZE, 3))
