"""The files of grids: their content, and what is refused."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule

from anomalib_spd.benchmark.build import build
from anomalib_spd.benchmark.grid import Grid, pairs
from anomalib_spd.benchmark.results import Cell
from anomalib_spd.benchmark.trainings import full_recipe
from anomalib_spd.cli.benchmark import grid_of, parse
from anomalib_spd.config_files import SHIPPED
from tests.benchmark.grids import small_grid
from tests.conftest import REPOSITORY

FILES = sorted([*(REPOSITORY / "configs" / "benchmark").glob("*.yaml"), *(SHIPPED / "benchmark").glob("*.yaml")])
#: name -> options of the command in the first line of a file; files of shared blocks have none
COMMANDS = {
    path.stem: first_line.split()[3:]
    for path in FILES
    if (first_line := path.read_text().splitlines()[0]).startswith("# anomalib-spd benchmark ")
}


@pytest.fixture(autouse=True)
def data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALIB_SPD_DATA", "data")
    monkeypatch.chdir(REPOSITORY)


def grid(tmp_path: Path, **changes: Any) -> Grid:
    return Grid(**small_grid(tmp_path, **changes))


@pytest.mark.parametrize("name", COMMANDS)
def test_files_are_grids_by_the_command_that_they_state(name: str) -> None:
    options = parse(COMMANDS[name])
    grid = grid_of(options)
    grid.check()
    assert options.results == Path("results/benchmark") / name
    again = Grid(**yaml.safe_load(yaml.safe_dump(grid.plain(), sort_keys=False)))
    assert again.cells() == grid.cells()
    for cell in grid.cells():
        assert again.model_config(cell) == grid.model_config(cell)
        assert again.data_config(cell) == grid.data_config(cell)
    for training, config in grid.trainings().items():
        full_recipe(config, training)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_weights_have_their_full_tag_and_data_no_path_that_users_lack(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\b(resnet\d+|wide_resnet50_2|vgg16)\b(?![._])", "".join(yaml_values(yaml.safe_load(text))))
    assert "../shared" not in text
    assert "ANOMALIB_SPD_DATA" not in text or not path.is_relative_to(SHIPPED)


def yaml_values(content: Any) -> Iterator[str]:
    """Yield all texts of a YAML file's values, a line each."""
    if isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from yaml_values(each)
    elif isinstance(content, str):
        yield f"{content}\n"


def test_an_unset_data_root_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANOMALIB_SPD_DATA")
    with pytest.raises(SystemExit, match=r"'ANOMALIB_SPD_DATA' not found.*set it"):
        parse(COMMANDS["stages"])


def test_the_grid_of_the_guide_is_one(tmp_path: Path) -> None:
    guide = (REPOSITORY / "docs/howto/benchmark.md").read_text()
    (block,) = (block for block in guide.split("```yaml\n")[1:] if block.startswith("backbones:"))
    path = tmp_path / "grid.yaml"
    path.write_text(block.partition("```")[0])
    options = parse(["--config", str(path)])
    grid = grid_of(options)
    grid.check()
    assert len(grid.cells()) == 12


