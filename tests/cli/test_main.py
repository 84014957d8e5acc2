"""``anomalib-spd``: pre-training from a shipped file to a name in the registry, and stock subcommands with the registry."""

import csv
import errno
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from anomalib_spd import pretraining
from anomalib_spd.cli.main import COMMANDS, main
from anomalib_spd.cli.short_help import SHORT_HELP
from anomalib_spd.config_files import SHIPPED
from anomalib_spd.pretraining import SupervisedSPD
from anomalib_spd.version import __version__

RECIPES = {
    f"{method}_spd{variant}": [f"pretrain/{method}_spd.yaml", *overlay]
    for method in ("supervised", "simsiam", "simclr", "moco", "dense", "cross_image")
    for variant, overlay in (
        ("", []),
        ("_small", ["pretrain/small.yaml"]),
        ("_imagenet", [f"pretrain/{method}_spd_imagenet.yaml"]),
    )
}
#: recipes' backbones: they go with every method
BACKBONES = ["resnet18", "resnet50", "wide_resnet50_2", "vit_small_dinov2"]


#: ends the second epoch after its first step
STOPPING = '--trainer.callbacks=[{"class_path": "tests.stopping.Stopping", "init_args": {"step": 4}}]'


def recipe(name: str) -> list[str]:
    """The options that name a recipe's files."""
    return [f"--config={file}" for file in RECIPES[name]]


# what makes the heads of a method small
HEADS = {
    "supervised": {"num_classes": 3},
    "simsiam": {"projection": 16, "bottleneck": 8},
    "simclr": {"projection": 8, "hidden": 16},
    "moco": {"projection": 8, "queue_size": 16},
    "dense": {"layers": ["blocks.1", "blocks.2"], "frozen": ["conv_stem", "bn1", "blocks.0"]},
    "cross_image": {"layers": ["blocks.1", "blocks.2"], "frozen": ["conv_stem", "bn1", "blocks.0"]},
}


def data_of(method: str, images: Path, batch_size: int = 4, categories: int = 3) -> dict[str, Any]:
    """The data of a shrunk recipe: these images, or synthetic parts and these to replay."""
    if method != "cross_image":
        return {"root": str(images), "image_size": 40, "batch_size": batch_size, "num_workers": 0}
    made = images.parent / f"parts_{categories}_{batch_size}"
    parts = {"root": str(made), "categories": categories, "images_per_category": batch_size, "batch_size": batch_size}
    return {**parts, "replay_images": str(images), "replay_per_batch": 2, "num_workers": 0}


def _small(images: Path, folder: Path, *more: str, method: str = "supervised") -> list[str]:
    """Shrink a shipped recipe to seconds: other images, a tiny network, few steps."""
    return [
        *("--model.init_args.backbone", "test_efficientnet", "--model.init_args.pretrained", "false"),
        *("--model.init_args.image_size", "32"),
        *(f"--model.init_args.{name}={value}" for name, value in HEADS[method].items()),
        *(f"--data.init_args.{name}={value}" for name, value in data_of(method, images).items()),
        *("--trainer.accelerator", "cpu", "--trainer.default_root_dir", str(folder)),
        *("--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.precision", "32-true"),
        *more,
    ]


def _pretrain(images: Path, folder: Path, *more: str) -> None:
    assert main(["pretrain", *recipe("supervised_spd"), *_small(images, folder, *more), "--debug"]) == 0


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs(name: str, labelled_images: Path, tmp_path: Path) -> None:
    small = _small(labelled_images, tmp_path, "--trainer.fast_dev_run", "true", method=name.partition("_spd")[0])
    assert main(["pretrain", *recipe(name), *small]) == 0


def _is_slow(method: str, backbone: str) -> bool:
    return backbone != "resnet18" and (method, backbone) != ("simsiam", "vit_small_dinov2")


