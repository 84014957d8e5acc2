"""The wheel, installed into an environment of its own and used from another folder by its documented commands.

The environment sees the dependencies that are installed here, but not this checkout.
"""

import email
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from anomalib_spd.config_files import SHIPPED
from anomalib_spd.version import __version__
from tests.conftest import REPOSITORY, reloads_checkpoints

Run = Callable[..., str]
pytestmark = pytest.mark.slow

CONFIGS = ("patchcore_spd.yaml", "padim_spd.yaml")
SAMPLE = ("--data", "anomalib_spd.data.Sample")
ON_CPU = ("--trainer.accelerator", "cpu")
# the console script `anomalib`, without depending on where it is installed
ANOMALIB = ("-c", "from anomalib.cli.cli import main; main()")
ANOMALIB_SPD = ("-c", "import sys; from anomalib_spd.cli.main import main; sys.exit(main())")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, from a copy of the tree, so that no build folder is left in it."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "runs", "results", "datasets", "build", "dist", "*.egg-info")
    shutil.copytree(REPOSITORY, source, ignore=ignored)
    # elsewhere: the module `build` is not the tree's folder of that name
    command = ["-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run([sys.executable, *command], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the user works."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def run(wheel: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the new environment's Python in the user's folder; returns what it printed."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    site = Path(
        subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
    )
    # a plain path: the .pth files of that folder, such as the one of this checkout's editable install, are not read
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run([sys.executable, *install], check=True)

    def run(*arguments: str, fails: bool = False) -> str:
        variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        variables |= {"ANOMALIB_SPD_HOME": str(home / "registry"), "COLUMNS": "120"}
        done = subprocess.run(
            [python, *arguments], cwd=home, env=variables, capture_output=True, text=True, check=False
        )
        printed = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, printed
        return printed

    return run


@pytest.fixture(scope="module")
def configs(run: Run) -> Path:
    """The folder of the configurations that the wheel installed."""
    return Path(run("-c", "import anomalib_spd; print(anomalib_spd.__path__[0])").split()[-1]) / "configs"


def test_holds_weights_configs_and_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for tag in ("in1k", "control", "spd", "spd.clean"):
        for file in ("config.json", "model.safetensors", "README.md"):
            assert f"anomalib_spd/backbones/weights/efficientnet_lite0_{tag}/{file}" in names
    assert all(f"anomalib_spd/configs/{config}" in names for config in CONFIGS)
    assert any(name.endswith("LICENSE") for name in names)
    assert {"anomalib_spd/py.typed", "anomalib_spd/backbones/card.md"} <= {*names}
    assert not [name for name in names if name.startswith(("tests", "scripts", "configs"))]


def test_the_sdist_holds_what_builds_the_wheel_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    assert path.name == f"anomalib_spd-{__version__}.tar.gz"
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    texts = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"}
    assert texts | {"setup.cfg", "setup.py", "pyproject.toml", "anomalib_spd/backbones/card.md"} <= names
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders == {"anomalib_spd", "anomalib_spd.egg-info"}


def test_metadata_are_what_the_package_index_takes(built: Path, wheel: Path) -> None:
    from twine.commands.check import check

    assert check([str(path) for path in built.iterdir()], strict=True) is False  # no distribution failed
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert (metadata["Name"], metadata["Version"]) == ("anomalib_spd", __version__)
    assert metadata["Author"] == "anomalib_spd developers"
    assert metadata["License-Expression"] == "Apache-2.0"
    urls = dict(each.split(", ") for each in metadata.get_all("Project-URL", []))
    assert {*urls} == {"Homepage", "Documentation", "Issues", "Changelog"}
    assert all(url.startswith("https://github.com/anomalib-spd/anomalib_spd") for url in urls.values())
    # the index has none of the files around the README
    description = metadata.get_payload()
    assert "# anomalib_spd" in description
    assert not re.findall(r"\]\((?!https://|#)[^)]*\)|src=\"(?!https://)", description)


def test_is_pure_python(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_is_the_installed_one_that_runs(run: Run, home: Path) -> None:
    assert str(REPOSITORY) not in run("-c", "import anomalib_spd; print(anomalib_spd.__file__)")


@pytest.mark.parametrize("config", CONFIGS)
def test_stock_train_predict_and_export(run: Run, configs: Path, home: Path, config: str) -> None:
    results = home / "results" / config
    common = ("--config", str(configs / config), *ON_CPU, "--default_root_dir", str(results))
    printed = run(*ANOMALIB, "train", *common, *SAMPLE)
    assert "image_AUROC" in printed
    assert "pixel_AUPR" in printed
    (checkpoint,) = results.rglob("*.ckpt")
    assert len(list(results.rglob("images/bad/*"))) == 15
    assert len(list(results.rglob("images/contact_sheet.png"))) == 1
    assert "Contact sheet of the images:" in printed

    if config != CONFIGS[0]:  # what follows is the same for both
        return
    run(*ANOMALIB, "predict", *common, *SAMPLE, "--ckpt_path", str(checkpoint))
    for export_type, suffix in (("torch", ".pt"), ("onnx", ".onnx")):
        model = ("--ckpt_path", str(checkpoint), "--export_type", export_type, "--input_size", "[256, 256]")
        run(*ANOMALIB, "export", *common, *model)
        assert list(results.rglob(f"*{suffix}")), export_type
    (exported,) = results.rglob("*.pt")
    code = f"""
import sys, torch
sys.modules["anomalib_spd"] = None  # from here on, importing it fails
model = torch.load({str(exported)!r}, weights_only=False)["model"].eval()
print("map", tuple(model(torch.rand(1, 3, 256, 256)).anomaly_map.shape))
"""
    assert "map (1, 1, 256, 256)" in run("-c", code)


def test_a_misspelt_layer_is_an_error(run: Run, configs: Path, home: Path) -> None:
    config = ("--config", str(configs / "patchcore_spd.yaml"), "--model.init_args.layers", '["blocks.2", "block.4"]')
    printed = run(*ANOMALIB, "train", *config, *SAMPLE, *ON_CPU, fails=True)
    assert "has no layer 'block.4'" in " ".join(printed.split())


@reloads_checkpoints
def test_stock_classes_from_python_and_a_reloaded_checkpoint(run: Run) -> None:
    printed = run(
        "-c",
        """
import torch
import anomalib_spd
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib_spd.data import Sample

model = Patchcore(backbone="efficientnet_lite0_spd", layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=0.01)
engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir="python")
engine.fit(model, datamodule=Sample("grass"))
again = Patchcore.load_from_checkpoint(engine.trainer.checkpoint_callback.best_model_path)
image = torch.rand(1, 3, 256, 256)
print("difference", (again.eval()(image).anomaly_map - model.eval()(image).anomaly_map).abs().max().item())
""",
    )
    assert "difference 0.0" in printed


def test_backbones_command(run: Run, home: Path) -> None:
    printed = run(*ANOMALIB_SPD, "backbones", "list")
    assert "efficientnet_lite0_spd" in printed
    run(*ANOMALIB_SPD, "backbones", "export", "efficientnet_lite0_spd", "exported")
    code = """
import os, shutil, sys
# the hub's own cache, as it is after `hf upload USER/exported exported` and a download
os.environ |= {"HF_HUB_CACHE": os.path.abspath("hub"), "HF_HUB_OFFLINE": "1"}
repository = os.path.join("hub", "models--USER--exported")
shutil.copytree("exported", os.path.join(repository, "snapshots", "0" * 40))
os.mkdir(os.path.join(repository, "refs"))
open(os.path.join(repository, "refs", "main"), "w").write("0" * 40)
from anomalib.models.components.feature_extractors import TimmFeatureExtractor
import torch
image = torch.rand(1, 3, 64, 64)
local, hub = (
    TimmFeatureExtractor(source, ["blocks.2"])(image)["blocks.2"] for source in ("local-dir:exported", "hf-hub:USER/exported")
)
assert "anomalib_spd" not in sys.modules
assert torch.equal(local, hub)
print(tuple(local.shape))
"""
    assert "(1, 40, 8, 8)" in run("-c", code)


def test_a_shipped_grid_and_its_report(run: Run, home: Path) -> None:
    # one category and seed of it
    smaller = ("--categories", "{brick: {init_args: {texture: brick}}}", "--seeds", "[0]", "--accelerator", "cpu")
    printed = run(*ANOMALIB_SPD, "benchmark", "--config", "benchmark/quick.yaml", *smaller)
    assert "4 cells measured, 0 recorded before, 0 failed" in printed
    run(*ANOMALIB_SPD, "report", "results/benchmark/quick")
    report = home / "results" / "benchmark" / "quick" / "report"
    assert "4 of 4 cells measured" in (report / "report.md").read_text()
    assert "data:image/jpeg" in (report / "report.html").read_text()


def recipe_commands() -> list[tuple[str, ...]]:
    """Return the command line of every shipped recipe, as its first lines have it, that parses it and does nothing."""
    commands = []
    for path in sorted(SHIPPED.rglob("*.yaml")):
        lines = []
        for line in path.read_text().splitlines():
            lines.append(line.lstrip("# ").removesuffix("\\"))
            if not line.endswith("\\"):
                break
        program, *arguments = shlex.split(" ".join(lines).replace("METHOD", "dense"))
        assert program == "anomalib-spd"
        commands.append((*arguments, "--print_config"))
    return commands


def test_every_recipe_is_parsed_by_its_command_in_an_empty_folder(run: Run, tmp_path: Path) -> None:
    # in one process: each command alone imports for ten seconds
    code = f"""
import os, sys
from anomalib_spd.cli.main import main
os.chdir({str(tmp_path)!r})
for arguments in {recipe_commands()!r}:
    try:
        main(arguments)
    except SystemExit as error:
        assert error.code == 0, (arguments, error.code)
    else:
        raise AssertionError(arguments)
    print("parsed", *arguments)
"""
    printed = run("-c", code)
    assert printed.count("\nparsed ") == len(list(SHIPPED.rglob("*.yaml")))
    assert not list(tmp_path.iterdir())


def test_every_grid_says_what_it_needs_in_an_empty_folder(run: Run, tmp_path: Path) -> None:
    names = [f"benchmark/{path.stem}" for path in sorted((SHIPPED / "benchmark").glob("*.yaml"))]
    code = f"""
import os, sys
from anomalib_spd.cli.main import main
os.chdir({str(tmp_path)!r})
print("\\nstatuses", *(main(["benchmark", "--config", name, "--dry-run"]) for name in {names!r}))
"""
    printed = run("-c", code)
    # the sample's is there, those of the data sets are not
    expected = " ".join(str(int(name != "benchmark/quick")) for name in names)
    assert f"\nstatuses {expected}\n" in printed
    assert printed.count("Give another with --data.root") == len(names) - 1
    assert not list(tmp_path.iterdir())
