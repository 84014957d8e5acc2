"""The site's settings: ``make docs`` builds it, with warnings as errors and without a network."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

from matplotlib.sphinxext.mathmpl import math_role

from anomalib_spd.version import __version__

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
from gallery import draw_gallery  # noqa: E402

#: what a build makes and git ignores
GENERATED = DOCS / "_generated"
GALLERY = GENERATED / "gallery"

project = "anomalib_spd"
author = "anomalib_spd developers"
project_copyright = author
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "matplotlib.sphinxext.mathmpl",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"anomalib_spd {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
# a report is a page by itself
html_extra_path = [str(GALLERY / "report")]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True

# formulas are pictures: MathJax would be read from a server by everybody who opens a page
mathmpl_fontsize = 11.0
mathmpl_srcset = ["2x"]

# single backticks in docstrings are code, with a link where there is something to link to
default_role = "py:obj"
# what Kornia and Lightning say of their own methods is on their sites
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 88
napoleon_custom_sections = ["Batch", "Checkpoint", "Shape"]
napoleon_use_ivar = True
# the signature has them; as text, a name such as numpy.str_ would be a link
napoleon_attr_annotations = False
add_module_names = False


def _link_notebooks(_app: Any, _page: str, source: list[str]) -> None:
    """Lead links to the notebooks to their copies."""
    source[0] = re.sub(r"\]\(((?:\.\./)*)\.\./notebooks/", r"](\1_generated/notebooks/", source[0])


def _generate(_app: Any, _config: Any) -> None:
    """Copy the notebooks, as Sphinx reads nothing outside its folder, and draw the gallery where it is not there."""
    shutil.rmtree(GENERATED / "notebooks", ignore_errors=True)
    shutil.copytree(DOCS.parent / "notebooks", GENERATED / "notebooks")
    if not GALLERY.is_dir():
        draw_gallery(GALLERY)


def _readable(_app: Any, _what: str, _name: str, _object: Any, _options: Any, signature: str, returns: str) -> Any:
    """Replace what Sphinx does not take for a default, and then for a signature."""
    return signature and signature.replace("<factory>", "..."), returns


def setup(app: Any) -> None:
    """Connect what a build does beside Sphinx."""
    app.connect("config-inited", _generate)
    app.connect("source-read", _link_notebooks)
    app.connect("autodoc-process-signature", _readable)
    app.add_role("math", math_role, override=True)
