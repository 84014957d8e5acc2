"""Finding a network's tensors, whatever stands before their names and whoever named them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from anomalib_spd.backbones import add
from anomalib_spd.backbones.fitting import fit
from anomalib_spd.backbones.normalization import IMAGENET_MEAN, IMAGENET_STD
from anomalib_spd.cli.main import main

Tensors = dict[str, Tensor]
IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def other(tensors: Tensors) -> Tensors:
    return {name: tensor + 1 for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "model._orig_mod.",
        "module.module.",
        "student.backbone.",
        "net.",
        "backbone.0.",
        "a.b.c.d.e.f.",
        "timm_model.",
        "x",
    ],
)
def test_any_prefix_is_found(prefix: str, save: Any, make_model: Any, images: Tensor) -> None:
    source = make_model(num_classes=7)
    prefix = prefix if prefix.endswith(".") else f"{prefix}."
    tensors = prefixed(prefix, source.state_dict()) | {"loss.weight": torch.ones(3)}
    add("mine_spd", save({"epoch": 3, "content": tensors}), "test_efficientnet", **IMAGENET)
    assert torch.equal(timm.create_model("mine_spd", pretrained=True).eval()(images), source(images))


NESTED: dict[str, Callable[[Tensors], Any]] = {
    # what VISSL writes
    "vissl": lambda t: {
        "loss": {"name": "simclr"},
        "classy_state_dict": {
            "base_model": {
                "model": {
                    "trunk": prefixed("_feature_blocks.", t),
                    "heads": {"0.clf.0.weight": torch.ones(2, 2)},
                }
            }
        },
    },
    # lightly puts the children into an nn.Sequential, and has a slow copy of it
    "lightly": lambda t: {"state_dict": lightly(t) | prefixed("backbone_momentum.", sequential(other(t)))},
    "moco_v2": lambda t: {"state_dict": prefixed("m.encoder_q.", t) | prefixed("m.encoder_k.", other(t))},
    # this package's own
    "moco_of_ours": lambda t: {"state_dict": prefixed("key_encoder.", other(t)) | prefixed("encoder.", t)},
    "local_of_ours": lambda t: {"state_dict": prefixed("teacher.", other(t)) | prefixed("encoder.", t)},
    "lightning_in_a_part": lambda t: {"state_dict": {"deep": {"er": t}}},
}


def sequential(tensors: Tensors) -> Tensors:
    """Return the tensors of ``nn.Sequential(*list(resnet.children())[:-1])``."""
    order = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool"]
    split = {name: name.partition(".") for name in tensors}
    return {f"{order.index(first)}.{rest}": tensors[name] for name, (first, _, rest) in split.items()}


def lightly(tensors: Tensors) -> Tensors:
    return prefixed("backbone.", sequential(tensors)) | {"projection_head.layers.0.weight": torch.ones(4, 4)}


@pytest.mark.parametrize("case", NESTED)
def test_parts_within_parts_are_read(case: str, save: Any, make_model: Any, images: Tensor) -> None:
    source = make_model("test_resnet", num_classes=0)
    add("mine_spd", save(NESTED[case](source.state_dict())), "test_resnet", **IMAGENET)
    assert torch.equal(timm.create_model("mine_spd", pretrained=True).eval()(images), source(images))


def test_a_part_that_holds_itself_is_read_once(save: Any, make_model: Any) -> None:
    content: dict[str, Any] = {"network": make_model().state_dict()}
    for name in "abcdefgh":
        content[name] = content
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"deep": deep}
    content["deep"] = deep
    assert add("mine_spd", save(content), "test_efficientnet").architecture == "test_efficientnet"


def test_of_several_networks_one_is_to_be_given(
    save: Any, make_model: Any, images: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    """DINO trains a student, and publishes the teacher."""
    student, teacher = make_model(seed=1), make_model(seed=2)
    parts = {"student": prefixed("module.backbone.", student.state_dict())}
    path = save(parts | {"teacher": prefixed("backbone.", teacher.state_dict()), "epoch": 3})
    command = ["backbones", "add", "mine_spd", str(path), "--architecture", "test_efficientnet"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "2 networks that fit: their names begin with 'student.module.backbone.' and 'teacher.backbone.'" in error
    assert error.count("\n") == 1
    choices = [(["--prefix", "teacher.backbone"], teacher), (["--key", "student"], student)]
    choices += [(["--key", "teacher", "--prefix", "backbone."], teacher)]
    for choice, expected in choices:
        assert main([*command, *choice]) == 0
        found = timm.create_model("mine_spd", pretrained=True).eval()
        assert torch.equal(found(images), expected(images))
        assert main(["backbones", "remove", "mine_spd"]) == 0
    for choice, message in (
        (["--key", "tutor"], "has no part 'tutor'"),
        (["--prefix", "b."], "No tensor's name begins"),
    ):
        assert main([*command, *choice]) == 1
        assert message in capsys.readouterr().err


def test_advice_where_nothing_fits(save: Any, make_model: Any) -> None:
    with pytest.raises(ValueError, match=r"Give the architecture .*--prefix.*--key"):
        add("mine_spd", save({"a": {"b": torch.ones(2)}}), "test_efficientnet")
    tensors = prefixed("net.", make_model().state_dict())
    del tensors["net.bn1.weight"]
    with pytest.raises(
        ValueError, match=r"1 missing \(bn1.weight\).*prefix 'net.'. Give the architecture that it was trained with\.$"
    ):
        add("mine_spd", save(tensors), "test_efficientnet")


def test_a_projection_of_several_layers_is_no_classifier(make_model: Any) -> None:
    tensors = {name: t for name, t in make_model("test_resnet").state_dict().items() if not name.startswith("fc.")}
    projection = {"net.fc.0.weight": torch.ones(8, 96), "net.fc.2.weight": torch.ones(8, 8)}
    assert fit(prefixed("net.", tensors) | projection, "test_resnet").model.num_classes == 0


def test_a_first_convolution_of_one_channel_is_repeated(save: Any, make_model: Any, images: Tensor) -> None:
    source = make_model("resnet10t", in_chans=1, num_classes=4)
    backbone = add("gray_spd", save(source.state_dict()), "resnet10t", **IMAGENET, recipe="by hand")
    assert backbone.provenance.recipe == "by hand; first convolution of one channel repeated to three, a third each"
    model = timm.create_model("gray_spd", pretrained=True).eval()
    gray = images[:, :1]
    torch.testing.assert_close(model(gray.repeat(1, 3, 1, 1)), source(gray), rtol=1e-4, atol=1e-4)


def test_a_folder_of_one_channel(save: Any, make_model: Any, tmp_path: Path) -> None:
    source = make_model("resnet10t", in_chans=1)
    timm.models.save_for_hf(source, str(tmp_path / "gray"), model_args={"in_chans": 1}, safe_serialization=True)
    backbone = add("gray_spd", tmp_path / "gray")
    assert backbone.model_args.get("in_chans", 3) == 3
    assert backbone.pretrained_cfg["input_size"][0] == 3
    timm.create_model("gray_spd", pretrained=True)


def transformers_resnet(tensors: Tensors) -> Tensors:
    """Return the tensors by the names of transformers' ``ResNetModel``."""
    named = {}
    for name, tensor in tensors.items():
        name = name.replace("conv1.", "embedder.embedder.convolution.", 1) if name.startswith("conv1.") else name
        name = name.replace("bn1.", "embedder.embedder.normalization.", 1) if name.startswith("bn1.") else name
        if match := re.match(r"layer(\d)\.(\d+)\.(.*)", name):
            stage, block, rest = int(match[1]) - 1, match[2], match[3]
            rest = rest.replace("downsample.0.", "shortcut.convolution.").replace(
                "downsample.1.", "shortcut.normalization."
            )
            rest = re.sub(r"conv(\d)", lambda m: f"layer.{int(m[1]) - 1}.convolution", rest)
            rest = re.sub(r"bn(\d)", lambda m: f"layer.{int(m[1]) - 1}.normalization", rest)
            name = f"encoder.stages.{stage}.layers.{block}.{rest}"
        named[name] = tensor
    return named


