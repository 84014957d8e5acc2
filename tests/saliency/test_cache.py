"""Maps from the disk are those that were computed, and nobody else's; damage and a bad disk are survived."""

import multiprocessing
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anomalib_spd.saliency import LayerCAM, SaliencyCache, TopK
from tests.saliency.concurrent_fill import LAYERS, classifier, fill, images


class _Counting(LayerCAM):
    """Notes how many images each call was for."""

    def __init__(self, model: nn.Module, layers: tuple[str, ...] = LAYERS) -> None:
        super().__init__(model, layers)
        self.calls: list[int] = []

    def __call__(self, images: Tensor, target: Any = "argmax") -> Tensor:
        self.calls.append(len(images))
        return super().__call__(images, target)


def _cache(folder: Path, model: nn.Module | None = None, layers: tuple[str, ...] = LAYERS, **kwargs: Any) -> Any:
    return SaliencyCache(folder, _Counting(model or classifier(), layers), **kwargs)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


@pytest.fixture(autouse=True)
def _no_warning_goes_unseen() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_cold_and_warm_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    cold = _cache(tmp_path)
    first = cold(images())
    warm = _cache(tmp_path)
    assert torch.equal(warm(images()), first)
    assert (cold.cam.calls, warm.cam.calls) == ([4], [])
    assert first.dtype == torch.float32
    assert first.shape == (4, 2, 32, 32)
    exact = LayerCAM(classifier(), LAYERS)(images())
    assert torch.equal(first, exact.half().float())
    assert not torch.equal(first, exact)


def test_only_what_is_missing_is_computed_in_one_batch(tmp_path: Path) -> None:
    cache, batch = _cache(tmp_path), images(6)
    expected = cache(batch[[1, 4]])
    maps = cache(batch)
    assert cache.cam.calls == [2, 4]
    assert torch.equal(maps[[1, 4]], expected)
    # in the order of the images, whatever that of the files
    assert torch.equal(cache(batch.flip(0)), maps.flip(0))
    torch.testing.assert_close(maps, cache.cam(batch), atol=1e-3, rtol=0)


def test_an_image_twice_in_a_batch_is_computed_once(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    maps = cache(images(2)[[0, 1, 0]])
    assert cache.cam.calls == [2]
    assert torch.equal(maps[0], maps[2])
    assert not torch.equal(maps[0], maps[1])


def test_one_small_file_an_image_without_pickle(tmp_path: Path) -> None:
    folder = tmp_path / "is" / "made"
    maps = _cache(folder)(images())
    files = _files(folder)
    assert len(files) == 4
    for path in files:
        assert path.parent.parent == folder
        assert path.parent.name == path.name[:2]
        assert path.stat().st_size < 2 * 2 * 32 * 32 + 300
        stored = load_file(path)["maps"]
        assert stored.dtype == torch.float16
        assert (stored.float() == maps).flatten(1).all(1).sum() == 1
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == files


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"model": classifier(seed=1)}, "weights"),
        ({"model": classifier().eval().requires_grad_(False)}, None),
        ({"model": nn.Sequential(*classifier()[:3], nn.SiLU(), *classifier()[4:])}, "structure"),
        ({"layers": LAYERS[::-1]}, "order of layers"),
        ({"layers": ("1", "2")}, "layers"),
        ({"target": 0}, "class"),
        ({"target": TopK(2)}, "rule"),
    ],
)
def test_maps_of_another_origin_are_missed(tmp_path: Path, other: dict[str, Any], why: str | None) -> None:
    mine, theirs = _cache(tmp_path), _cache(tmp_path, **other)
    before = mine(images())
    maps = theirs(images())
    assert theirs.cam.calls == ([4] if why else [])
    assert len(_files(tmp_path)) == (8 if why else 4)
    assert torch.equal(maps, theirs.cam(images(), theirs.target).half().float())
    assert torch.equal(mine(images()), before)
    assert mine.cam.calls == [4]


def test_targets_have_different_keys(tmp_path: Path) -> None:
    for count, target in enumerate(("argmax", 0, 1, TopK(1), TopK(2)), start=1):
        _cache(tmp_path, target=target)(images(1))
        assert len(_files(tmp_path)) == count


def test_buffers_count_as_weights(tmp_path: Path) -> None:
    def build(mean: float) -> nn.Module:
        model = nn.Sequential(*classifier()[:3], nn.BatchNorm2d(8), *classifier()[3:])
        model[3].running_mean.fill_(mean)
        return model

    _cache(tmp_path, build(0.0))(images())
    other = _cache(tmp_path, build(0.5))
    other(images())
    assert other.cam.calls == [4]


