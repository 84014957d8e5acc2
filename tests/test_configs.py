"""Configuration files: those that ship name no folder that users lack, and all name weights by their full tag."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import yaml

from anomalib_spd.config_files import SHIPPED
from tests.conftest import REPOSITORY

FILES = sorted([*SHIPPED.rglob("*.yaml"), *(REPOSITORY / "configs").rglob("*.yaml")])


def networks(node: Any) -> Iterator[str]:
    """Yield the names of pretrained networks."""
    if isinstance(node, dict):
        named = [node.get("backbone"), node.get("classifier")] if node.get("pretrained", True) else []
        named += node["backbones"].values() if isinstance(node.get("backbones"), dict) else []
        yield from (name for name in named if isinstance(name, str))
    if isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from networks(each)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_weights_have_their_full_tag(path: Path) -> None:
    for name in networks(yaml.safe_load(path.read_text())):
        # a name that a registry of another test held stays with timm
        timms_own = timm.is_model(name) and timm.model_entrypoint(name).__module__.startswith("timm.")
        assert "." in name or not timms_own, f"{name} leaves the weights to timm's version"


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.yaml")), ids=lambda path: str(path.relative_to(SHIPPED)))
def test_shipped_files_name_no_folder_of_ours(path: Path) -> None:
    text = path.read_text()
    assert "../" not in text
    assert "ANOMALIB_SPD_DATA" not in text
    roots = [
        line.split(":", 1)[1].split("#")[0].strip() for line in text.splitlines() if line.strip().startswith("root:")
    ]
    assert all(root.startswith("./datasets/") for root in roots)
