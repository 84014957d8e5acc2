"""When the extension serves, and that all goes on where it does not."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from anomalib_spd import native
from anomalib_spd.native import calls


def test_it_is_built() -> None:
    """A checkout that is tested has a C compiler; a user need not have one."""
    assert calls._extension is not None


def test_float32_in_memory_is_served() -> None:
    image = torch.rand(2, 3, 8, 9)
    assert native.serves(image, image[:1])
    with torch.no_grad():
        assert native.serves(image.clone().requires_grad_())


@pytest.mark.parametrize(
    "other",
    [
        torch.rand(2, 3, 8, 9).double(),
        torch.rand(2, 3, 8, 9).bfloat16(),
        torch.rand(2, 3, 8, 9)[..., 1:],
        torch.rand(2, 3, 8, 9).to(memory_format=torch.channels_last),
        torch.rand(2, 3, 8, 9).requires_grad_(),
        torch.rand(2, 3, 8, 9, device="meta"),
        nn.Parameter(torch.rand(2, 3, 8, 9), requires_grad=False),
    ],
    ids=["double", "bfloat16", "strided", "channels_last", "grad", "meta", "subclass"],
)
def test_nothing_else_is(other: Tensor) -> None:
    assert not native.serves(other)
    assert not native.serves(torch.rand(1), other)


def test_not_while_torch_compiles() -> None:
    @torch.compile(backend="eager", fullgraph=True)
    def compiled(image: Tensor) -> Tensor:
        return image + 1 if native.serves(image) else image - 1

    assert (compiled(torch.ones(4)) == 0).all()


def test_short_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_function", lambda name: lambda *arguments: -1)
    with pytest.raises(MemoryError, match="swap_patches"):
        native.call("swap_patches", torch.rand(1), 1, None)


def test_without_it_the_transforms_work_all_the_same() -> None:
    script = """
import sys
sys.modules["anomalib_spd.native._extension"] = None  # importing it fails
import torch
from anomalib_spd import native
from anomalib_spd.augmentation import RandomCutPaste, RandomCutSwap, RandomSmoothBlend
image = torch.rand(2, 3, 32, 40)
assert not native.serves(image)
for transform in (RandomCutPaste(), RandomCutSwap(), RandomSmoothBlend()):
    assert (transform(image) != image).any()
assert (RandomCutSwap()(image, saliency=torch.rand(2, 1, 32, 40)) != image).any()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