def test_images_are_known_by_content_shape_and_dtype(tmp_path: Path) -> None:
    batch = images(1)
    model = classifier()
    cache = _cache(tmp_path, model)
    cache(batch)
    cache(batch.to(memory_format=torch.channels_last))
    cache(torch.cat([batch, batch], dim=3)[..., :32])  # a view that is not contiguous
    assert cache.cam.calls == [1]
    touched = batch.clone()
    touched[0, 0, 0, 0] += 1e-6
    cache(touched)
    cache(batch.reshape(1, 3, 16, 64))
    assert cache.cam.calls == [1, 1, 1]
    zeros = torch.zeros(1, 3, 32, 32)
    for dtype in (torch.float16, torch.bfloat16):
        _cache(tmp_path, classifier().to(dtype))(zeros.to(dtype))
    cache(zeros)
    assert len(_files(tmp_path)) == 6


@pytest.mark.parametrize("damage", ["bit", "truncated", "empty", "noise", "shape", "dtype", "no maps", "header"])
def test_damaged_maps_are_computed_again_and_replaced(tmp_path: Path, damage: str) -> None:
    # one by one, as the damaged one will be alone when it is computed again
    expected = torch.cat([_cache(tmp_path)(image[None]) for image in images()])
    path = _files(tmp_path)[2]
    content = path.read_bytes()
    stored = load_file(path)
    if damage in {"shape", "dtype", "no maps"}:
        # the same bytes, so that their checksum matches
        changed = {
            "shape": {"maps": stored["maps"].reshape(2, 16, 64)},
            "dtype": {"maps": stored["maps"].view(torch.bfloat16)},
        }
        save_file({"check_sum": stored["check_sum"], **changed.get(damage, {})}, path)
    else:
        path.write_bytes(
            {
                "bit": content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
                "truncated": content[:-100],
                "empty": b"",
                "noise": bytes(range(256)) * 4,
                "header": content[:8] + content[8:].replace(b"maps", b"m\xffps", 1),
            }[damage]
        )
    cache = _cache(tmp_path)
    with pytest.warns(UserWarning, match="damaged") as caught:
        maps = cache(images())
    assert [str(path) in str(warning.message) for warning in caught] == [True]
    assert torch.equal(maps, expected)
    assert cache.cam.calls == [1]
    # replaced, in silence
    assert torch.equal(cache(images()), expected)
    assert cache.cam.calls == [1]


def test_what_killed_writers_left_does_no_harm(tmp_path: Path) -> None:
    expected = _cache(tmp_path)(images())
    for path in _files(tmp_path):
        path.with_name(f".{path.stem}.0123").write_bytes(path.read_bytes()[:50])
        path.unlink()
    cache = _cache(tmp_path)
    assert torch.equal(cache(images()), expected)
    assert torch.equal(_cache(tmp_path)(images()), expected)
    assert len(_files(tmp_path)) == 4


def test_a_writer_that_fails_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _cache(tmp_path / "other")(images())

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "full"
    cache = _cache(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.warns(UserWarning, match=r"cannot be stored in .*full: .*No space left") as caught:
            maps = cache(images())
        assert torch.equal(cache(images()), maps)  # without a second warning
    assert torch.equal(maps, expected)
    assert len(caught) == 1
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    # space again
    cache(images())
    assert len(_files(folder)) == 4


def test_a_folder_that_cannot_be_written_to_costs_one_warning(tmp_path: Path) -> None:
    folder = tmp_path / "file"
    folder.write_bytes(b"")
    cache = _cache(folder)
    with pytest.warns(UserWarning, match=r"cannot be stored in .*file") as caught:
        maps = cache(images())
    assert len(caught) == 1
    assert torch.equal(cache(images()), maps)  # without a second warning
    assert torch.equal(maps, _cache(tmp_path / "other")(images()))


def test_errors_of_the_maps_come_through(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Got torch.float32 \(3, 32, 32\)"):
        _cache(tmp_path)(images(1)[0])
    with pytest.raises(ValueError, match=r"Got torch\.uint8"):
        _cache(tmp_path)(images().byte())
    with pytest.raises(ValueError, match="Got 5"):
        _cache(tmp_path, target=5)(images())
    assert _files(tmp_path) == []


def test_an_empty_batch_has_no_maps(tmp_path: Path) -> None:
    assert _cache(tmp_path)(images()[:0]).shape == (0, 2, 32, 32)


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=fill, args=(tmp_path, barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    reports = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    expected = torch.cat([_cache(tmp_path / "alone")(image[None]) for image in images(40)]).double().sum().item()
    assert reports == [(0, expected)] * 2
    assert [path for path in tmp_path.rglob(".*") if path.is_file()] == []
