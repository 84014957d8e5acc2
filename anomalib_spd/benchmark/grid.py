"""A benchmark grid: backbones x detectors x categories x seeds, each cell a stock anomalib run."""

import inspect
import json
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from pydoc import locate
from typing import Any, cast

from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule
from jsonargparse import ArgumentParser

from anomalib_spd.benchmark.results import Cell

# labels become names of folders, and stand in tables
LABEL = re.compile(r"[\w.+-]+( [\w.+-]+)*")

Config = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """What is measured. The attributes are the keys of a file in ``configs/benchmark``.

    Attributes:
        backbones: label -> name on the shelf or in timm, in which ``{category}`` and ``{seed}`` stand for those of a cell:
            one backbone a category, or trainings that differ in nothing but their seed. Or a mapping with the name as
            ``backbone`` and, as ``init_args``, arguments for some detectors, by their label
            (``{padim: {n_features: 550}}``); and as ``finetune`` the options of ``anomalib-spd finetune`` that makes it,
            ``config`` among them, to be run before the cells where the shelf does not have it.
        detectors: label -> ``class_path`` and ``init_args`` of anomalib's model, without its backbone; as ``data``,
            arguments of the data module that this detector needs (``{normal_only: true}``).
        categories: label -> what differs from ``data``: ``init_args`` (``category`` is the label, where nothing is said),
            ``published``; or a ``class_path`` of another data module with all of its ``init_args``. As ``detectors``,
            arguments that some detectors have here, by their label. A data module that takes a ``draw`` of its training
            images gets the seed for it, where nothing is said.
        data: ``class_path`` and ``init_args`` of anomalib's data module, and as ``published`` the name of the data set
            (``mvtec``, ``visa``) whose published figures are put beside these.
        seeds: of the detectors, and of the trainings of the backbones that have a name for each.
        comparisons: pairs (A, B) of backbones of which the report gives A minus B; by default every later one minus the
            first.
        title: of the report.
    """

    backbones: Mapping[str, Any]
    detectors: Mapping[str, Config]
    categories: Mapping[str, Config | None]
    data: Config = field(default_factory=dict[str, Any])
    seeds: Sequence[int] = (0, 1, 2)
    comparisons: Sequence[Sequence[str]] = ()
    title: str = "Benchmark"

    def __post_init__(self) -> None:
        for axis in ("backbones", "detectors", "categories", "seeds"):
            labels = list(getattr(self, axis))
            if not labels or len(set(labels)) < len(labels):
                raise ValueError(f"{axis} must name at least one, each once; got {labels}")
            if axis != "seeds" and (wrong := [label for label in labels if not LABEL.fullmatch(str(label))]):
                raise ValueError(
                    f"{axis}: {wrong} cannot be the name of a folder; use letters, digits, single spaces and . _ + -"
                )
        for name, backbone in self.backbones.items():
            pattern = backbone.get("backbone") if isinstance(backbone, Mapping) else backbone
            if not isinstance(pattern, str):
                raise ValueError(
                    f"backbones: {name}: expected a name, or a mapping with one as 'backbone', got {backbone!r}"
                )
            if unknown := set(re.findall("{.*?}", pattern)) - {"{category}", "{seed}"}:
                raise ValueError(f"backbones: {name}: a name may have {{category}} and {{seed}}, got {sorted(unknown)}")
            self._only("detectors", backbone.get("init_args", {}) if isinstance(backbone, Mapping) else [], name)
        for category, entry in self.categories.items():
            path = (entry or {}).get("class_path", self.data.get("class_path"))
            if not inspect.isclass(locate(str(path))):
                raise ValueError(f"categories: {category}: {path!r} is not the import path of a data module's class")
            self._only("detectors", (entry or {}).get("detectors", {}), category)
        for pair in self.comparisons:
            self._only("backbones", pair, "comparisons")
            if len(set(pair)) != 2:
                raise ValueError(f"comparisons: expected pairs of two backbones, got {list(pair)}")

    def _only(self, axis: str, labels: Sequence[str] | Mapping[str, Any], where: str) -> None:
        if unknown := [label for label in labels if label not in getattr(self, axis)]:
            raise ValueError(f"{where}: {unknown} is none of the {axis}: {', '.join(getattr(self, axis))}")

    def cells(self) -> list[Cell]:
        """All cells; those that share features stand together."""
        return [cell for group in self.groups() for cell in group]

    def groups(self) -> list[list[Cell]]:
        """The cells of one backbone and one category each, in which features are computed once."""
        return [
            [Cell(label, detector, category, seed) for detector in self.detectors for seed in seeds]
            for category in self.categories
            for label in self.backbones
            for seeds in ([[seed] for seed in self.seeds] if self.trained_anew(label) else [list(self.seeds)])
        ]

    def backbone(self, label: str, category: str, seed: int) -> str:
        """The name on the shelf or in timm."""
        return self.name(label).replace("{category}", category).replace("{seed}", str(seed))

    def trained_anew(self, label: str) -> bool:
        """Whether the seeds of a backbone are of trainings of its own, so that they tell how much these differ."""
        return "{seed}" in self.name(label)

    def name(self, label: str) -> str:
        """The name on the shelf or in timm, as the grid has it, with ``{category}`` and ``{seed}``."""
        entry = self.backbones[label]
        return str(entry["backbone"] if isinstance(entry, Mapping) else entry)

    def trainings(self) -> dict[str, list[str]]:
        """Name -> arguments of ``anomalib-spd finetune``, of every backbone that the grid says how to make.

        Raises:
            ValueError: one backbone would be made in several ways.
        """
        made: dict[str, list[str]] = {}
        for cell in self.cells():
            entry = self.backbones[cell.backbone]
            if not isinstance(entry, Mapping) or "finetune" not in entry:
                continue
            name = self.backbone(cell.backbone, cell.category, cell.seed)
            data = json.dumps(self._data_config(cell))
            words = {
                key: each.format(category=cell.category, seed=cell.seed) if isinstance(each, str) else each
                for key, each in entry["finetune"].items()
            }
            config = words.pop("config", [])  # one file, or a list: a recipe and its overlays
            args = [f"--config={file}" for file in ([config] if isinstance(config, str) else config)]
            args += [f"--{key}={each if isinstance(each, str) else json.dumps(each)}" for key, each in words.items()]
            args += [f"--seed_everything={cell.seed}", f"--data={data}", f"--name={name}"]
            if made.setdefault(name, args) != args:
                raise ValueError(
                    f"backbones: {cell.backbone}: {name!r} would be made in several ways; have {{category}} and {{seed}} in it"
                )
        return made

    def published(self, category: str) -> dict[str, str] | None:
        """Data set and category of the published figures that belong beside these, if any."""
        dataset = (self.categories[category] or {}).get("published", self.data.get("published"))
        return {"dataset": dataset, "category": category} if dataset else None

    def model_config(self, cell: Cell) -> Config:
        """``class_path`` and ``init_args`` of the detector of a cell."""
        detector, backbone = self.detectors[cell.detector], self.backbones[cell.backbone]
        of_backbone = backbone.get("init_args", {}) if isinstance(backbone, Mapping) else {}
        of_category = (self.categories[cell.category] or {}).get("detectors", {})
        init_args = detector.get("init_args", {})
        for own in (of_backbone, of_category):
            init_args = {**init_args, **own.get(cell.detector, {})}
        init_args = {**init_args, "backbone": self.backbone(cell.backbone, cell.category, cell.seed)}
        return _plain({"class_path": detector["class_path"], "init_args": init_args})

    def data_config(self, cell: Cell) -> Config:
        """``class_path`` and ``init_args`` of the data module of a cell."""
        config = self._data_config(cell)
        return _plain({**config, "init_args": config["init_args"] | self.detectors[cell.detector].get("data", {})})

    def _data_config(self, cell: Cell) -> Config:
        """Those of the category alone."""
        entry = self.categories[cell.category] or {}
        path = entry.get("class_path", self.data.get("class_path"))
        takes = inspect.signature(cast(type, locate(str(path)))).parameters
        init_args: Config = {"draw": cell.seed} if "draw" in takes else {}
        if "class_path" not in entry:
            init_args |= {"category": cell.category} if "category" in takes else {}
            init_args |= self.data.get("init_args", {})
        return _plain({"class_path": path, "init_args": init_args | entry.get("init_args", {})})

    def plain(self) -> Config:
        """The grid as it is written to a file."""
        return _plain(asdict(self))

    def check(self) -> None:
        """Check every detector and data module against its class, before anything is run.

        Raises:
            ValueError: an argument that the class does not take, or of another type.
        """
        checked = set()
        for cell in self.cells():
            for base, config, where in (
                (AnomalibModule, self.model_config(cell), f"detectors: {cell.detector}"),
                (AnomalibDataModule, self.data_config(cell), f"categories: {cell.category}"),
            ):
                if (text := json.dumps(config, sort_keys=True)) not in checked:
                    checked.add(text)
                    _parse(base, config, where)


