"""Reading files without running them, and every layout that is known."""

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from anomalib_spd.backbones import add
from anomalib_spd.backbones.checkpoints import read_checkpoint
from anomalib_spd.backbones.fitting import classifier_names, fit
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD

Tensors = dict[str, Tensor]

ARCHITECTURE, WIDTH = "test_resnet", 96  # of timm's ResNets the smallest


def fitted(tensors: Tensors, architecture: str, **settings: Any) -> nn.Module:
    return fit(tensors, architecture, **settings).model


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without_fc(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}


def linear(name: str, inputs: int, outputs: int) -> Tensors:
    return {f"{name}.weight": torch.randn(outputs, inputs), f"{name}.bias": torch.randn(outputs)}


def batch_norm(name: str, width: int) -> Tensors:
    return prefixed(f"{name}.", nn.BatchNorm1d(width).state_dict())


def moco_v1(tensors: Tensors) -> dict[str, Any]:
    encoder = without_fc(tensors) | linear("fc", WIDTH, 128)
    return {"epoch": 200, "arch": "resnet18", "state_dict": prefixed("module.encoder_q.", encoder)}


def moco_v2(tensors: Tensors) -> dict[str, Any]:
    """As published by facebookresearch/moco: query and key encoders, the projection an MLP called `fc`, the queue."""
    encoder = without_fc(tensors) | linear("fc.0", WIDTH, WIDTH) | linear("fc.2", WIDTH, 128)
    key = {name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in encoder.items()}
    queue = {"module.queue": torch.randn(128, 64), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    state = prefixed("module.encoder_q.", encoder) | prefixed("module.encoder_k.", key) | queue
    return {"epoch": 800, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}


def moco_v3(tensors: Tensors) -> dict[str, Any]:
    encoder = without_fc(tensors) | linear("fc.0", WIDTH, 64) | batch_norm("fc.1", 64) | linear("fc.3", 64, 32)
    state = prefixed("module.base_encoder.", encoder) | prefixed("module.momentum_encoder.", encoder)
    return {"state_dict": state | prefixed("module.predictor.", linear("0", 32, 32))}


def simsiam(tensors: Tensors) -> dict[str, Any]:
    """As published by facebookresearch/simsiam: a projector of three layers called `fc`, and a predictor."""
    projector = linear("fc.0", WIDTH, 64) | batch_norm("fc.1", 64) | linear("fc.3", 64, 64) | batch_norm("fc.4", 64)
    projector |= linear("fc.6", 64, 64) | {"fc.7.running_mean": torch.zeros(64), "fc.7.running_var": torch.ones(64)}
    predictor = linear("0", 64, 16) | linear("3", 16, 64)
    state = prefixed("module.encoder.", without_fc(tensors) | projector) | prefixed("module.predictor.", predictor)
    return {"epoch": 100, "arch": "resnet18", "state_dict": state}


def lightning(tensors: Tensors) -> dict[str, Any]:
    state = prefixed("encoder.", without_fc(tensors)) | linear("head", WIDTH, 10)
    settings = {"backbone": ARCHITECTURE, "eta": 0.1}
    return {"state_dict": state, "pytorch-lightning_version": "2.6.0", "hyper_parameters": settings}


SELF_SUPERVISED: dict[str, Callable[[Tensors], Any]] = {
    "lightning": lightning,
    "moco_v1": moco_v1,
    "moco_v2": moco_v2,
    "moco_v2_bare": lambda tensors: {k.removeprefix("module."): v for k, v in moco_v2(tensors)["state_dict"].items()},
    "moco_v3": moco_v3,
    "moco_v3_bare": lambda tensors: {k.removeprefix("module."): v for k, v in moco_v3(tensors)["state_dict"].items()},
    "simsiam": simsiam,
}

WITH_CLASSIFIER: dict[str, Callable[[Tensors], Any]] = {
    "plain": dict,
    "state_dict": lambda tensors: {"state_dict": tensors, "epoch": 3},
    "model": lambda tensors: {"model": tensors},
    "ddp": lambda tensors: prefixed("module.", tensors),
    "compiled": lambda tensors: prefixed("_orig_mod.", tensors),
    "compiled_ddp": lambda tensors: prefixed("_orig_mod.module.", tensors),
    "ddp_compiled": lambda tensors: prefixed("module._orig_mod.", tensors),
    "wrapped_in_model": lambda tensors: prefixed("model.", tensors) | {"loss.weight": torch.ones(10)},
    "wrapped_in_backbone": lambda tensors: prefixed("backbone.", tensors),
    # what timm's training script writes
    "timm": lambda tensors: {
        "epoch": 1,
        "arch": "resnet18",
        "args": argparse.Namespace(lr=0.1, model="resnet18"),
        "state_dict": {name: torch.zeros_like(tensor) for name, tensor in tensors.items()},
        "state_dict_ema": tensors,
        "optimizer": {},
    },
    "timm_without_average": lambda tensors: {"state_dict": tensors, "state_dict_ema": None, "model_ema": None},
}


@pytest.mark.parametrize("layout", SELF_SUPERVISED)
def test_self_supervised_layouts_give_the_encoder(layout: str, make_model: Any, save: Any, images: Tensor) -> None:
    source = make_model(ARCHITECTURE)
    path = save(SELF_SUPERVISED[layout](source.state_dict()))
    add("added_spd", path, ARCHITECTURE, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    model = timm.create_model("added_spd", pretrained=True).eval()
    assert model.num_classes == 0
    assert torch.equal(model.forward_features(images), source.forward_features(images))
    maps = timm.create_model("added_spd", pretrained=True, features_only=True).eval()(images)
    for found, expected in zip(maps, source.forward_intermediates(images, intermediates_only=True), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", WITH_CLASSIFIER)
def test_other_layouts_keep_the_classifier(layout: str, make_model: Any, save: Any, images: Tensor) -> None:
    source = make_model(ARCHITECTURE, num_classes=7)
    path = save(WITH_CLASSIFIER[layout](source.state_dict()))
    add("added_spd", path, ARCHITECTURE, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    model = timm.create_model("added_spd", pretrained=True).eval()
    assert model.num_classes == 7
    assert torch.equal(model(images), source(images))


def test_plain_layout_without_classifier(make_model: Any, images: Tensor) -> None:
    source = make_model(ARCHITECTURE)
    model = fitted(without_fc(source.state_dict()), ARCHITECTURE).eval()
    assert model.num_classes == 0
    assert torch.equal(model(images), source.forward_head(source.forward_features(images), pre_logits=True))


@pytest.mark.parametrize("architecture", ["resnet18", "resnet50"])
def test_torchvision_resnets(architecture: str, images: Tensor) -> None:
    torch.manual_seed(0)
    source = torchvision.models.get_model(architecture).eval()
    model = fitted(source.state_dict(), architecture).eval()
    torch.testing.assert_close(model(images), source(images))


@pytest.mark.parametrize("architecture", ["test_vit", "test_convnext", "tf_efficientnet_lite0", "test_resnet"])
def test_other_architectures(architecture: str, make_model: Any) -> None:
    source = make_model(architecture, num_classes=5)
    model = fitted(prefixed("module.", source.state_dict()), architecture).eval()
    images = torch.randn(1, *source.pretrained_cfg["input_size"])
    assert torch.equal(model(images), source(images))
    # the name of the classifier differs: `head`, `head.fc`, `classifier`, `fc`
    encoder = fitted(prefixed("module.encoder.", source.state_dict()), architecture)
    assert encoder.num_classes == 0


def test_several_classifiers(make_model: Any) -> None:
    source = make_model("deit_tiny_distilled_patch16_224")
    assert classifier_names(source) == ("head", "head_dist")
    assert fitted(source.state_dict(), "deit_tiny_distilled_patch16_224").num_classes == 1000
    assert fitted(prefixed("encoder_q.", source.state_dict()), "deit_tiny_distilled_patch16_224").num_classes == 0


def test_batch_counts_may_be_missing(make_model: Any, images: Tensor) -> None:
    source = make_model()
    tensors = {name: t for name, t in source.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert torch.equal(fitted(tensors, "test_efficientnet").eval()(images), source(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_is_kept(dtype: torch.dtype, make_model: Any) -> None:
    model = fitted(make_model().to(dtype).state_dict(), "test_efficientnet")
    assert {p.dtype for p in model.parameters()} == {dtype}


def test_memory_is_the_models_own(make_model: Any) -> None:
    source = make_model().to(memory_format=torch.channels_last)
    model = fitted(source.state_dict(), "test_efficientnet")
    assert all(tensor.is_contiguous() for tensor in model.state_dict().values())
    addresses = {tensor.data_ptr() for tensor in source.state_dict().values()}
    assert not any(tensor.data_ptr() in addresses for tensor in model.state_dict().values())


def drop(tensors: Tensors, *names: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


MISFITS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "missing": (
        lambda t: drop(t, "bn1.weight", "bn1.bias", "conv_stem.weight", "bn2.bias"),
        r"4 missing \(conv_stem.weight, bn1.weight, bn1.bias, \.\.\.\)",
    ),
    "unexpected": (
        lambda t: t | {f"extra.{i}": torch.ones(1) for i in range(4)},
        r"4 unexpected \(extra.0, extra.1, extra.2, \.\.\.\)",
    ),
    "shape": (
        lambda t: t | {"conv_stem.weight": t["conv_stem.weight"][:, :2]},
        r"1 of another shape \(conv_stem.weight is \(\d+, 2, 3, 3\), not \(\d+, 3, 3, 3\)\)",
    ),
    "type": (
        lambda t: t | {"bn1.weight": t["bn1.weight"].to(torch.int8)},
        r"1 of another type \(bn1.weight is torch.int8, not torch.float32; ",
    ),
    "prefix": (
        lambda t: prefixed("module.", drop(t, "bn1.weight")),
        r"1 missing \(bn1.weight\). \d+ of the \d+ expected tensors were found, behind the prefix 'module.'",
    ),
    "nothing": (lambda _: {"a": torch.ones(1)}, r"1 unexpected \(a\). 0 of the \d+ expected tensors .*--prefix.*--key"),
    "nan": (
        lambda t: t | {"bn1.weight": t["bn1.weight"] * torch.nan},
        r"NaN or infinite values in 1 of \d+ .*bn1.weight",
    ),
    "inf": (lambda t: t | {"bn1.bias": t["bn1.bias"] + torch.inf}, r"NaN or infinite values in 1 of \d+ .*bn1.bias"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_misfits(misfit: str, make_model: Any) -> None:
    change, message = MISFITS[misfit]
    with pytest.raises(ValueError, match=message):
        fitted(change(make_model().state_dict()), "test_efficientnet")


def test_other_architectures_tensors(make_model: Any) -> None:
    with pytest.raises(ValueError, match=r"does not fit test_efficientnet: .* missing .* unexpected"):
        fitted(make_model("test_resnet").state_dict(), "test_efficientnet")


def test_arguments_that_timm_refuses(make_model: Any) -> None:
    with pytest.raises(ValueError, match=r"timm cannot build test_efficientnet with .*no_such.*TypeError"):
        fitted(make_model().state_dict(), "test_efficientnet", no_such=1)


def test_safetensors(tmp_path: Path, make_model: Any) -> None:
    tensors = make_model().state_dict()
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    read, hyper_parameters = read_checkpoint(tmp_path / "w.safetensors")
    assert hyper_parameters == {}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_hyper_parameters_are_read(make_model: Any, save: Any) -> None:
    assert read_checkpoint(save(lightning(make_model().state_dict())))[1]["backbone"] == ARCHITECTURE


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle2", "pickle"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickled_code_is_not_run(form: str, tmp_path: Path) -> None:
    path, witness = tmp_path / "evil.pth", tmp_path / "witness"
    content = {"state_dict": {"weight": torch.ones(1)}, "extra": Malicious(witness)}
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps(Malicious(witness), protocol=2 if form == "pickle2" else None))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match=r"evil.pth .*safetensors\.torch\.save_file") as caught:
        read_checkpoint(path)
    assert not witness.exists()
    assert "weights_only" not in str(caught.value)
    if form != "pickle":
        assert "pickled objects (posix.mkdir), which are not loaded: they can run any code" in str(caught.value)


def test_pickled_objects_are_named(save: Any) -> None:
    with pytest.raises(ValueError, match=r"pickled objects \(torch.nn.modules.linear.Linear\)"):
        read_checkpoint(save(nn.Linear(2, 2)))


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_cut_off_files(form: str, part: float, tmp_path: Path, make_model: Any) -> None:
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    tensors = make_model().state_dict()
    if form == "safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"not a complete (safetensors file|PyTorch checkpoint).*[Cc]opy or download"):
        read_checkpoint(path)


def test_other_kinds_of_file(tmp_path: Path) -> None:
    page = tmp_path / "weights.pth"
    page.write_text("<html>404</html>")
    with pytest.raises(ValueError, match="of another kind"):
        read_checkpoint(page)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3, "network": {"weight": 1}}, {"state_dict": {}}, 5])
def test_files_without_tensors(content: Any, save: Any) -> None:
    with pytest.raises(ValueError, match=r"holds no tensors: found .*, expected a state dict"):
        read_checkpoint(save(content))
