"""Textures of synthetic parts: grain and repeating patterns, drawn once per category and painted anew for each part."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

#: height and width of the images, pixels
SIZE = 256

X, Y = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(SIZE), np.arange(SIZE)))
_FREQUENCY_X, _FREQUENCY_Y = (
    axis.astype(np.float32) * SIZE for axis in np.meshgrid(np.fft.rfftfreq(SIZE), np.fft.fftfreq(SIZE))
)


def draw_color(random: np.random.Generator) -> Floats:
    """Draw a color ``(3,)`` in ``[0, 1]``; half of the colors are nearly gray, as metal and plastic are."""
    value = random.uniform(0.08, 0.9)
    saturation = random.uniform(0, 0.15) if random.random() < 0.5 else random.uniform(0.1, 0.9)
    hue = np.abs((6 * random.random() + np.array([0, 4, 2])) % 6 - 3) - 1
    color: Floats = (value * (1 - saturation * (1 - np.clip(hue, 0, 1)))).astype(np.float32)
    return color


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """Draw a positive number whose logarithm is uniform between two bounds."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


class Texture:
    """Grain with a random spectrum, and sometimes a slightly bent pattern of lines, checks or threads.

    Args:
        random: draws what all parts of a category share.
    """

    def __init__(self, random: np.random.Generator) -> None:
        strengths, shares = (0.0, 0.01, 0.03, 0.08, 0.15), (0.15, 0.2, 0.25, 0.25, 0.15)
        self.strength = random.choice(strengths, p=shares) * random.uniform(0.5, 1.5)
        self.spectrum = _spectrum(random)
        self.form = ("plain", "patches", "spots", "veins")[random.integers(4)]
        self.tint = random.uniform(0, 0.5) if random.random() < 0.3 else 0.0
        self.pattern = ("lines", "checks", "threads")[random.integers(3)] if random.random() < 0.3 else None
        self.period, self.angle = log_uniform(random, 5, 50), random.uniform(0, np.pi)
        self.contrast, self.sharpness, self.bend = random.uniform((0.03, 0.5, 0), (0.25, 6, 0.15))

    def paint(self, random: np.random.Generator, angle: float) -> Floats:
        """Paint the texture anew.

        Args:
            random: draws what differs between parts: the grain's position and the pattern's phase.
            angle: rotation of the part, radians.

        Returns:
            What is added to a color, ``(256, 256, 1)`` or ``(256, 256, 3)``, of mean about 0.
        """
        surface = self.strength * self._paint_grain(random) if self.strength else np.zeros((SIZE, SIZE), np.float32)
        if self.pattern is not None:
            surface = surface + self.contrast * self._paint_pattern(random, angle + self.angle)
        tint: Floats = 1 + self.tint * np.array([1, 0, -1], np.float32) if self.tint else np.ones(1, np.float32)
        return surface[..., None] * tint

    def _paint_grain(self, random: np.random.Generator) -> Floats:
        white = random.standard_normal((SIZE, SIZE), np.float32)
        grain: Floats = np.fft.irfft2(np.fft.rfft2(white) * self.spectrum, s=(SIZE, SIZE)).astype(np.float32)
        grain /= grain.std() + 1e-6
        forms: dict[str, Floats] = {
            "patches": np.tanh(2 * grain),
            "spots": 3 * np.maximum(grain - 1.2, 0),
            "veins": -np.abs(grain),
        }
        return forms.get(self.form, grain)

    def _paint_pattern(self, random: np.random.Generator, angle: float) -> Floats:
        bent = self.period * self.bend * ndimage.zoom(random.standard_normal((5, 5), np.float32), SIZE / 5, order=3)
        phases, step = random.uniform(0, 2 * np.pi, 2), 2 * np.pi / self.period
        across = np.sin(step * (np.cos(angle) * X + np.sin(angle) * Y + bent) + phases[0])
        along = np.sin(step * (-np.sin(angle) * X + np.cos(angle) * Y + bent) + phases[1])
        wave = {"lines": across, "checks": across * along, "threads": np.maximum(across, along)}[
            self.pattern or "lines"
        ]
        pattern: Floats = np.tanh(self.sharpness * wave).astype(np.float32)
        return pattern


def _spectrum(random: np.random.Generator) -> Floats:
    """Draw the amplitude of each frequency, ``(256, 129)``: flat up to a knee, then falling; half of the grains are brushed."""
    knee, fall = log_uniform(random, 1, 40), random.uniform(1, 3.5)
    elongation = np.exp(abs(random.normal())) if random.random() < 0.5 else 1.0
    angle = random.uniform(0, np.pi)
    along = np.cos(angle) * _FREQUENCY_X + np.sin(angle) * _FREQUENCY_Y
    across = -np.sin(angle) * _FREQUENCY_X + np.cos(angle) * _FREQUENCY_Y
    spectrum: Floats = ((1 + ((along * elongation) ** 2 + across**2) / knee**2) ** (-fall / 2)).astype(np.float32)
    spectrum[0, 0] = 0
    return spectrum
