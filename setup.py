"""The long description, for setuptools; everything else is in setup.cfg.

The package index shows the README without the files around it, so its links and pictures lead to the repository there.
"""

import re
from pathlib import Path

from setuptools import setup

REPOSITORY = "https://github.com/anomalib-spd/anomalib_spd"

readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
readme = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{REPOSITORY}/raw/main/", readme)
readme = re.sub(r"(src=\")(?!https?:)", rf"\1{REPOSITORY}/raw/main/", readme)
readme = re.sub(r"(\]\()(?!https?:|#)", rf"\1{REPOSITORY}/blob/main/", readme)

setup(long_description=readme, long_description_content_type="text/markdown")
