"""Files that are small and ask for much, or hold tensors that are no plain numbers."""

import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from anomalib_spd.backbones import add
from anomalib_spd.cli.main import main

Tensors = dict[str, Tensor]

#: case -> change of the tensors, and the message
ODD: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    **{
        f"{dtype}": (
            lambda t, dtype=dtype: t | {"bn1.weight": t["bn1.weight"].to(dtype)},
            rf"1 of another type \(bn1.weight is {dtype}, not torch.float32; float16, bfloat16, float32, float64 are read",
        )
        for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.int32)
    },
    "sparse": (
        lambda t: t | {"conv_stem.weight": t["conv_stem.weight"].to_sparse()},
        r"1 without a stored value for each element \(conv_stem.weight\): sparse",
    ),
    "sparse rows": (
        lambda t: t | {"classifier.weight": t["classifier.weight"].to_sparse_csr()},
        r"1 without a stored value for each element \(classifier.weight\)",
    ),
    "meta": (lambda t: t | {"bn1.bias": t["bn1.bias"].to("meta")}, r"1 without a stored value .*\(bn1.bias\)"),
    "quantized": (
        lambda t: t | {"bn1.bias": torch.quantize_per_tensor(t["bn1.bias"], 0.1, 0, torch.qint8)},
        r"1 of another type \(bn1.bias is torch.qint8.*1 without a stored value",
    ),
    "expanded": (
        lambda t: t | {"classifier.weight": torch.ones(1, 1).expand_as(t["classifier.weight"])},
        r"1 without a stored value for each element \(classifier.weight\).*tensor.contiguous\(\)",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*quantiz")
@pytest.mark.parametrize("case", ODD)
def test_tensors_that_are_no_plain_numbers_are_refused_in_a_line(
    case: str, save: Any, make_model: Any, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = ODD[case]
    path = save(change(make_model("test_efficientnet").state_dict()))
    with pytest.raises(ValueError, match=message):
        add("mine_spd", path, "test_efficientnet")
    assert main(["backbones", "add", "mine_spd", str(path), "--architecture", "test_efficientnet"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not registry.exists()


def test_views_of_one_memory_are_refused(save: Any, make_model: Any) -> None:
    tensors = {name: tensor for name, tensor in make_model("resnet18").state_dict().items() if tensor.ndim}
    memory = torch.ones(max(tensor.numel() for tensor in tensors.values()))
    path = save({name: memory[: tensor.numel()].view_as(tensor) for name, tensor in tensors.items()})
    with pytest.raises(ValueError, match=r"views of one memory. Save each one by itself"):
        add("mine_spd", path, "resnet18")


def test_float8_of_safetensors(tmp_path: Path, make_model: Any) -> None:
    tensors = make_model().state_dict()
    tensors["bn1.weight"] = tensors["bn1.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"bn1.weight is torch.float8_e4m3fn"):
        add("mine_spd", tmp_path / "w.safetensors", "test_efficientnet")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dense_floats_are_taken(dtype: torch.dtype, save: Any, make_model: Any) -> None:
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in make_model().state_dict().items()}
    add("mine_spd", save(tensors), "test_efficientnet")


@pytest.mark.parametrize(
    "weight",
    [torch.empty(2_000_000, 0), torch.ones(1, 1).expand(2_000_000, 96), torch.ones(1).expand(2_000_000)],
    ids=["empty", "expanded", "flat"],
)
def test_classes_without_weights_take_no_memory(weight: Tensor, save: Any, make_model: Any) -> None:
    """The classifier of test_resnet for as many classes takes 0.8 GB, and more while it is made."""
    path = save(
        make_model("test_resnet").state_dict() | {"fc.weight": weight, "fc.bias": torch.ones(1).expand(2_000_000)}
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes
    with pytest.raises(ValueError, match="does not fit test_resnet"):
        add("mine_spd", path, "test_resnet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_arguments_of_a_record_take_no_memory(save: Any) -> None:
    folder = add("wide_spd", save(), "test_efficientnet").folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_args": {"channel_multiplier": 100}}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="of another shape"):
        add("mine_spd", folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_compressed_files_are_refused(save: Any, tmp_path: Path) -> None:
    path = save({"weight": torch.zeros(1000)})
    with zipfile.ZipFile(path) as plain, zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small:
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    with pytest.raises(ValueError, match="is a compressed archive, which PyTorch does not write"):
        add("mine_spd", tmp_path / "small.pth", "test_efficientnet")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_give_nan_are_refused(dtype: torch.dtype, save: Any, make_model: Any, registry: Path) -> None:
    """They are finite themselves, the second as they are stored alone."""
    value = 3e38 if dtype == torch.float32 else 1e300
    tensors = make_model().state_dict()
    tensors |= {name: torch.full_like(t, value, dtype=dtype) for name, t in tensors.items() if "conv" in name}
    with pytest.raises(ValueError, match="give NaN or infinite output on an image, though they are finite themselves"):
        add("mine_spd", save(tensors), "test_efficientnet")
    assert not registry.exists()
