"""Shapes of synthetic parts, with a material, a rounded edge and one or more positions."""

from typing import Any, Literal, get_args

import numpy as np

from anomalib_spd.data.synthetic_parts.textures import SIZE, Floats, Texture, X, Y, draw_color, log_uniform

Form = Literal["ellipse", "box", "ring", "capsule", "polygon", "gear", "blob"]

Position = tuple[float, float, float]
"""Position of a shape on its part: x and y in pixels from the center, and the angle, radians."""


class Shape:
    """A shape of one material, at one or more positions of a part.

    Args:
        random: draws what all parts of a category share.
        size: largest half length, pixels.
        positions: where the shape stands.
    """

    def __init__(self, random: np.random.Generator, size: float, positions: list[Position]) -> None:
        self.positions = positions
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
        image: Floats,
        x: Floats,
        y: Floats,
        angle: float,
        light: float,
        tolerance: float,
    ) -> Floats:
        """Return an image with the shape painted over it.

        Args:
            random: draws what differs between parts.
            image: ``(256, 256, 3)``.
            x: coordinate of each pixel in the part's frame, pixels from its center, ``(256, 256)``.
            y: likewise.
            angle: rotation of the part, radians.
            light: direction of the light, radians.
            tolerance: standard deviation of the log size between parts.
        """
        distance = np.minimum.reduce([self._at(random, position, x, y, tolerance) for position in self.positions])
        surface = self.color + self.texture.paint(random, angle)
        surface = surface + (self.shade[0] * (X / SIZE - 0.5) + self.shade[1] * (Y / SIZE - 0.5))[..., None].astype(
            np.float32
        )
        if self.edge:
            slope_y, slope_x = np.gradient(np.clip(-distance, 0, self.edge))
            surface = surface + self.gloss * (np.cos(light) * slope_x + np.sin(light) * slope_y)[..., None]
        # half covered on the outline: no aliasing
        covered = np.clip(0.5 - distance, 0, 1)[..., None]
        painted: Floats = image * (1 - covered) + surface * covered
        return painted

    def _at(self, random: np.random.Generator, position: Position, x: Floats, y: Floats, tolerance: float) -> Floats:
        at_x, at_y = position[:2] + random.normal(0, 0.3, 2)
        angle = position[2] + random.normal(0, 0.01)
        size = self.size * np.exp(random.normal(0, tolerance))
        x, y = (x - at_x) / size, (y - at_y) / size
        cos, sin = np.cos(angle), np.sin(angle)
        distance: Floats = (size * self._distance(cos * x + sin * y, (cos * y - sin * x) / self.aspect)).astype(
            np.float32
        )
        return distance

    def _distance(self, x: Floats, y: Floats) -> Any:
        """Return the approximate distance to the outline of a shape of size 1; negative inside."""
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
    """Draw the shapes of a part category: a body, and one to six smaller shapes on it or beside it, alone or in an arrangement."""
    size = random.uniform(60, 115)
    shapes = [Shape(random, size, [(0.0, 0.0, 0.0)])]
    for _ in range(random.integers(1, 7)):
        shapes.append(Shape(random, size * log_uniform(random, 0.08, 0.8), _draw_positions(random, size)))
    return shapes


def _draw_positions(random: np.random.Generator, size: float) -> list[Position]:
    arrangement = ("center", "anywhere", "circle", "grid")[random.integers(4)]
    if arrangement == "anywhere":
        x, y = random.normal(0, 0.35 * size, 2)
        return [(x, y, random.uniform(0, 2 * np.pi))]
    if arrangement == "circle":
        count, radius, first = (
            int(random.integers(2, 10)),
            size * random.uniform(0.3, 0.9),
            random.uniform(0, 2 * np.pi),
        )
        angles = first + 2 * np.pi * np.arange(count) / count
        return [(radius * np.cos(angle), radius * np.sin(angle), angle) for angle in angles]
    if arrangement == "grid":
        rows, columns, pitch = int(random.integers(2, 6)), int(random.integers(1, 6)), size * random.uniform(0.2, 0.45)
        xs, ys = (pitch * (np.arange(count) - (count - 1) / 2) for count in (columns, rows))
        return [(x, y, 0.0) for x in xs for y in ys]
    return [(0.0, 0.0, 0.0)]
