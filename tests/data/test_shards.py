"""Images in tar shards: batches, their distribution over processes, damaged members, errors."""

import io
import sys
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_spd.data import ImageShards

pytest.importorskip("webdataset")


def _jpeg(level: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((20, 24, 3), level, np.uint8)).save(content, "jpeg")
    return content.getvalue()


def _shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Four shards of 3, 4, 5 and 6 images; each is as bright as ten times its class."""
    number = 0
    for shard in range(4):
        members: dict[str, bytes] = {}
        for _ in range(3 + shard):
            extension = ["jpg", "JPEG", "jpeg"][number % 3]
            members |= {f"{number:03d}.{extension}": _jpeg(number * 10), f"{number:03d}.cls": str(number).encode()}
            number += 1
        _shard(tmp_path / f"s-{shard}.tar", members | {"read.me": b"no image"})
    return tmp_path


def _ready(urls: str | list[str], epoch_images: int, **arguments: Any) -> ImageShards:
    rank, devices = arguments.pop("rank", 0), arguments.pop("devices", 1)
    data = ImageShards(urls, epoch_images, **{"batch_size": 2, "image_size": 16, "num_workers": 0, **arguments})
    data.trainer = SimpleNamespace(global_rank=rank, world_size=devices)
    data.setup("fit")
    return data


def _labels(data: ImageShards) -> list[int]:
    return [label for _, labels in data.train_dataloader() for label in labels.tolist()]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches(shards: Path, num_workers: int) -> None:
    data = _ready(f"{shards}/s-{{0..3}}.tar", 18, num_workers=num_workers)
    loader = data.train_dataloader()
    assert len(loader) == 9
    for images, labels in loader:
        assert (images.shape, images.dtype, labels.dtype) == ((2, 3, 16, 16), torch.uint8, torch.int64)
        assert (images[:, 0, 8, 8] - labels * 10).abs().max() < 3


def test_an_epoch_has_each_image_once_in_another_order(shards: Path) -> None:
    data = _ready([f"{shards}/s-{{0..1}}.tar", f"{shards}/s-2.tar", f"{shards}/s-3.tar"], 18)
    first, second = _labels(data), _labels(data)
    assert sorted(first) == sorted(second) == [*range(18)]
    assert first != second
    torch.manual_seed(1)
    seeded = _labels(data)
    torch.manual_seed(1)
    assert _labels(data) == seeded


@pytest.mark.parametrize("epoch_images", [8, 16, 41])
def test_devices_make_as_many_steps_on_shards_of_their_own(shards: Path, epoch_images: int) -> None:
    seen = []
    for rank in (0, 1):
        data = _ready(f"{shards}/s-{{0..3}}.tar", epoch_images, rank=rank, devices=2, num_workers=2)
        loader = data.train_dataloader()
        steps = [labels.tolist() for _, labels in loader]
        assert len(steps) == len(loader) == epoch_images // 4
        seen.append({label for labels in steps for label in labels})
    assert not seen[0] & seen[1]


def test_images_without_a_class_have_class_0(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("L", (30, 20)).save(png, "png")
    shard = _shard(tmp_path / "a.tar", {"deep/a.b.png": png.getvalue(), "deep/c.PNG": png.getvalue()})
    assert _labels(_ready(str(shard), 4)) == [0] * 4


def _with_damaged(folder: Path, damaged: int) -> str:
    for shard in range(2):
        members = {f"{number:03d}.jpg": _jpeg(number) for number in range(200)}
        for number in range(damaged):
            members[f"{number:03d}.jpg"] = members[f"{number:03d}.jpg"][:300]
        _shard(folder / f"s-{shard}.tar", members)
    return f"{folder}/s-{{0..1}}.tar"


def test_a_damaged_member_is_named_once_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = _ready(_with_damaged(tmp_path, 1), 398)
    for _ in range(2):
        assert Counter(_labels(data)) == {0: 398}
    for shard in range(2):
        assert caplog.text.count(f"s-{shard}.tar: 000 cannot be read") == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_damaged_members_stop_the_run(tmp_path: Path, num_workers: int) -> None:
    data = _ready(_with_damaged(tmp_path, 3), 396, num_workers=num_workers)
    with pytest.raises(OSError, match=r"members cannot be read as images, .* more than 1%(.|\n)*tar: 00"):
        _labels(data)


# a member takes 512 bytes for its name and 1024 for itself: cut within a name, a content, and between members
@pytest.mark.parametrize("cut", [200, 1000, 1536])
def test_a_truncated_shard_gives_what_it_has(tmp_path: Path, caplog: pytest.LogCaptureFixture, cut: int) -> None:
    urls = _with_damaged(tmp_path, 0)
    shard = tmp_path / "s-1.tar"
    shard.write_bytes(shard.read_bytes()[: 63 * 1536 + cut])
    data = _ready(urls, 262)
    assert len(_labels(data)) == len(_labels(data)) == 262
    assert caplog.text.count(f"{shard} cannot be read") == 1


def test_shards_without_images_are_an_error(tmp_path: Path) -> None:
    shard = _shard(tmp_path / "a.tar", {"a.txt": b"no image"})
    with pytest.raises(ValueError, match=r"No image .* can be read from the shards .*a\.tar"):
        _labels(_ready(str(shard), 4))


def test_errors_before_the_training(shards: Path) -> None:
    urls = f"{shards}/s-{{0..3}}.tar"
    with pytest.raises(FileNotFoundError, match=r"2 of 6 shards do not exist, first .*s-4\.tar"):
        _ready(f"{shards}/s-{{0..5}}.tar", 18)
    with pytest.raises(ValueError, match=r"4 shards cannot be divided between 2 device.* 3 reading"):
        _ready(urls, 18, devices=2, num_workers=3)
    with pytest.raises(ValueError, match="epoch_images is 18, fewer than a batch of 10 on 2 device"):
        _ready(urls, 18, devices=2, batch_size=10)
    with pytest.raises(ValueError, match="epoch_images must be 1 or more, got 0"):
        ImageShards(urls, 0)
    with pytest.raises(ValueError, match="0 shards cannot be divided"):
        _ready([], 18)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anomalib_spd\[webdataset\]'"):
        ImageShards("a.tar", 1)


def test_hidden_and_system_members_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["._a.jpg", "__MACOSX/._a.jpg", "__MACOSX/b.jpg", "d/._c.jpg", ".ipynb_checkpoints/e-checkpoint.jpg"]
    content = dict.fromkeys(names, b"no image") | {"./a.jpg": _jpeg(50), "./a.cls": b"7", "../d/b.jpg": _jpeg(50)}
    _shard(tmp_path / "s.tar", content)
    assert set(_labels(_ready(str(tmp_path / "s.tar"), 12))) == {0, 7}
    (line,) = caplog.messages
    assert "Hidden or system members of shards are skipped" in line


def test_gray_of_16_bits_is_scaled(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((20, 24), 2000, np.uint16)).save(file, "png")
    _shard(tmp_path / "s.tar", {"a.png": file.getvalue()})
    for white, level in ((None, 8), (4000, 128)):
        for images, _ in _ready(str(tmp_path / "s.tar"), 4, white=white).train_dataloader():
            assert (images == level).all()
