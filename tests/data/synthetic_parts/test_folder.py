"""The folder of synthetic parts: complete or missing, made once, never overwritten."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_spd.data.synthetic_parts import PartCategory, make_parts


def test_content(tmp_path: Path) -> None:
    made = make_parts(tmp_path / "below" / "parts", categories=11, images_per_category=2, seed=4)
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*.jpg"))
    assert names == [f"{category:02d}/{image}.jpg" for category in range(11) for image in range(2)]
    assert [path.name for path in made.parent.iterdir()] == ["parts"]
    with Image.open(made / "07" / "1.jpg") as image:
        stored = np.asarray(image).astype(float)
    # JPEG changes noise
    assert np.abs(stored - PartCategory(7, seed=4).image(1)).mean() < 4
    assert (
        "seed 4: 11 categories of synthetic parts and surfaces, 2 images of each" in (made / "README.txt").read_text()
    )


def test_an_existing_set_stays(tmp_path: Path) -> None:
    made = make_parts(tmp_path / "parts", categories=2, images_per_category=1)
    mine = made / "0" / "0.jpg"
    mine.write_bytes(b"mine")
    assert make_parts(made, categories=2, images_per_category=1) == made
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("other", [{"categories": 3}, {"images_per_category": 2}, {"seed": 1}])
def test_another_set_is_an_error(tmp_path: Path, other: dict[str, int]) -> None:
    made = make_parts(tmp_path / "parts", categories=2, images_per_category=1)
    with pytest.raises(FileExistsError, match=r"(?s)does not hold these synthetic parts.*Give another root, or delete"):
        make_parts(made, **{"categories": 2, "images_per_category": 1, **other})
    assert len(list(made.rglob("*.jpg"))) == 2


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="exists, but it does not hold these synthetic parts"):
        make_parts(tmp_path, categories=2, images_per_category=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jpg"]


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **_settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(
        OSError, match=r"cannot write the synthetic parts \(No space left on device\); choose another root"
    ):
        make_parts(tmp_path / "parts", categories=2, images_per_category=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("categories", "images"), [(0, 1), (1, 0)])
def test_empty_sets_are_errors(tmp_path: Path, categories: int, images: int) -> None:
    with pytest.raises(ValueError, match=f"are at least 1. Got {categories} and {images}"):
        make_parts(tmp_path / "parts", categories, images)
