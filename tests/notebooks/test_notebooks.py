"""Notebooks run from a clean kernel, and are stored with light outputs that hold nothing of a machine."""

import base64
import functools
import io
import json
import os
import re
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
FOLDER = "ANOMALIB_SPD_NOTEBOOK_FOLDER"
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|Users|root|tmp|work|mnt|media|var|opt)/|\b[A-Z]:\\")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _execute(path: Path, folder: Path | None = None) -> NotebookNode:
    """Run all cells in an empty folder, with short trainings; an error in one is raised."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"STEPS = \d+", "STEPS = 2", cell.source)
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as profile:
        environment = os.environ | {"IPYTHONDIR": profile, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        environment |= {"HF_HUB_OFFLINE": "1"}
        environment.pop(FOLDER, None)
        if folder is not None:
            environment[FOLDER] = str(folder)
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": work}})
        client.execute(env=environment)
        assert not list(Path(work).iterdir())
    return notebook


# what it shows without a folder is compared with what it shows with one
_execute_once = functools.cache(_execute)


def _pictures(notebook: NotebookNode) -> list[list[str]]:
    """Return the pictures of each cell."""
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    return [[output.data["image/png"] for output in one if "image/png" in output.get("data", {})] for one in outputs]


def _text(notebook: NotebookNode) -> str:
    """Return all that was printed."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.slow
@every_notebook
def test_runs_from_a_clean_kernel(path: Path) -> None:
    assert any(_pictures(_execute_once(path)))


@pytest.mark.slow
@every_notebook
def test_shows_a_folder_of_ones_own(path: Path, tmp_path: Path) -> None:
    if FOLDER not in path.read_text(encoding="utf-8"):
        pytest.skip(f"{path.name} has no folder to set")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)).save(tmp_path / "wide.png")
    Image.fromarray(rng.integers(0, 256, (301, 120), dtype=np.uint8)).save(tmp_path / "tall_and_grey.png")

    shown = _execute(path, tmp_path)

    assert {"wide.png", "tall_and_grey.png"} <= set(re.findall(r"[\w.]+", _text(shown)))
    reads_folder = [FOLDER in cell.source and cell.cell_type == "code" for cell in shown.cells].index(True)
    before, after = slice(reads_folder), slice(reads_folder, None)
    assert any(_pictures(shown)[after])
    # and the pictures of the sample are the same in every run
    assert _pictures(shown)[before] == _pictures(_execute_once(path))[before]


@every_notebook
def test_is_stored_with_light_outputs_of_one_run(path: Path) -> None:
    assert path.stat().st_size < 400_000, "make notebooks stores light pictures"
    stored = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert not MACHINE_PATH.search(json.dumps([output.get("text", output.get("data")) for output in outputs]))
    pictures = [output["data"]["image/jpeg"] for output in outputs if "image/jpeg" in output.get("data", {})]
    assert len(pictures) >= 3
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as file:
            assert file.width <= 700


@every_notebook
def test_is_valid_and_knows_no_machine(path: Path) -> None:
    stored = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(stored)
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert all(cell["id"] for cell in stored["cells"])
    assert stored["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in stored["cells"]:
        assert not cell["metadata"]
        assert not MACHINE_PATH.search("".join(cell["source"]))