def test_shipped_grids_are_those_of_the_papers() -> None:
    sizes = {}
    for name, command in COMMANDS.items():
        grid = grid_of(parse(command))
        sizes[name] = [len(getattr(grid, axis)) for axis in ("backbones", "detectors", "categories", "seeds")]
        for label, detector in grid.plain()["detectors"].items() if "2cls" not in name else ():
            given = detector.get("init_args", {}).get("pre_processor", {}).get("init_args", {})
            whole = name in ("quick", "lite") or label in ("STPM", "DRAEM")
            assert given.get("center_crop_size") == (None if whole else [224, 224])
            assert whole or given["image_size"] == [256, 256]
    assert sizes == {
        **{
            "quick": [2, 2, 2, 2],
            "lite": [3, 3, 7, 3],
            "dev": [3, 3, 3, 3],
            "dense": [4, 1, 3, 3],
            "cosine": [6, 2, 3, 3],
            "cutswap": [9, 2, 3, 3],
            "memory_ablations": [17, 1, 3, 3],
            "memory_sorting": [3, 1, 3, 3],
            "parts_spd": [4, 2, 3, 3],
            "both_spd": [6, 2, 3, 3],
            "stages": [4, 2, 3, 3],
            "stages_hazelnut": [4, 2, 1, 3],
            "averaged": [7, 2, 3, 3],
            "forms_2cls_highshot": [9, 1, 2, 3],
            "memory": [6, 2, 3, 3],
            "self_supervised": [7, 1, 3, 3],
        },
        **{"cutswap_mvtec": [3, 3, 15, 3], "cutswap_visa": [3, 3, 12, 3]},
        **{"cutswap_ablations_k": [8, 2, 15, 3], "cutswap_ablations_cluster": [5, 2, 15, 3]},
        **{"cutswap_ablations_levels": [9, 2, 15, 3], "cutswap_ablations_sorting": [4, 2, 15, 3]},
        **{"spd_visa_1cls": [10, 2, 12, 3], "spd_visa_ablations": [9, 1, 12, 3]},
        **{"dev_2cls_highshot": [3, 3, 2, 3], "dev_2cls_fewshot": [3, 2, 4, 5]},
        **{"spd_visa_2cls_highshot": [8, 2, 12, 3], "spd_visa_2cls_fewshot": [8, 2, 24, 5]},
    }


def test_the_visa_few_shot_grid_draws_by_its_seeds() -> None:
    one = grid_of(parse(["--config", "benchmark/spd_visa_2cls_fewshot.yaml"]))
    for cell in one.cells():
        data = one.data_config(cell)["init_args"]
        assert f"{data['category']} {data['shots']}-shot" == cell.category
        assert data["draw"] == cell.seed
        assert data["protocol"] == "fewshot"


def test_cells_are_the_product_and_groups_share_backbone_and_category(tmp_path: Path) -> None:
    one = grid(tmp_path)
    assert len(set(one.cells())) == 2 * 2 * 2 * 2
    for group in one.groups():
        assert len({(cell.backbone, cell.category) for cell in group}) == 1
        assert len(group) == 4


def test_a_backbone_may_bring_arguments_for_a_detector(tmp_path: Path) -> None:
    entry = {"backbone": "small_a", "init_args": {"PaDiM": {"n_features": 7}}}
    one = grid(tmp_path, backbones={"a": entry, "b": "small_b"})
    assert one.model_config(Cell("a", "PaDiM", "one", 0))["init_args"]["n_features"] == 7
    assert one.model_config(Cell("b", "PaDiM", "one", 0))["init_args"]["n_features"] == 10
    assert "n_features" not in one.model_config(Cell("a", "PatchCore 0.1", "one", 0))["init_args"]
    assert one.model_config(Cell("a", "PaDiM", "one", 0))["init_args"]["backbone"] == "small_a"


def test_a_backbone_may_have_a_name_for_each_category_and_seed(tmp_path: Path) -> None:
    entry = {"backbone": "small_{category}", "init_args": {"PaDiM": {"n_features": 7}}}
    one = grid(tmp_path, backbones={"a": "small_{category}_{seed}", "b": "small_a", "c": entry})
    seeds = one.seeds
    assert [one.backbone("a", "one", seed) for seed in seeds] == [f"small_one_{seed}" for seed in seeds]
    assert [one.backbone("b", "two", seed) for seed in seeds] == ["small_a", "small_a"]
    assert one.model_config(Cell("c", "PaDiM", "two", seeds[1]))["init_args"]["backbone"] == "small_two"
    assert one.model_config(Cell("c", "PaDiM", "two", seeds[1]))["init_args"]["n_features"] == 7
    assert [one.trained_anew(label) for label in "abc"] == [True, False, False]
    assert len(set(one.cells())) == 3 * 2 * 2 * 2
    for group in one.groups():  # features are computed once for each name, and for no two
        assert len({one.backbone(cell.backbone, cell.category, cell.seed) for cell in group}) == 1


