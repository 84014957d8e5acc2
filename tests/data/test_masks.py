"""Masks are found where there are any."""

from pathlib import Path

from anomalib.data import Folder, Visa

from anomalib_spd.data.masks import has_masks
from tests.benchmark.grids import draw_images


def test_masks_are_found_where_there_are_any(tmp_path: Path) -> None:
    draw_images(tmp_path, "one")
    draw_images(tmp_path, "two", masks=False)
    data = Visa(tmp_path, category="one", num_workers=0)
    data.setup()
    assert has_masks(data)
    data = Folder("two", "train/good", tmp_path / "visa_pytorch" / "two", "test/bad", "test/good", num_workers=0)
    data.setup()
    assert not has_masks(data)
