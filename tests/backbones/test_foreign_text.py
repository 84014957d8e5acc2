"""Text of a foreign folder is one plain line, and a machine's folders are in no exported record."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from anomalib_spd.backbones import add, export, find, register
from anomalib_spd.backbones.record import without_folders
from anomalib_spd.cli.main import main

EVIL = "a\x1b[2J\x9b31m\u202eb\r\nc | <script>alert(1)</script> [x](javascript:y) ![z](http://w) `code` *d*"


@pytest.fixture
def foreign(save: Any, tmp_path: Path) -> Path:
    """An exported folder whose texts are hostile."""
    add("theirs_spd", save(), "test_efficientnet", data="x", recipe="x", license_id="x", origin_url="x", command="x")
    folder = export("theirs_spd", tmp_path / "parcel")
    config = json.loads((folder / "config.json").read_text())
    provenance = config["anomalib_spd"]["provenance"]
    provenance |= dict.fromkeys(("data", "recipe", "command", "checkpoint", "method"), EVIL)
    provenance["settings"] = {EVIL: EVIL}
    config["pretrained_cfg"] |= {"license": f"mit\ntags: [evil]\n{EVIL}", "origin_url": EVIL}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _is_plain(text: str) -> bool:
    return not any(each in text for each in ("\x1b", "\x9b", "\u202e", "\r"))


def test_text_of_a_foreign_folder(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "add", "mine_spd", str(foreign)]) == 0
    assert main(["backbones", "list"]) == 0
    assert main(["backbones", "show", "mine_spd"]) == 0
    out, err = capsys.readouterr()
    assert _is_plain(out + err)
    assert sum(line.startswith("  data ") for line in out.splitlines()) == 1
    card = (find("mine_spd").folder / "README.md").read_text()
    assert _is_plain(card)
    _, front, body = card.split("---\n", 2)
    record = yaml.safe_load(front)
    assert record["license"] == "other"
    assert record["license_name"].startswith("mit-tags-evil-a")
    assert "evil" not in record["tags"]
    table = body[body.index("| |") : body.index("```python")]
    assert "| Licence | mit tags: \\[evil\\] a" in table
    assert r"\<script\>alert(1)\</script\> \[x\](javascript:y) !\[z\](http://w) \`code\`" in table
    assert len(table.strip().splitlines()) == 13
    assert all(line.startswith("|") and line.endswith("|") for line in table.strip().splitlines())


def test_text_of_a_folder_that_was_copied_into_the_registry(
    foreign: Path, registry: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign.rename(registry / "copied_spd")
    register()
    assert main(["backbones", "list"]) == main(["backbones", "show", "copied_spd"]) == 0
    out, err = capsys.readouterr()
    assert _is_plain(out + err)


def test_a_machines_folders_are_in_no_exported_record(save: Any, tmp_path: Path) -> None:
    path = save()
    command = f"anomalib-spd backbones add mine_spd {path} --architecture test_efficientnet --data=~/own"
    settings = {
        "root": str(tmp_path),
        "deep": {"list": [f"local-dir:{tmp_path}/x"]},
        "url": "https://a.b/c/d",
        "eta": 0.1,
    }
    added = add(
        "mine_spd", path, "test_efficientnet", command=command, data=f"images of {tmp_path}/own", settings=settings
    )
    # here, the command can be given again
    assert added.provenance.command == command
    folder = export("mine_spd", tmp_path / "parcel")
    for file in ("config.json", "README.md"):
        assert str(tmp_path) not in (folder / file).read_text()
    provenance = add("copy_spd", folder).provenance
    assert provenance.command == command.replace(f"{path.parent}/", "").replace("~/", "")
    assert provenance.settings["url"] == "https://a.b/c/d"
    assert provenance.settings["deep"] == {"list": ["local-dir:x"]}
    for each in (added.provenance, provenance):
        assert each.has_settings(settings)
        assert not each.has_settings(settings | {"eta": 0.2})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a /home/me/x.pth --b=/c/d.yaml,/e/f", "a x.pth --b=d.yaml,f"),
        ("'/home/me/x y.pth' ~/z ~me/z", "'x y.pth' z z"),
        (r"C:\Users\me\x.pth \\server\share\x", "x.pth x"),
        ("file:///home/me/x", "x"),
        ("a/b 1/2 and / or https://a.b/c s3://d/e //f", "a/b 1/2 and / or https://a.b/c s3://d/e //f"),
    ],
)
def test_paths_without_their_folders(text: str, expected: str) -> None:
    assert without_folders(text) == expected
