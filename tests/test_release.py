"""What a release states beside its metadata; those of the built files are in ``test_wheel.py``."""

import re
from typing import Any

import torch
import yaml
from kornia.augmentation import AugmentationSequential

from anomalib_spd.version import __version__
from tests.conftest import REPOSITORY


def test_the_citation_is_of_this_version_and_has_what_the_format_requires() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    # required by the schema of 1.2.0
    assert all(citation[key] for key in ("message", "title", "authors"))
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"
    for each in citation["references"]:
        assert all(each[key] for key in ("type", "title", "authors"))


def test_workflows_do_what_make_does_with_pinned_actions() -> None:
    targets = {*re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)}
    made = set()
    for path in (REPOSITORY / ".github" / "workflows").iterdir():
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])
                made |= {*re.findall(r"^make ([a-z-]+)", step.get("run", ""), re.MULTILINE)}
    assert made == {"lint", "test", "test-slow", "test-min", "docs"}
    assert made <= targets


def test_hooks_are_the_checks_of_make_lint() -> None:
    (local,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    entries = {hook["entry"] for hook in local["hooks"]}
    assert entries == {".venv/bin/ruff check", ".venv/bin/ruff format", ".venv/bin/mypy"}
    assert all(hook["language"] == "system" for hook in local["hooks"])


def test_the_lowest_versions_are_tested_in_an_environment_that_git_ignores() -> None:
    assert ".venv-min/" in (REPOSITORY / ".gitignore").read_text().splitlines()
    assert "--resolution lowest-direct" in (REPOSITORY / "Makefile").read_text()


def test_the_method_and_the_transform_of_the_guide_work() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.DOTALL):
        exec(block, names)
    images = torch.rand(2, 3, 32, 32)
    method = names["MyMethodSPD"](image_size=32, backbone="test_efficientnet", pretrained=False)
    views = method.method_views(images)
    loss = method.method_loss([method.encoder(view) for view in views], images, torch.zeros(2))
    assert loss.isfinite()
    loss.backward()

    augment = AugmentationSequential(names["RandomDarkColumn"](), data_keys=["input", "mask"])
    out, mask = augment(images, torch.zeros(2, 1, 32, 32))
    assert torch.equal((out != images).any(1, keepdim=True), mask > 0)
    assert torch.equal(mask.sum((1, 2, 3)), torch.full((2,), 32.0))
