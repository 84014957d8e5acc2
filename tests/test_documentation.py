"""README and guides: what they link to, import and configure exists; their commands are known."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from anomalib_spd.cli.main import main
from anomalib_spd.config_files import find_config
from tests.conftest import REPOSITORY, reloads_checkpoints

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
GUIDES = [page for page in PAGES if page.name != "experiments.md" and page.parent.name != "results"]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    # what a build of the site draws is there after it, and Sphinx holds those links
    files = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("_generated/")]
    assert not [file for file in files if file and not (page.parent / file).exists()]


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_python_imports_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), node.module


#: what a block needs that is not here, or that takes minutes, and what stands in for it
STAND_INS = {
    "from anomalib.data import MVTecAD": "from anomalib_spd.data import Sample",
    'MVTecAD(category="bottle")': 'Sample(folder="sample")',
    "max_steps=100": "max_steps=1",
}


#: are run as a reader does, commands and programs in their order
WALKED = [REPOSITORY / "docs/start.md", REPOSITORY / "docs/howto/deploy.md"]


@pytest.mark.slow
@reloads_checkpoints
def test_get_started_is_walked_from_top_to_bottom(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder is made, trained on, tested, predicted and exported; then the exported file is used."""
    monkeypatch.chdir(tmp_path)
    start, deploy = (page.read_text() for page in WALKED)
    for language, block in re.findall(r"```(python|console)\n(.*?)```", start, re.DOTALL):
        if language == "python":
            exec(compile(block, "start.md", "exec"), {"__name__": "__main__"})
        for words in lines_of(block) if language == "console" else ():
            if words[0] == "anomalib-spd":
                assert main(words[1:]) == 0, words
    assert (tmp_path / "results/Patchcore/parts/latest/images/contact_sheet.png").is_file()
    assert len([*(tmp_path / "results/Patchcore/latest/images/new").iterdir()]) == 10
    # the one without torch is run in an environment of its own: tests/deploy/test_edge.py
    _, program = re.findall(r"```python\n(.*?)```", deploy, re.DOTALL)
    capsys.readouterr()
    exec(compile(program, "deploy.md", "exec"), {"__name__": "__main__"})
    assert re.fullmatch(r"score 0\.\d\d, defective: False\n", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in GUIDES if page not in WALKED and "```python" in page.read_text()], ids=name_of
)
def test_python_runs(page: Path, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "python"):
        code = block
        for given, stand_in in STAND_INS.items():
            code = code.replace(given, stand_in)
        exec(compile(code, name_of(page), "exec"), {"__name__": "__main__"})


@pytest.mark.slow
def test_the_yaml_of_the_readme_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(REPOSITORY / "README.md", "yaml")
    (tmp_path / "mine.yaml").write_text(block)
    main(["train", "--config", "mine.yaml", "--data", "anomalib_spd.data.Sample"])
    assert list(tmp_path.rglob("contact_sheet.png"))


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_yaml_names_classes_that_exist(page: Path) -> None:
    for block in blocks(page, "yaml"):
        yaml.safe_load(block)
        for path in re.findall(r"class_path: ([\w.]+)", block):
            module, _, name = path.rpartition(".")
            assert hasattr(importlib.import_module(module), name), path


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_commands_name_configurations_that_ship(page: Path) -> None:
    for block in blocks(page, "console"):
        for name in re.findall(r"--config ([\w./]+)", block):
            assert find_config(name).is_file()


def lines_of(block: str) -> Iterator[list[str]]:
    """Yield the words of each command of a block."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of this package or of stock anomalib that reads a configuration."""
    for block in blocks(page, "console"):
        for program, *words in lines_of(block):
            if program in ("anomalib", "anomalib-spd") and words and words[0] in READ_CONFIGURATIONS:
                yield [word for word in words if word != "..."]


READ_CONFIGURATIONS = ("train", "test", "predict", "export", "pretrain", "finetune", "twoclass", "benchmark", "deploy")


@pytest.mark.parametrize(
    "words", [pytest.param(words, id=f"{page.stem}: {' '.join(words)}") for page in GUIDES for words in commands(page)]
)
def test_commands_are_understood(
    words: list[str],
    registry: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every option is known and takes its value; whether the images are there is another matter."""
    for name in ("anomalib_spd", "configs"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([*words, "--print_config"])
    assert caught.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_no_page_names_folders_that_users_lack(page: Path) -> None:
    assert "../shared" not in page.read_text()


def test_every_room_of_the_package_is_on_a_page_of_the_api() -> None:
    pages = "".join(page.read_text() for page in (REPOSITORY / "docs/api").glob("*.md"))
    modules = re.findall(r"automodule:: ([\w.]+)", pages)
    assert all(importlib.import_module(module).__doc__ for module in modules)
    rooms = {path.parent.name for path in (REPOSITORY / "anomalib_spd").glob("*/__init__.py")} - {"cli"}
    assert rooms <= {module.split(".")[1] for module in modules if "." in module}


def test_readme_is_one_page() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150