def transformers_vit(tensors: Tensors, dinov2: bool) -> Tensors:
    """Return the tensors by the names of transformers' ``ViTModel`` or ``Dinov2Model``."""
    renamed = {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense"}
    renamed |= {"mlp.fc2": "output.dense"}
    renamed = ({} if dinov2 else renamed) | {"attn.proj": "attention.output.dense"}
    renamed |= {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
    first = {"cls_token": "embeddings.cls_token", "pos_embed": "embeddings.position_embeddings"}
    first |= {f"norm.{end}": f"layernorm.{end}" for end in ("weight", "bias")}
    first |= {f"patch_embed.proj.{end}": f"embeddings.patch_embeddings.projection.{end}" for end in ("weight", "bias")}
    named = {}
    for name, tensor in tensors.items():
        if match := re.match(r"blocks\.(\d+)\.(.*)", name):
            layer, rest = f"encoder.layer.{match[1]}", match[2]
            if "qkv" in rest:
                for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    named[f"{layer}.attention.attention.{part}.{rest.rpartition('.')[2]}"] = rows.clone()
                continue
            for theirs, ours in renamed.items():
                rest = rest.replace(theirs, ours)
            named[f"{layer}.{rest}"] = tensor
        else:
            named[first[name]] = tensor
    return named | (
        {"embeddings.mask_token": torch.zeros(1, 64)} if dinov2 else {"pooler.dense.weight": torch.ones(2, 2)}
    )


TRANSFORMERS: dict[str, tuple[str, dict[str, Any], Callable[[Tensors], Tensors]]] = {
    "resnet": ("resnet18", {}, lambda t: prefixed("resnet.", transformers_resnet(t))),
    "resnet50": ("resnet50", {}, transformers_resnet),
    "vit": ("test_vit", {}, lambda t: prefixed("vit.", transformers_vit(t, dinov2=False))),
    "dinov2": ("test_vit", {"init_values": 0.1}, lambda t: transformers_vit(t, dinov2=True)),
}


@pytest.mark.parametrize("case", TRANSFORMERS)
def test_networks_of_transformers(case: str, make_model: Any) -> None:
    architecture, args, convert = TRANSFORMERS[case]
    source = make_model(architecture, num_classes=0, **args)
    model = fit(convert(source.state_dict()), architecture, **args).model.eval()
    images = torch.randn(1, *source.pretrained_cfg["input_size"])
    assert torch.equal(model(images), source(images))


def test_a_folder_of_transformers(make_model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "resnet-18"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["ResNetModel"], "model_type": "resnet"}')
    source = make_model("resnet18", num_classes=0)
    save_file(transformers_resnet(source.state_dict()), folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"is not an exported backbone.*give the architecture"):
        add("mine_spd", folder)
    add("mine_spd", folder, "resnet18", **IMAGENET)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(timm.create_model("mine_spd", pretrained=True).eval()(images), source(images))
    (folder / "model.safetensors").unlink()
    torch.save(nn.Linear(2, 2), folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in .*Give its file pytorch_model\.bin"):
        add("other_spd", folder, "resnet18")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin holds pickled objects .*save the state dict"):
        add("other_spd", folder / "pytorch_model.bin", "resnet18")


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_as_published(registers: int, make_model: Any) -> None:
    """Its authors have a mask token, and call registers by another name."""
    args = {"reg_tokens": registers, "no_embed_class": registers > 0, "init_values": 1e-5, "num_classes": 0}
    source = make_model("test_vit", **args)
    tensors = source.state_dict() | {"mask_token": torch.zeros(1, 64)}
    if registers:
        tensors["register_tokens"] = tensors.pop("reg_token")
        # the class token has a position of its own, which timm adds to it
        tensors["pos_embed"] = torch.cat([torch.zeros(1, 1, 64), tensors["pos_embed"]], dim=1)
    del args["num_classes"]
    model = fit(prefixed("backbone.", tensors), "test_vit", **args).model.eval()
    images = torch.randn(1, *source.pretrained_cfg["input_size"])
    torch.testing.assert_close(model(images), source(images))


def test_positions_of_another_size_of_image_are_refused(make_model: Any) -> None:
    """timm would resample them: another network."""
    tensors = make_model("test_vit", img_size=96).state_dict() | {"mask_token": torch.zeros(1, 64)}
    with pytest.raises(ValueError, match=r"pos_embed is .*, not "):
        fit(tensors, "test_vit")
