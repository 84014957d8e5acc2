"""``docs/upstream.md``: faults of anomalib that are worked around. One that fails here is mended: delete its workaround."""

import re
from typing import Any

import pytest
import timm

from tests.conftest import REPOSITORY

FAULTS = {
    title: re.findall(r"```(python|diff)\n(.*?)```", text, re.DOTALL)
    for title, _, text in (
        part.partition("\n") for part in (REPOSITORY / "docs" / "upstream.md").read_text().split("\n## ")[1:]
    )
}


@pytest.mark.parametrize("title", FAULTS)
def test_the_fault_is_still_there(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [text for language, text in FAULTS[title] if language == "python"]
    vision_transformer: Any = timm.models.vision_transformer
    monkeypatch.setattr(vision_transformer, "resample_abs_pos_embed", vision_transformer.resample_abs_pos_embed)
    exec(compile(program, title, "exec"), {})
