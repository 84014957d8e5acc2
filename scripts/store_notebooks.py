"""Executes the notebooks and stores them with light outputs, so that a reader on the web sees pictures: ``make notebooks``.

Pictures become small JPEGs. A notebook takes its name when all of its cells have run without an error.
"""

import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
#: width of a stored picture, pixels, and its quality as JPEG
WIDTH, QUALITY = 600, 40
#: seconds for a cell
TIMEOUT = 1800


def store(path: Path) -> None:
    """Execute a notebook in an empty folder, and store it with its outputs.

    Args:
        path: of the notebook.
    """
    notebook: Any = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as profile:
        environment = os.environ | {"IPYTHONDIR": profile, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        # whoever looks at the stored notebook has no folder
        environment.pop("ANOMALIB_SPD_NOTEBOOK_FOLDER", None)
        client = NotebookClient(notebook, timeout=TIMEOUT, record_timing=False, resources={"metadata": {"path": work}})
        client.execute(env=environment)
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type == "code":
            # warnings of libraries, and paths of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/jpeg"] = _light(output.data.pop("image/png"))
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def _light(png: str) -> str:
    """Return a picture as a small JPEG, both in base 64."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as file:
        # the ground of a picture is transparent
        picture = Image.alpha_composite(Image.new("RGBA", file.size, "white"), file.convert("RGBA")).convert("RGB")
    picture.thumbnail((WIDTH, picture.height))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=QUALITY)
    return base64.b64encode(jpeg.getvalue()).decode()


if __name__ == "__main__":
    for each in sorted(NOTEBOOKS.glob("*.ipynb")):
        store(each)
