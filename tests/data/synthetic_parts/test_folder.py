"""The folder of synthetic parts: whole or not there, made once, never written over."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_spd.data.synthetic_parts import Kind, folder, make_parts


def test_what_is_in_it(tmp_path: Path) -> None:
    made = make_parts(tmp_path / "below" / "parts", kinds=11, pictures=2, seed=4)
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*.jpg"))
    assert names == [f"{kind:02d}/{picture}.jpg" for kind in range(11) for picture in range(2)]
    assert [path.name for path in made.parent.iterdir()] == ["parts"]
    with Image.open(made / "07" / "1.jpg") as image:
        stored = np.asarray(image).astype(float)
    # but for what JPEG does to noise
    assert np.abs(stored - Kind(7, seed=4).picture(1)).mean() < 4
    assert (
        "seed 4: 11 kinds of parts and surfaces that nobody makes, 2 pictures of each"
        in (made / "README.txt").read_text()
    )


def test_it_is_made_once(tmp_path: Path) -> None:
    made = make_parts(tmp_path / "parts", kinds=2, pictures=1)
    mine = made / "0" / "0.jpg"
    mine.write_bytes(b"mine")
    assert make_parts(made, kinds=2, pictures=1) == made
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize("other", [{"kinds": 3}, {"pictures": 2}, {"seed": 1}])
def test_another_set_is_not_taken_for_it(tmp_path: Path, other: dict[str, int]) -> None:
    made = make_parts(tmp_path / "parts", kinds=2, pictures=1)
    with pytest.raises(FileExistsError, match=r"(?s)does not hold these synthetic parts.*Give another root, or delete"):
        make_parts(made, **{"kinds": 2, "pictures": 1, **other})
    assert len(list(made.rglob("*.jpg"))) == 2


def test_a_folder_of_the_users_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photograph.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="is there, but it does not hold these synthetic parts"):
        make_parts(tmp_path, kinds=2, pictures=1)
    assert [path.name for path in tmp_path.iterdir()] == ["photograph.jpg"]


def test_nothing_half_made_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_write_kind", full)
    with pytest.raises(
        OSError, match=r"cannot write the synthetic parts \(No space left on device\); choose another root"
    ):
        make_parts(tmp_path / "parts", kinds=2, pictures=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kinds", "pictures"), [(0, 1), (1, 0)])
def test_nothing_to_be_made_is_refused(tmp_path: Path, kinds: int, pictures: int) -> None:
    with pytest.raises(ValueError, match=f"are at least 1. Got {kinds} and {pictures}"):
        make_parts(tmp_path / "parts", kinds, pictures)