@pytest.mark.parametrize(
    ("method", "backbone"),
    [
        pytest.param(method, backbone, marks=[pytest.mark.slow] if _is_slow(method, backbone) else [])
        for method in HEADS
        for backbone in BACKBONES
    ],
)
def test_every_recipe_runs_with_every_backbone(
    method: str, backbone: str, labelled_images: Path, tmp_path: Path
) -> None:
    head = {name: value for name, value in HEADS[method].items() if name not in ("layers", "frozen")}
    size = 28 if "vit" in backbone else 32  # of whole patches
    arguments = {
        "model.pretrained": "false",
        **{f"model.{name}": value for name, value in ({"image_size": size} | head).items()},
        **{f"data.{name}": value for name, value in data_of(method, labelled_images).items()},
        **{"trainer.accelerator": "cpu", "trainer.fast_dev_run": "true", "trainer.default_root_dir": tmp_path},
    }
    configs = [f"--config=pretrain/{method}_spd", f"--config=pretrain/{backbone}"]
    assert main(["pretrain", *configs, *(f"--{name}={value}" for name, value in arguments.items())]) == 0


def test_every_shipped_file_is_a_recipe_and_every_method_has_one() -> None:
    shipped = {f"pretrain/{path.name}" for path in (SHIPPED / "pretrain").iterdir()}
    shipped.remove("pretrain/cross_image_spd_real.yaml")  # of images with masks: tests/local/test_real_defects.py
    shipped -= {f"pretrain/{backbone}.yaml" for backbone in BACKBONES}
    assert shipped == {file for files in RECIPES.values() for file in files if file.startswith("pretrain/")}
    plain = {name.removesuffix("SPD").lower() for name in pretraining.__all__ if name != "SPDPretraining"}
    assert plain < HEADS.keys() == {name.partition("_spd")[0] for name in RECIPES}


@pytest.mark.parametrize("method", HEADS)
def test_every_method_trains_a_backbone(method: str, labelled_images: Path, tmp_path: Path, registry: Path) -> None:
    small = _small(labelled_images, tmp_path / "run", "--trainer.max_epochs", "1", method=method)
    assert main(["pretrain", *recipe(f"{method}_spd"), *small]) == 0
    assert (tmp_path / "run" / "views.png").is_file()
    assert main(["backbones", "add", f"tiny_{method}", str(tmp_path / "run" / "checkpoints" / "last.ckpt")]) == 0
    features = timm.create_model(f"tiny_{method}", pretrained=True, features_only=True)(torch.rand(1, 3, 64, 64))
    assert all(level.isfinite().all() for level in features)


