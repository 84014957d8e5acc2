"""What the package imports is declared in setup.cfg, and importing the package itself stays light."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def options() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser


def requirements(text: str) -> dict[str, Requirement]:
    lines = [line.strip() for line in text.splitlines()]
    each = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in each}


def imported() -> Iterator[str]:
    for path in (REPOSITORY / "anomalib_spd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


def distributions() -> set[str]:
    of_module = packages_distributions()
    names = {*imported()} - {*sys.stdlib_module_names, "anomalib_spd"}
    return {canonicalize_name(of_module.get(name, [name])[0]) for name in names}


def test_imports_are_declared(options: configparser.ConfigParser) -> None:
    declared = set(requirements(options["options"]["install_requires"]))
    optional = set().union(
        *(requirements(options["options.extras_require"][e]) for e in ("ray", "webdataset", "twoclass", "deploy"))
    )
    assert distributions() - optional == declared


def test_lower_bounds_are_no_lower_than_anomalibs(options: configparser.ConfigParser) -> None:
    theirs = [Requirement(line) for line in requires("anomalib") or []]
    ours = requirements(options["options"]["install_requires"])
    compared = 0
    for each in theirs:
        name = canonicalize_name(each.name)
        if name in ours and (each.marker is None or each.marker.evaluate({"extra": "cpu"})):
            (lowest,) = [spec.version for spec in ours[name].specifier if spec.operator == ">="]
            # an upper bound of theirs is no concern of ours
            bounds = [spec for spec in each.specifier if spec.operator == ">="]
            assert all(bound.contains(lowest) for bound in bounds), name
            compared += 1
    assert compared > 8


def modules_after(code: str) -> set[str]:
    """Return the top-level modules that a new process has loaded after some code."""
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in run.stderr.split()}


def test_importing_the_package_is_light_and_names_work() -> None:
    code = """
import anomalib_spd, timm
assert timm.create_model("efficientnet_lite0_spd", features_only=True)
assert anomalib_spd.backbones.available()
"""
    heavy = {"anomalib", "kornia", "lightning", "matplotlib", "skimage", "sklearn", "pandas", "scipy", "jsonargparse"}
    assert not modules_after(code) & heavy


def test_importing_the_package_writes_no_card() -> None:
    # timm imports huggingface_hub itself; its cards bring YAML and more
    code = "import anomalib_spd\nassert 'huggingface_hub.repocard' not in sys.modules"
    assert "timm" in modules_after(code)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_console_script_answers_without_torch(option: str) -> None:
    # as the installed script does it
    code = f"""
sys.argv = ["bin/anomalib-spd", {option!r}]
from anomalib_spd.cli.main import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
"""
    assert not modules_after(code) & {"torch", "timm", "numpy", "anomalib", "lightning"}


def test_the_console_script_registers_the_names() -> None:
    code = """
sys.argv = ["bin/anomalib-spd", "backbones", "list"]
from anomalib_spd.cli.main import main
assert main() == 0
import timm
assert timm.is_model("efficientnet_lite0_spd")
"""
    assert "torch" in modules_after(code)
