"""Makes the synthetic validation of docs/experiments.md, section 21: faint defects on held-out kinds, in MVTec AD's layout.

The mechanisms are those that no training uses: texture of a photograph in Perlin-like noise, swirls, local blur, blots, holes
filled by inpainting, and scratches. Run it from the project's root; what it writes is judged as any other category::

    ANOMALIB_SPD_DATA=FOLDER python scripts/faint_defects.py datasets/faint
"""

import os
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from skimage.draw import bezier_curve, ellipse
from skimage.transform import swirl

#: kind -> strength of its defects, set by the base alone: its image AU-ROC is 0.70 to 0.90
KINDS = {
    "lentil_seed": 0.5,
    "leather_5": 0.35,
    "leather_11": 0.35,
    "fabric_aitex_00": 0.35,
    "fabric_aitex_03": 0.35,
    "capsule_blue": 0.35,
    "solarcell_el_poly": 0.6,
    "casting_impeller": 0.6,
    "screwhead_wood": 0.6,
}
#: height and width of the images, pixels
SIZE = 224
Pixels = Any  # arrays of NumPy and OpenCV


def read(file: Path) -> Pixels:
    """Return an image, its short side resized to 256 pixels, its center cropped, uint8 ``(224, 224, 3)``."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    width, height = (max(256, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - 256) // 2 + 16, (height - 256) // 2 + 16
    return np.array(image.crop((left, top, left + SIZE, top + SIZE)))


def noise(rng: np.random.Generator) -> Pixels:
    """Return smooth noise ``(224, 224)``."""
    count = SIZE // 16 + 2
    cells = rng.standard_normal((count, count)).astype("float32")
    return cv2.resize(cells, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def blob(rng: np.random.Generator, low: int = 10, high: int = 34) -> Pixels:
    """Return an ellipse anywhere, ``(224, 224)``, 0 or 1."""
    mask = np.zeros((SIZE, SIZE), "float32")
    row, column = rng.integers(40, SIZE - 40, 2)
    a, b = rng.integers(low, high, 2) / 2
    mask[ellipse(row, column, a, b, shape=(SIZE, SIZE), rotation=rng.uniform(-3, 3))] = 1
    return mask


def scratch(rng: np.random.Generator) -> Pixels:
    """Return a bent line, ``(224, 224)``, 0 or 1."""
    mask = np.zeros((SIZE, SIZE), "float32")
    start = rng.integers(30, SIZE - 30, 2)
    end = start + rng.integers(-45, 45, 2)
    bend = (start + end) // 2 + rng.integers(-15, 15, 2)
    points = [int(each) for each in (*start, *bend, *end)]
    mask[bezier_curve(*points, weight=1, shape=(SIZE, SIZE))] = 1  # type: ignore[misc] # the six coordinates
    return cv2.dilate(mask, np.ones((2, 2)))


def changed(image: Pixels, files: list[Path], rng: np.random.Generator, strength: float, part: Pixels) -> Pixels | None:
    """Return an image ``(224, 224, 3)`` in ``[0, 1]`` with a defect on the part, or None where 50 tries do not show."""
    for _ in range(50):
        mechanism, mask = rng.integers(6), blob(rng)
        if (part * mask).sum() < 0.9 * mask.sum():
            continue
        if mechanism == 0:
            waves = noise(rng)
            mask = blob(rng, 24, 60) * (waves > 0.4)
            if mask.sum() < 30:
                continue
            texture = read(files[rng.integers(len(files))]) / 255
            mixed = (1 - strength) * image + strength * texture
            result = image * (1 - mask[..., None]) + mask[..., None] * mixed
        elif mechanism == 1:
            rows, columns = np.nonzero(mask)
            turn, radius = 4 * strength * rng.choice([-1, 1]), max(14, np.sqrt(mask.sum()))
            result = swirl(image, (columns.mean(), rows.mean()), strength=turn, radius=radius, mode="reflect")
        elif mechanism == 2:
            blurred = cv2.GaussianBlur(image.astype("float32"), (0, 0), 1 + 2 * strength)
            soft = cv2.GaussianBlur(mask, (0, 0), 2)[..., None]
            result = image * (1 - soft) + blurred * soft
        elif mechanism == 3:
            soft = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
            result = image + soft * strength * 0.5 * rng.choice([-1, 1]) * rng.uniform(0.5, 1, 3)
        elif mechanism == 4:
            hole = (mask > 0).astype("uint8")
            result = cv2.inpaint((image * 255).astype("uint8"), hole, 3, cv2.INPAINT_TELEA) / 255
        else:
            mask = scratch(rng)
            if (part * mask).sum() < 0.9 * mask.sum():
                continue
            result = image + cv2.GaussianBlur(mask, (0, 0), 0.7)[..., None] * strength * rng.choice([-1, 1])
        result = np.clip(result, 0, 1)
        if (np.abs(result - image).max(2) > 0.02).sum() >= 25:
            return result
    return None


def part_of(image: Pixels) -> Pixels:
    """Return where the part is, ``(224, 224)``, 0 or 1: what differs from an even edge; else everywhere."""
    gray, everywhere = image.mean(2), np.ones((SIZE, SIZE))
    edge = np.concatenate([gray[0], gray[-1], gray[:, 0], gray[:, -1]])
    if edge.std() >= 0.08:
        return everywhere
    part = (cv2.GaussianBlur(np.abs(gray - np.median(edge)).astype("float32"), (0, 0), 3) > 0.06).astype(float)
    return everywhere if part.mean() < 0.05 else part


def main() -> None:
    """Write ``KIND/train/good``, ``test/good``, ``test/bad`` and ``ground_truth/bad``."""
    data, output = Path(os.environ["ANOMALIB_SPD_DATA"]), Path(sys.argv[1])
    output.mkdir(parents=True)  # never into a folder that is there
    photographs = sorted((data / "imagenet1000").iterdir())
    for kind, strength in KINDS.items():
        rng = np.random.default_rng(zlib.crc32(kind.encode()))
        images = [read(file) for file in sorted((data / "categories" / kind).iterdir())]
        order = rng.permutation(len(images))
        first, last = int(len(images) * 0.45), int(len(images) * 0.72)
        pictures = {f"train/good/{number:03d}": images[number] for number in order[:first]}
        pictures |= {f"test/good/{number:03d}": images[number] for number in order[first:last]}
        for repeat in range(2):
            for number in order[last:]:
                image = images[number] / 255
                result = changed(image, photographs, rng, strength, part_of(image))
                if result is not None:
                    name = f"bad/{repeat}_{number:03d}"
                    pictures[f"test/{name}"] = (result * 255).round().astype("uint8")
                    mask = np.abs(result - image).max(2) > 0.02
                    pictures[f"ground_truth/{name}"] = (255 * mask).astype("uint8")
        for name, pixels in pictures.items():
            file = output / kind / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)


if __name__ == "__main__":
    main()
