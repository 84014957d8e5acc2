"""The mean of several backbones' weights."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomalib_spd.backbones import add, average, export, find
from anomalib_spd.cli.backbones import run
from tests.backbones.conftest import content


@pytest.fixture
def parts(save: Any) -> dict[str, Any]:
    """Three networks that differ, on the shelf: the first two have a classifier, of different numbers of classes."""
    for seed, (name, classes) in enumerate({"a_spd": 10, "b_spd": 7, "c_spd": 0}.items()):
        add(
            name,
            save(seed=seed, num_classes=classes),
            "test_efficientnet",
            data=f"data {seed % 2}",
            license_id="mit",
        )
    return {name: tensors(name) for name in ("a_spd", "b_spd", "c_spd")}


def tensors(name: str) -> dict[str, torch.Tensor]:
    return timm.create_model(name, pretrained=True, num_classes=0).state_dict()


def assert_mean(name: str, parts: dict[str, Any], shares: dict[str, float]) -> None:
    found = tensors(name)
    for key, tensor in found.items():
        if tensor.is_floating_point():
            expected = torch.stack([parts[part][key].double() * share for part, share in shares.items()]).sum(0)
            torch.testing.assert_close(tensor.double(), expected / sum(shares.values()), rtol=1e-6, atol=1e-7)
    assert found.keys() == next(iter(parts.values())).keys()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=3))
def test_it_is_the_mean(parts: dict[str, Any], given_shares: list[float]) -> None:
    shares = dict(zip(parts, given_shares, strict=False))
    name = f"mean_{abs(hash(tuple(given_shares)))}_spd"
    average(name, shares)
    assert_mean(name, parts, shares)


def test_a_backbone_and_its_copy_are_that_backbone(parts: dict[str, Any], images: torch.Tensor, tmp_path: Path) -> None:
    add("copy_spd", export("a_spd", tmp_path / "copy"))
    average("mean_spd", {"a_spd": 1, "copy_spd": 2})
    with torch.no_grad():
        one, mean = (timm.create_model(name, pretrained=True, num_classes=0).eval() for name in ("a_spd", "mean_spd"))
        torch.testing.assert_close(mean(images), one(images))


def test_what_it_is_made_of_is_on_record(parts: dict[str, Any]) -> None:
    backbone = average("mean_spd", {"a_spd": 3, "b_spd": 1}, command="the command", description="What it is for.")
    assert backbone == find("mean_spd")
    assert backbone.provenance.recipe == "mean of weights: 0.75 a_spd + 0.25 b_spd"
    assert backbone.provenance.data == "data 0; data 1"
    assert backbone.provenance.command == "the command"
    for part in ("a_spd", "b_spd"):
        assert f"{part}, sha256 {find(part).provenance.sha256}" in backbone.provenance.checkpoint
    assert backbone.pretrained_cfg["license"] == "mit"
    assert "What it is for." in (backbone.folder / "README.md").read_text(encoding="utf-8")


def test_licences_that_differ_are_none_that_all_have(parts: dict[str, Any], save: Any) -> None:
    add("d_spd", save(seed=4), "test_efficientnet", license_id="apache-2.0")
    assert average("mean_spd", {"a_spd": 1, "d_spd": 1}).pretrained_cfg["license"] == "other"


REFUSED: dict[str, tuple[str, dict[str, float], str]] = {
    "one": ("mean_spd", {"a_spd": 1}, "two or more backbones, with positive shares. Got a_spd=1"),
    "none": ("mean_spd", {}, "Got none"),
    "share of 0": ("mean_spd", {"a_spd": 1, "b_spd": 0}, "Got a_spd=1, b_spd=0"),
    "infinite share": ("mean_spd", {"a_spd": 1, "b_spd": float("inf")}, "b_spd=inf"),
    "unknown": ("mean_spd", {"a_spd": 1, "x_spd": 1}, "no backbone 'x_spd' on the shelf"),
    "taken": ("b_spd", {"a_spd": 1, "c_spd": 1}, "'b_spd' is taken on your shelf"),
    "other network": (
        "mean_spd",
        {"a_spd": 1, "efficientnet_lite0_in1k": 1},
        r"'efficientnet_lite0_in1k' \(tf_efficientnet_lite0\) is not the same network as 'a_spd' \(test_efficientnet\)",
    ),
    "vit": ("gravity_spd", {"a_spd": 1, "b_spd": 1}, "contains 'vit'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, parts: dict[str, Any], shelf: Path) -> None:
    before = content(shelf)
    name, shares, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        average(name, shares)
    assert content(shelf) == before


def test_the_command(parts: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["average", "mean_spd", "a_spd=0.7", "c_spd=0.3"]) == 0
    out, err = capsys.readouterr()
    assert "mean of weights: 0.7 a_spd + 0.3 c_spd\n" in out
    assert err == ""
    assert_mean("mean_spd", parts, {"a_spd": 0.7, "c_spd": 0.3})
    assert find("mean_spd").provenance.command == "anomalib-spd backbones average mean_spd a_spd=0.7 c_spd=0.3"

    assert run(["average", "all_spd", "a_spd", "b_spd", "c_spd"]) == 0
    assert_mean("all_spd", parts, {"a_spd": 1, "b_spd": 1, "c_spd": 1})

    assert run(["average", "twice_spd", "a_spd", "a_spd"]) == 1
    assert "a_spd: given twice" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(["average", "mean2_spd", "a_spd=much", "b_spd"])
    assert "'much' is no share of 'a_spd': expected a number, such as a_spd=0.7" in capsys.readouterr().err