def test_from_pre_training_to_a_name(labelled_images: Path, tmp_path: Path, registry: Path) -> None:
    run = tmp_path / "run"
    _pretrain(labelled_images, run, "--trainer.max_epochs", "2")

    with (run / "log" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3  # twelve images, batches of four
    assert {"learning_rate", "loss", "loss_supervised", "loss_spd", "sim_ap", "sim_an", "z_std"} <= set(rows[0])
    assert (run / "log" / "version_0" / "config.yaml").is_file()

    checkpoint = run / "checkpoints" / "last.ckpt"
    assert main(["backbones", "add", "tiny_spd", str(checkpoint)]) == 0
    assert (registry / "tiny_spd" / "model.safetensors").is_file()
    trained = torch.load(checkpoint, weights_only=True)["state_dict"]
    named = timm.create_model("tiny_spd", pretrained=True).state_dict()
    assert named
    for name, tensor in named.items():
        assert torch.equal(tensor, trained[f"encoder.{name}"]), name


def test_the_same_command_goes_on_from_the_last_epoch(labelled_images: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        _pretrain(labelled_images, tmp_path, "--trainer.max_epochs", "2", STOPPING)
    _pretrain(labelled_images, tmp_path, "--trainer.max_epochs", "2")
    with (tmp_path / "log" / "version_1" / "metrics.csv").open() as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"1"}
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (1, 6)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    # outside a run, settings may be changed
    again = SupervisedSPD.load_from_checkpoint(tmp_path / "checkpoints" / "last.ckpt", eta=0.5)
    assert again.eta == 0.5


def test_a_run_does_not_go_on_from_another_ones_checkpoint(labelled_images: Path, tmp_path: Path) -> None:
    _pretrain(labelled_images, tmp_path, "--trainer.max_epochs", "1")
    before = (tmp_path / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(ValueError, match=r"other settings \(eta: 0.1 then, 0.0 now\).*--trainer.default_root_dir"):
        _pretrain(labelled_images, tmp_path, "--trainer.max_epochs", "2", "--model.init_args.eta", "0")
    assert (tmp_path / "checkpoints" / "last.ckpt").read_bytes() == before


def test_the_seed_decides(labelled_images: Path, tmp_path: Path) -> None:
    weights = []
    for run, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        _pretrain(labelled_images, tmp_path / run, "--trainer.max_epochs", "1", "--seed_everything", seed)
        state = torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        weights.append(torch.cat([tensor.flatten().float() for tensor in state.values()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_no_images_is_an_error_of_one_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError, match=r"Give another with --data\.root"):
        _pretrain(tmp_path / "missing", tmp_path / "run")
    capsys.readouterr()
    assert main(["pretrain", *recipe("supervised_spd"), *_small(tmp_path / "missing", tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in error


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"], ["--version"]])
def test_help_and_version(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out == f"{__version__}\n" if args == ["--version"] else all(name in out for name in (*COMMANDS, "train"))


def test_an_unknown_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--paint"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


@pytest.mark.parametrize(
    ("args", "meant"),
    [
        (["backbones", "lst"], "did you mean 'list'?"),
        (["recipes", "shw", "patchcore_spd"], "did you mean 'show'?"),
        (["report"], "required: RESULTS"),
        (["benchmark", "--config", "benchmark/quick", "--workrs", "2"], "Unrecognized arguments: --workrs 2"),
        (["benchmark"], "is required"),
    ],
)
def test_wrong_usage_is_one_line_in_every_command(
    args: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert meant in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: anomalib-spd {command}" in capsys.readouterr().out


def test_stock_subcommands_know_our_names_without_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *("train", "--model", "Patchcore", "--model.backbone", "efficientnet_lite0_spd"),
        *("--model.layers", '["blocks.2", "blocks.4"]', "--model.coreset_sampling_ratio", "0.01"),
        *("--data", "anomalib_spd.data.Sample", "--data.folder", str(tmp_path / "sample"), "--data.texture", "gravel"),
        *("--trainer.accelerator", "cpu", "--trainer.devices", "1", "--default_root_dir", str(tmp_path / "results")),
    ]
    assert main(arguments) == 0
    assert "image_AUROC" in capsys.readouterr().out
    assert len(list((tmp_path / "results").rglob("images/**/bad/*.png"))) == 15


#: what stands for the values of the short helps
VALUES = {
    **{
        "FOLDER": "there",
        "FILE": "last",
        "NAME": "cpu",
        "CATEGORY": "candle",
        "LIST": "[candle]",
        "NUMBERS": "[1]",
        "UNIT": "dataset",
    },
    **{"N": "1", "X": "0.5", "LAYERS": "[blocks.2]", "PRECISION": "32-true", "RUNNER": "ray", "TEXT": "mine"},
    "CLASS": "anomalib.data.Visa",
}
#: recipe by which a command has the arguments in its short help
SHOWN = {
    **{
        "pretrain": "pretrain/supervised_spd",
        "adapt": "finetune/adapt",
        "finetune": "finetune/adapt",
        "twoclass": "twoclass/classifier",
    },
    "benchmark": "benchmark/cutswap_visa",
}


#: their helps are of Lightning's options too; for the one of deploy see tests/deploy/test_help.py
LIGHTNING = [command for command in SHORT_HELP if command != "deploy"]


@pytest.mark.parametrize("command", LIGHTNING)
def test_every_option_of_a_short_help_is_the_parsers(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--config", SHOWN[command], "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown == SHORT_HELP[command]
    assert len(shown.splitlines()) < 50
    options = re.findall(r"^  (--[\w.-]+) ?([A-Z]*)", shown, re.MULTILINE)
    given = [
        part for option, value in options for part in (option, {**VALUES, "RECIPE": SHOWN[command]}.get(value)) if part
    ]
    assert len(options) > 10
    with pytest.raises(SystemExit) as caught:
        main([command, *given, "--print_config"])
    printed = capsys.readouterr()
    assert caught.value.code == 0, printed.err
    # the grid's own options of the data module are those of the module's arguments
    for option, value in options:
        name = option.rpartition(".")[2].lstrip("-").replace("-", "_")
        assert option == "--config" or re.search(rf"\b{name}:", printed.out) or value == "CLASS", option


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_does_not_import_torch(command: str) -> None:
    code = f"""
import sys
sys.argv[0] = "anomalib-spd"
from anomalib_spd.cli.main import main
try:
    main([{command!r}, "--help"])
except SystemExit as error:
    assert error.code == 0
assert not {{"torch", "pandas", "matplotlib"}} & {{*sys.modules}}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", LIGHTNING)
def test_all_options_are_in_the_whole_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help", "all"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: anomalib-spd {'finetune' if command == 'adapt' else command} ")
    assert "--dry-run" in out if command == "benchmark" else "--trainer.gradient_clip_val" in out


def test_stock_commands_print_a_line_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(SystemExit):
        main(["train", "--config", "patchcore_spd", "--print_config"])
    logging.getLogger("anomalib_spd").warning("a line of ours")
    assert "".join(capsys.readouterr()).count("a line of ours") == 1


SAMPLE = ("--data", "anomalib_spd.data.Sample", "--data.folder", "sample")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("backbones", "show", "efficientnet_lite0_sdp"), "did you mean 'efficientnet_lite0_spd"),
        (("backbones", "remove", "efficientnet_lite0_sdp"), "did you mean 'efficientnet_lite0_spd"),
        (
            ("train", "--config", "patchcore_spd", *SAMPLE, "--model.backbone", "efficientnet_lite0_sdp"),
            "error: Unknown model (efficientnet_lite0_sdp): neither the registry nor timm has it, did you mean 'efficientnet_",
        ),
        (
            ("pretrain", "--config", "pretrain/moco_spd", "--data.root", ".", "--model.backbone", "resnet81"),
            "error: Unknown model (resnet81): neither the registry nor timm has it, did you mean 'resnet18",
        ),
        (
            ("finetune", "--config", "finetune/adapt", "--name", "x", *SAMPLE, "--model.layers", "[blocks.2,block.4]"),
            "has no layer 'block.4', did you mean 'blocks.4'?; it has: blocks.0, ",
        ),
        (
            ("twoclass", "--config", "twoclass/classifier", "--data.category", "candel"),
            "Unknown category 'candel', did you mean 'candle'?; VisA has ",
        ),
        (
            ("finetune", "--config", "finetune/adapt", "--name", "x", *SAMPLE, "--data.texture", "gras"),
            "Unknown category 'gras', did you mean 'grass'?; the demo set has ",
        ),
        (
            (
                "finetune",
                "--config",
                "finetune/adapt",
                "--name",
                "x",
                "--data",
                "anomalib.data.Visa",
                "--data.category",
                "pcb",
            ),
            "Visa has no category 'pcb', did you mean 'pcb",
        ),
    ],
)
def test_a_misspelt_name_is_answered_with_the_one_meant(
    args: tuple[str, ...],
    message: str,
    tmp_path: Path,
    registry: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device. Make room and give the same command",
        ),
        # as anomalib's export to OpenVINO does where that is not installed
        (ModuleNotFoundError(), "error: ModuleNotFoundError, without a word; --debug shows where"),
    ],
)
def test_errors_of_the_system_say_what_to_do(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("anomalib_spd.cli.report.write_report", fail)
    assert main(["report", "results"]) == 1
    assert message in capsys.readouterr().err