def test_a_grid_may_say_how_its_backbones_are_made(tmp_path: Path) -> None:
    entry = {"backbone": "tuned_{category}_{seed}", "finetune": {"config": "a.yaml", "model.clusters": 1}}
    one = grid(tmp_path, backbones={"a": entry, "b": "small_a"})
    trainings = one.trainings()
    assert list(trainings) == [f"tuned_{category}_{seed}" for category in ("one", "two") for seed in one.seeds]
    config = trainings[f"tuned_two_{one.seeds[1]}"]
    assert config == {
        "config": "a.yaml",
        "model.clusters": 1,
        "seed_everything": one.seeds[1],
        # without what a detector alone needs of the data
        "data": one.data_config(Cell("b", "PaDiM", "two", 0)),
    }


def test_a_category_takes_its_name_from_its_label_or_stands_alone(tmp_path: Path) -> None:
    one = grid(tmp_path)
    assert one.data_config(Cell("a", "PaDiM", "one", 0))["init_args"]["category"] == "one"
    assert build(AnomalibDataModule, one.data_config(Cell("a", "PaDiM", "one", 0))).category == "one"
    assert one.data_config(Cell("a", "PaDiM", "two", 0))["class_path"] == "anomalib.data.Folder"
    assert "category" not in one.data_config(Cell("a", "PaDiM", "two", 0))["init_args"]
    assert one.published("a", "one") == {"dataset": "mvtec", "category": "one"}
    assert one.published("a", "two") is None


def test_a_backbone_may_stand_for_a_method_of_the_papers(tmp_path: Path) -> None:
    one = grid(tmp_path, backbones={"a": {"backbone": "small_a", "published": "CutSwap, k = 1"}, "b": "small_b"})
    assert one.published("a", "one") == {"dataset": "mvtec", "category": "one", "method": "CutSwap, k = 1"}
    assert one.published("b", "one") == {"dataset": "mvtec", "category": "one"}
    assert one.published("a", "two") is None
    with pytest.raises(
        ValueError, match=r"backbones: a: published: expected a method's name in the papers, got \['x'\]"
    ):
        grid(tmp_path, backbones={"a": {"backbone": "small_a", "published": ["x"]}})


def test_a_detector_may_be_measured_with_some_backbones_alone(tmp_path: Path) -> None:
    detectors = small_grid(tmp_path)["detectors"]
    detectors["PaDiM"]["backbones"] = ["b"]
    one = grid(tmp_path, detectors=detectors)
    one.check()
    assert {(cell.backbone, cell.detector) for cell in one.cells()} == {
        ("a", "PatchCore 0.1"),
        ("b", "PaDiM"),
        ("b", "PatchCore 0.1"),
    }
    detectors["PaDiM"]["backbones"] = ["c"]
    with pytest.raises(ValueError, match=r"PaDiM: \['c'\] is none of the backbones: a, b"):
        grid(tmp_path, detectors=detectors)


def test_a_category_may_have_arguments_for_a_detector(tmp_path: Path) -> None:
    categories = {"one": {"detectors": {"PaDiM": {"n_features": 5}}}, "two": small_grid(tmp_path)["categories"]["two"]}
    entry = {"backbone": "small_a", "init_args": {"PaDiM": {"n_features": 7}}}
    one = grid(tmp_path, categories=categories, backbones={"a": entry, "b": "small_b"})
    assert one.model_config(Cell("a", "PaDiM", "one", 0))["init_args"]["n_features"] == 5
    assert one.model_config(Cell("a", "PaDiM", "two", 0))["init_args"]["n_features"] == 7
    assert one.data_config(Cell("a", "PaDiM", "one", 0))["init_args"].keys() == {"category", "root", "num_workers"}


def test_a_detector_may_have_arguments_for_the_data(tmp_path: Path) -> None:
    detectors = small_grid(tmp_path)["detectors"]
    detectors["PaDiM"]["data"] = {"train_batch_size": 3}
    one = grid(tmp_path, detectors=detectors)
    assert one.data_config(Cell("a", "PaDiM", "one", 0))["init_args"]["train_batch_size"] == 3
    assert "train_batch_size" not in one.data_config(Cell("a", "PatchCore 0.1", "one", 0))["init_args"]
    assert "data" not in one.model_config(Cell("a", "PaDiM", "one", 0))
    one.check()