def build_model(config: Config) -> AnomalibModule:
    """The detector of a configuration.

    Args:
        config: ``class_path`` and ``init_args``.
    """
    model: AnomalibModule = _build(AnomalibModule, config)
    return model


def build_data(config: Config) -> AnomalibDataModule:
    """The data module of a configuration.

    Args:
        config: ``class_path`` and ``init_args``.
    """
    data: AnomalibDataModule = _build(AnomalibDataModule, config)
    return data


def _plain(config: Config) -> Config:
    """A copy as it will be read from a record: jsonargparse has made objects of what names a class, or a path."""

    def words(value: Any) -> Any:
        return value.as_posix() if isinstance(value, PurePath) else value.as_dict()

    plain: Config = json.loads(json.dumps(config, default=words))
    return plain


def _build(base: type, config: Config) -> Any:
    parser = _parser(base)
    return parser.instantiate_classes(parser.parse_object({"it": config})).it


def _parse(base: type, config: Config, where: str) -> None:
    try:
        _parser(base).parse_object({"it": config})
    except ArgumentError as error:
        raise ValueError(f"{where}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """What went wrong, in a line: jsonargparse says at length what else might have stood there.

    Args:
        error: of jsonargparse, or any other.
    """
    return " ".join(str(error).split()).rpartition("<class 'NoneType'> - ")[2].partition(" Given value type")[0]


def _parser(base: type) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "it", required=True)
    return parser


def pairs(grid: Grid) -> Iterator[tuple[str, str]]:
    """The pairs of backbones to compare."""
    first, *later = grid.backbones
    yield from ((a, b) for a, b in grid.comparisons or [(label, first) for label in later])
