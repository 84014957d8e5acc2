"""Configuration files of a command are found by name, merged, and filled from environment variables."""

import json
from pathlib import Path

import pytest

from anomalib_spd.config_files import SHIPPED, find_config, merge_config_files, read_yaml


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_later_files_win_and_mappings_are_merged(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "title: base\nmodel: {layers: [a, b], rate: 1e-3}\nempty:\n")
    small = write(tmp_path / "small.yaml", "model: {layers: [c]}\nempty: {x: 1}\n")
    config, *others = merge_config_files(["--config", base, "--workers", "2", f"--config={small}", "--model.rate=5"])
    assert json.loads(config.removeprefix("--config=")) == {
        "title": "base",
        "model": {"layers": ["c"], "rate": 1e-3},
        "empty": {"x": 1},
    }
    assert others == ["--workers", "2", "--model.rate=5"]


def test_environment_variables_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.yaml", "root: ${oc.env:ANOMALIB_SPD_DATA}/visa\nname: b_{category}_{seed}\n")
    monkeypatch.setenv("ANOMALIB_SPD_DATA", "/data")
    (config,) = merge_config_files(["--config", file])
    assert json.loads(config.removeprefix("--config=")) == {"root": "/data/visa", "name": "b_{category}_{seed}"}
    monkeypatch.delenv("ANOMALIB_SPD_DATA")
    with pytest.raises(SystemExit, match=r"^error: .*a\.yaml: .*'ANOMALIB_SPD_DATA' not found.*set it.*$"):
        merge_config_files(["--config", file])


def test_files_that_ship_have_names() -> None:
    assert find_config("patchcore_spd.yaml") == SHIPPED / "patchcore_spd.yaml"


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ("a: [1", r"line 1|expected")])
def test_what_cannot_be_read_is_an_error_of_one_line(tmp_path: Path, content: str | None, message: str) -> None:
    if content:
        (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(SystemExit, match=message) as error:
        merge_config_files(["--config", str(tmp_path / "a.yaml")])
    assert "\n" not in str(error.value)


def test_a_command_line_without_files_stays_as_it_is() -> None:
    assert merge_config_files(["--help", "--workers=2"]) == ["--help", "--workers=2"]


BOMBS = {
    "many": "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(30)),
    "keys": "a0: &a0 {x: y}\n" + "".join(f"a{n + 1}: &a{n + 1} {{b: *a{n}, c: *a{n}}}\n" for n in range(40)),
    "itself": "a: &a [*a]\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_aliases_of_aliases_are_bounded(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "bomb.yaml", BOMBS[name])
    with pytest.raises(SystemExit, match=r"^error: .*bomb\.yaml: its aliases repeat more than \d+ values"):
        merge_config_files(["--config", file])
    with pytest.raises(ValueError, match=r"^.*bomb\.yaml: its aliases repeat more than \d+ values"):
        read_yaml(Path(file))


def test_a_few_aliases_are_fine(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "shared: &shared {layers: [a, b]}\none: *shared\ntwo: {<<: *shared, x: 1}\n")
    (config,) = merge_config_files(["--config", file])
    assert json.loads(config.removeprefix("--config="))["two"] == {"layers": ["a", "b"], "x": 1}


def test_endless_nesting_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path / "deep.yaml", "a: " + "[" * 20_000)
    with pytest.raises(SystemExit, match=r"^error: .*deep\.yaml: "):
        merge_config_files(["--config", file])


def test_a_file_may_change_others_that_it_names(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "a: 1\nb: {x: 1, y: 1}\n")
    second = write(tmp_path / "second.yaml", f"config: {first}\nb: {{y: 2}}\nname: ${{b.y}}_{{seed}}\n")
    third = write(tmp_path / "third.yaml", f"config: [{second}, benchmark/parts/mvtec]\nb: {{y: 3}}\n")
    (config,) = merge_config_files(["--config", third])
    merged = json.loads(config.removeprefix("--config="))
    assert merged["data"]["published"] == "mvtec"
    assert (merged["a"], merged["b"], merged["name"]) == (1, {"x": 1, "y": 3}, "3_{seed}")
    assert "config" not in merged
    for path, named in ((first, second), (second, "nowhere")):  # in a circle, then to no file
        write(Path(path), f"config: {named}\n")
        with pytest.raises(SystemExit, match=r"^error: [^\n]*$"):
            merge_config_files(["--config", path])
