"""What parts are made of: shapes with a material, a rounded edge, and places where they stand."""

from typing import Any, Literal, get_args

import numpy as np

from anomalib_spd.data.synthetic_parts.textures import SIDE, Floats, Texture, X, Y, draw_color, log_uniform

Form = Literal["ellipse", "box", "ring", "capsule", "polygon", "gear", "blob"]

Place = tuple[float, float, float]
"""Where a shape stands on its part: x and y in pixels from the middle, and the angle, radians."""


class Shape:
    """A shape of one material, at one or more places of a part.

    Args:
        random: draws what all parts of a kind have in common.
        size: of half of the shape, at most, pixels.
        places: where it stands.
    """

    def __init__(self, random: np.random.Generator, size: float, places: list[Place]) -> None:
        self.places = places
        self.form: Form = get_args(Form)[random.integers(len(get_args(Form)))]
        self.size = size * random.uniform(0.6, 1)
        self.aspect = random.uniform(0.4, 1) if random.random() < 0.6 else 1.0
        self.corner, self.width = random.uniform((0, 0.05), 0.4)
        self.teeth, self.depth = int(random.integers(3, 24)), random.uniform(0.03, 0.2)
        waves = np.arange(2, 7)
        self.waves = list(zip(waves, random.normal(0, 0.15, 5) / waves, random.uniform(0, 2 * np.pi, 5), strict=True))
        self.color, self.texture = draw_color(random), Texture(random)
        self.edge = random.uniform(1, 14) if random.random() < 0.7 else 0.0
        self.gloss = random.uniform(0.1, 0.7)
        self.shade = random.normal(0, 0.15, 2)

    def cover(
        self,
        random: np.random.Generator,
        picture: Floats,
        x: Floats,
        y: Floats,
        angle: float,
        light: float,
        play: float,
    ) -> Floats:
        """Return a picture with the shape painted over it.

        Args:
            random: draws what differs from part to part.
            picture: ``(256, 256, 3)``.
            x: of each pixel, in the part's frame, pixels from its middle; ``(256, 256)``.
            y: likewise.
            angle: by which the part is turned, radians.
            light: where it comes from, radians.
            play: by how much sizes differ from part to part, a share of them.
        """
        distance = np.minimum.reduce([self._at(random, place, x, y, play) for place in self.places])
        surface = self.color + self.texture.paint(random, angle)
        surface = surface + (self.shade[0] * (X / SIDE - 0.5) + self.shade[1] * (Y / SIDE - 0.5))[..., None].astype(
            np.float32
        )
        if self.edge:
            slope_y, slope_x = np.gradient(np.clip(-distance, 0, self.edge))
            surface = surface + self.gloss * (np.cos(light) * slope_x + np.sin(light) * slope_y)[..., None]
        # half covered where the outline runs: no steps
        covered = np.clip(0.5 - distance, 0, 1)[..., None]
        painted: Floats = picture * (1 - covered) + surface * covered
        return painted

    def _at(self, random: np.random.Generator, place: Place, x: Floats, y: Floats, play: float) -> Floats:
        at_x, at_y = place[:2] + random.normal(0, 0.3, 2)
        angle = place[2] + random.normal(0, 0.01)
        size = self.size * np.exp(random.normal(0, play))
        x, y = (x - at_x) / size, (y - at_y) / size
        cos, sin = np.cos(angle), np.sin(angle)
        distance: Floats = (size * self._distance(cos * x + sin * y, (cos * y - sin * x) / self.aspect)).astype(
            np.float32
        )
        return distance

    def _distance(self, x: Floats, y: Floats) -> Any:
        """Return how far places are outside of the outline of a shape of size 1, about; inside it is negative."""
        if self.form == "box":
            right, below = np.abs(x) - 1 + self.corner, np.abs(y) - 1 + self.corner
            inside = np.minimum(np.maximum(right, below), 0)
            return np.hypot(np.maximum(right, 0), np.maximum(below, 0)) + inside - self.corner
        if self.form == "capsule":
            return np.hypot(np.maximum(np.abs(x) - 1 + self.width, 0), y) - self.width
        radius = np.hypot(x, y)
        if self.form == "ring":
            return np.abs(radius - 1 + self.width) - self.width
        angle = np.arctan2(y, x)
        if self.form == "polygon":
            half = np.pi / (3 + self.teeth % 6)
            return radius * np.cos((angle + half) % (2 * half) - half) - np.cos(half)
        if self.form == "gear":
            return radius - 1 + self.depth * np.tanh(4 * np.sin(self.teeth * angle))
        if self.form == "blob":
            return radius - 1 - sum(height * np.sin(wave * angle + phase) for wave, height, phase in self.waves)
        return radius - 1


def draw_shapes(random: np.random.Generator) -> list[Shape]:
    """Draw what a kind of part is made of: a body, and one to six smaller shapes on it or beside it, alone or several in order."""
    size = random.uniform(60, 115)
    shapes = [Shape(random, size, [(0.0, 0.0, 0.0)])]
    for _ in range(random.integers(1, 7)):
        shapes.append(Shape(random, size * log_uniform(random, 0.08, 0.8), _draw_places(random, size)))
    return shapes


def _draw_places(random: np.random.Generator, size: float) -> list[Place]:
    order = ("middle", "anywhere", "circle", "grid")[random.integers(4)]
    if order == "anywhere":
        x, y = random.normal(0, 0.35 * size, 2)
        return [(x, y, random.uniform(0, 2 * np.pi))]
    if order == "circle":
        count, radius, first = (
            int(random.integers(2, 10)),
            size * random.uniform(0.3, 0.9),
            random.uniform(0, 2 * np.pi),
        )
        angles = first + 2 * np.pi * np.arange(count) / count
        return [(radius * np.cos(angle), radius * np.sin(angle), angle) for angle in angles]
    if order == "grid":
        rows, columns, pitch = int(random.integers(2, 6)), int(random.integers(1, 6)), size * random.uniform(0.2, 0.45)
        xs, ys = (pitch * (np.arange(count) - (count - 1) / 2) for count in (columns, rows))
        return [(x, y, 0.0) for x in xs for y in ys]
    return [(0.0, 0.0, 0.0)]
