"""``scripts/bound_2cls.py``: what an encoder that has learnt the very images is measured to give."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from anomalib_spd.benchmark.grid import Grid
from anomalib_spd.benchmark.results import Cell
from tests.benchmark.grids import draw_images, tiny_shelf
from tests.conftest import REPOSITORY

pytest.importorskip("segmentation_models_pytorch", reason="needs the extra [twoclass]")


@pytest.fixture(scope="module")
def bound() -> Any:
    spec = importlib.util.spec_from_file_location("bound_2cls", REPOSITORY / "scripts" / "bound_2cls.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def content(tmp_path: Path) -> Any:
    """A grid of one category of a few drawn images of 64 px."""
    draw_images(tmp_path, "one")
    size = {
        "class_path": "anomalib_spd.detectors.pre_processing.BackbonePreProcessor",
        "init_args": {"image_size": [64, 64]},
    }
    wrapped = {"class_path": "anomalib.data.Visa", "init_args": {"root": str(tmp_path), "category": "one"}}
    with tiny_shelf(tmp_path):
        yield {
            "backbones": {"base": "tiny_a", "other": "tiny_b"},
            "detectors": {
                "U-Net": {
                    "class_path": "anomalib_spd.twoclass.Segmenter",
                    "init_args": {
                        "architecture_args": {"decoder_channels": [16, 16, 8, 8, 8]},
                        "learning_rate": 1e-9,
                        "pre_processor": size,
                    },
                }
            },
            "categories": {
                "one": {
                    "class_path": "anomalib_spd.twoclass.TwoClass",
                    "init_args": {"datamodule": wrapped, "train_batch_size": 4, "num_workers": 0},
                }
            },
            "seeds": [0, 1],
        }


def test_the_encoder_is_the_one_that_is_given(bound: Any, content: Any) -> None:
    grid = Grid(**content)
    cell = Cell("base", "U-Net", "one", 0)
    figure, encoder = bound.measure(grid, cell, 1, 0)
    assert 0 <= figure <= 1
    given = {
        name: tensor + 1 if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for name, tensor in encoder.items()
    }
    # next to nothing is learnt at this rate, so what comes back is what was given, not the backbone's
    _, back = bound.measure(grid, cell, 1, 0, given)
    for name, tensor in given.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            torch.testing.assert_close(back[name], tensor, rtol=0, atol=1e-6)


def test_what_is_on_record_is_not_measured_again(
    bound: Any, content: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(content))
    call = [str(file), "--steps", "1", "2", "--results", str(tmp_path / "record")]
    bound.main(call)
    figures = json.loads((tmp_path / "record" / "small.json").read_text())
    assert set(figures) == {
        f"{arm} one {steps} {seed}" for arm in ("backbone", "bound") for steps in (1, 2) for seed in (0, 1)
    }
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("one, ")]
    assert [line.partition(":")[0] for line in lines] == ["one, 1 steps", "one, 2 steps"]
    mean = sum(figures[f"bound one 2 {seed}"] for seed in (0, 1)) / 2
    assert f"bound {mean:.3f} ±" in lines[1]

    monkeypatch.setattr(bound, "measure", None)
    bound.main(call)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("one, ")] == lines