@pytest.mark.parametrize(("said", "draw"), [({}, 4), ({"draw": 1}, 1)])
def test_a_draw_is_the_seed_where_nothing_is_said(tmp_path: Path, said: dict[str, int], draw: int) -> None:
    stock = {"class_path": "anomalib.data.Visa", "init_args": {"root": str(tmp_path), "category": "one"}}
    two_class = {"class_path": "anomalib_spd.twoclass.TwoClass", "init_args": {"datamodule": stock, "shots": 2, **said}}
    one = grid(tmp_path, categories={"one": two_class}, seeds=[4])
    one.check()
    assert build(AnomalibDataModule, one.data_config(Cell("a", "PaDiM", "one", 4))).draw == draw


def test_a_detector_is_built_as_it_is_written(tmp_path: Path) -> None:
    one = grid(tmp_path, backbones={"a": "efficientnet_lite0_in1k"})
    model = build(AnomalibModule, one.model_config(Cell("a", "PatchCore 0.1", "one", 0)))
    assert model.coreset_sampling_ratio == 0.1


def test_pairs_are_those_given_or_all_against_the_first(tmp_path: Path) -> None:
    backbones = {"a": "x", "b": "y", "c": "z"}
    assert list(pairs(grid(tmp_path, backbones=backbones))) == [("b", "a"), ("c", "a")]
    assert list(pairs(grid(tmp_path, backbones=backbones, comparisons=[["c", "b"]]))) == [("c", "b")]


def test_a_cell_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = {cell.folder(tmp_path) for cell in grid(tmp_path).cells()}
    assert len(folders) == 16
    assert Cell("a", "PaDiM", "one", 0).folder(tmp_path) == tmp_path / "cells" / "a" / "PaDiM" / "one" / "seed_0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": []}, "seeds must name at least one"),
        ({"seeds": [1, 1]}, "seeds must name at least one, each once"),
        ({"backbones": {"../a": "x"}}, "cannot be the name of a folder"),
        ({"backbones": {"a": {"name": "x"}}}, "expected a name, or a mapping with one as 'backbone'"),
        ({"backbones": {"a": ["x"]}}, "a: expected a name, or a mapping with one as 'backbone'"),
        ({"backbones": {"a": "x_{sead}"}}, "a: a name may have {category} and {seed}, got .*{sead}"),
        ({"backbones": {"a": {"backbone": "x", "init_args": {"Padim": {}}}}}, "'Padim'.* is none of the detectors"),
        ({"comparisons": [["a", "c"]]}, "'c'.* is none of the backbones: a, b"),
        ({"comparisons": [["a", "a"]]}, "expected pairs of two backbones"),
        ({"data": {}, "categories": {"one": None}}, "None.* is not the import path of a data module's class"),
        ({"categories": {"one": {"detectors": {"Padim": {}}}}}, "one: .*'Padim'.* is none of the detectors"),
        (
            {"categories": {"one": {"class_path": "anomalib.data.Vissa"}}},
            "'anomalib.data.Vissa' is not the import path",
        ),
    ],
)
def test_what_is_not_a_grid_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(tmp_path, **changes)


def test_arguments_are_checked_before_anything_runs(tmp_path: Path) -> None:
    detectors = {"PaDiM": {"class_path": "anomalib.models.Padim", "init_args": {"n_feature": 3}}}
    with pytest.raises(ValueError, match=r"detectors: PaDiM: .*n_feature"):
        grid(tmp_path, detectors=detectors).check()
    data = {"class_path": "anomalib.data.Visa", "init_args": {"train_batch_size": "many"}}
    with pytest.raises(ValueError, match=r"categories: one: .*train_batch_size"):
        grid(tmp_path, data=data, categories={"one": None}).check()
