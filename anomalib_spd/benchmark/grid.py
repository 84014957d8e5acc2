"""A benchmark grid: backbones x detectors x categories x seeds, where each cell is a stock anomalib run."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import PurePath
from pydoc import locate
from typing import Any, cast

from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule

from anomalib_spd.benchmark.build import Config, check
from anomalib_spd.benchmark.results import Cell
from anomalib_spd.spelling import did_you_mean

# labels become names of folders, and stand in tables
LABEL = re.compile(r"[\w.+-]+( [\w.+-]+)*")
LONGEST_LABEL = 60
DATA_KEYS = ("class_path", "init_args", "published")
ENTRY_KEYS = {
    "backbones": ("backbone", "init_args", "finetune", "published"),
    "detectors": ("class_path", "init_args", "data", "trainer", "backbones"),
    "categories": ("class_path", "init_args", "published", "detectors"),
}
#: by which detectors of anomalib take their backbone, the first that there is
BACKBONE_PARAMETERS = ("backbone", "encoder_name", "rgb_backbone", "teacher_backbone")


class GridError(ValueError):
    """What is wrong with a grid; ``lines`` has all of it, one a line."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        super().__init__("\n".join(self.lines))


@dataclass(frozen=True)
class Grid:
    """What is measured. The attributes are the keys of a grid's YAML file.

    Attributes:
        backbones: label -> name in the registry or in timm, in which ``{category}`` and ``{seed}`` stand for those of a
            cell: one backbone a category, or trainings that differ in nothing but their seed. Or a mapping: the name as
            ``backbone``; as ``init_args``, arguments of some detectors, by their label (``{padim: {n_features: 550}}``);
            as ``finetune``, the training that makes the backbone before the cells if the registry does not have it: keys
            of a configuration of ``anomalib-spd finetune``, and ``config``, the files whose values these keys replace;
            with ``per: dataset`` one backbone is made of the images of all categories; as ``published``, the method of the
            papers' tables whose figures stand beside these, with a comma before what an ablation varies (``CutSwap, k = 1``).
        detectors: label -> ``class_path`` and ``init_args`` of anomalib's model, without its backbone; as ``data``,
            arguments of the data module that this detector needs (``{normal_only: true}``); as ``trainer``, arguments of
            Lightning's trainer, such as its ``max_epochs`` if it trains; as ``backbones``, the labels of those that it is
            measured with, if not all. One that takes no backbone measures the same under every backbone's label.
        categories: label -> what differs from ``data``: ``init_args`` (``category`` is the label by default),
            ``published``; or a ``class_path`` of another data module with all of its ``init_args``. As ``detectors``,
            arguments that some detectors have here, by their label. A data module that takes a ``draw`` of its training
            images gets the seed for it by default.
        data: ``class_path`` and ``init_args`` of anomalib's data module, and as ``published`` the name of the data set
            (``mvtec``, ``visa``) whose published figures the report puts beside these.
        seeds: of the detectors, and of the trainings of backbones that have a name for each.
        comparisons: pairs (A, B) of backbones of which the report gives A minus B; by default every later one minus the
            first.
        title: of the report.

    Raises:
        GridError: a label cannot be a folder, a name refers to nothing, or an axis is empty.
    """

    backbones: Mapping[str, Any]
    detectors: Mapping[str, Config]
    categories: Mapping[str, Config | None]
    data: Config = field(default_factory=dict[str, Any])
    seeds: Sequence[int] = (0, 1, 2)
    comparisons: Sequence[Sequence[str]] = ()
    title: str = "Benchmark"

    def __post_init__(self) -> None:
        if errors := self._label_errors() or self._entry_errors():
            raise GridError(errors)

    def _label_errors(self) -> list[str]:
        """Return what is wrong with the axes, without which there are no cells."""
        errors = []
        for axis in ("backbones", "detectors", "categories", "seeds"):
            labels = list(getattr(self, axis))
            if not labels or len(set(labels)) < len(labels):
                errors.append(f"{axis} must name at least one, each once; got {labels}")
            if axis != "seeds" and (wrong := [label for label in labels if not _can_be_folder(str(label))]):
                errors.append(
                    f"{axis}: {wrong} cannot be the name of a folder; use letters, digits, single spaces and . _ + -, at "
                    f"most {LONGEST_LABEL}"
                )
        return errors

    def _entry_errors(self) -> list[str]:
        """Return what is wrong with entries, of whatever class."""
        errors = []
        for label in self.backbones:
            entry = self._backbone_entry(label)
            if not isinstance(entry.get("backbone"), str):
                errors.append(
                    f"backbones: {label}: expected a name, or a mapping with one as 'backbone', got "
                    f"{self.backbones[label]!r}"
                )
            elif unknown := set(re.findall("{.*?}", entry["backbone"])) - {"{category}", "{seed}"}:
                errors.append(f"backbones: {label}: a name may have {{category}} and {{seed}}, got {sorted(unknown)}")
            if not isinstance(method := entry.get("published", ""), str):
                errors.append(f"backbones: {label}: published: expected a method's name in the papers, got {method!r}")
            errors += self._unknown_labels("detectors", entry.get("init_args", {}), label)
        for label, entry in self.detectors.items():
            errors += self._unknown_labels("backbones", entry.get("backbones", []), label)
        for category in self.categories:
            entry = self._category_entry(category)
            if not inspect.isclass(locate(str(entry["class_path"]))):
                errors.append(
                    f"categories: {category}: {entry['class_path']!r} is not the import path of a data module's class"
                )
            errors += self._unknown_labels("detectors", entry.get("detectors", {}), category)
        for pair in self.comparisons:
            errors += self._unknown_labels("backbones", pair, "comparisons")
            if len(set(pair)) != 2:
                errors.append(f"comparisons: expected pairs of two backbones, got {list(pair)}")
        return [*self._unknown_keys(), *errors] if errors else []

    def _unknown_labels(self, axis: str, labels: Sequence[str] | Mapping[str, Any], where: str) -> list[str]:
        unknown = [label for label in labels if label not in getattr(self, axis)]
        return [f"{where}: {unknown} is none of the {axis}: {', '.join(getattr(self, axis))}"] if unknown else []

    def _unknown_keys(self) -> list[str]:
        entries: list[tuple[str, Any, tuple[str, ...]]] = [("data", self.data, DATA_KEYS)]
        for axis, keys in ENTRY_KEYS.items():
            entries += [(f"{axis}: {label}", entry, keys) for label, entry in getattr(self, axis).items()]
        return [
            f"{where}: unknown key {key!r}{did_you_mean(str(key), keys)}; it may have {', '.join(keys)}"
            for where, entry, keys in entries
            if isinstance(entry, Mapping)
            for key in entry
            if key not in keys
        ]

    def _backbone_entry(self, label: str) -> Mapping[str, Any]:
        entry = self.backbones[label]
        return entry if isinstance(entry, Mapping) else {"backbone": entry}

    def _category_entry(self, category: str) -> Config:
        entry = self.categories[category] or {}
        shared = {key: self.data.get(key) for key in ("class_path", "published")}
        if "class_path" not in entry:
            shared["init_args"] = {**self.data.get("init_args", {}), **entry.get("init_args", {})}
            entry = {key: value for key, value in entry.items() if key != "init_args"}
        return {"init_args": {}, **shared, **entry}

    def cells(self) -> list[Cell]:
        """Return all cells; those that share features stand together."""
        return [cell for group in self.groups() for cell in group]

    def groups(self) -> list[list[Cell]]:
        """Return the cells of one backbone and one category each, in which features are computed once."""
        return [
            [Cell(label, detector, category, seed) for detector in detectors for seed in seeds]
            for category in self.categories
            for label in self.backbones
            if (detectors := [each for each in self.detectors if label in self.measured_with(each)])
            for seeds in ([[seed] for seed in self.seeds] if self.trained_anew(label) else [list(self.seeds)])
        ]

    def measured_with(self, detector: str) -> Sequence[str]:
        """Return the labels of the backbones that a detector is measured with."""
        labels: Sequence[str] = self.detectors[detector].get("backbones", list(self.backbones))
        return labels

    def backbone(self, label: str, category: str, seed: int) -> str:
        """Return a backbone's name in the registry or in timm."""
        return self.name(label).replace("{category}", category).replace("{seed}", str(seed))

    def trained_anew(self, label: str) -> bool:
        """Return whether each seed of a backbone has a training of its own, so that seeds show how much these differ."""
        return "{seed}" in self.name(label)

    def name(self, label: str) -> str:
        """Return a backbone's name as the grid has it, with ``{category}`` and ``{seed}``."""
        return str(self._backbone_entry(label)["backbone"])

    def trainings(self) -> dict[str, Config]:
        """Return name -> configuration of the training, of every backbone that the grid says how to make.

        ``data`` and ``seed_everything`` are those of the cell.

        Raises:
            ValueError: one backbone would be made in several ways.
        """
        trainings: dict[str, Config] = {}
        # whatever the detector
        cells = {(cell.backbone, cell.category, cell.seed): cell for cell in self.cells()}.values()
        shared = cache(self._shared_data_config)
        for cell in cells:
            entry = self._backbone_entry(cell.backbone)
            if "finetune" not in entry:
                continue
            name = self.backbone(cell.backbone, cell.category, cell.seed)
            config = {
                key: value.format(category=cell.category, seed=cell.seed) if isinstance(value, str) else value
                for key, value in entry["finetune"].items()
            }
            if (per := config.pop("per", "category")) not in ("category", "dataset"):
                raise ValueError(f"backbones: {cell.backbone}: per is 'category' or 'dataset', got {per!r}")
            data: Any = shared(cell.category, cell.seed)
            if per == "dataset":
                data = [shared(category, cell.seed) for category in self.categories]
            config = _plain({**config, "data": data, "seed_everything": cell.seed})
            if trainings.setdefault(name, config) != config:
                raise ValueError(
                    f"backbones: {cell.backbone}: {name!r} would be made in several ways; have {{category}} and {{seed}} in it, "
                    "or one made per: dataset"
                )
        return trainings

    def published(self, backbone: str, category: str) -> Config | None:
        """Return what tells which published figures belong beside these; None if there are none.

        ``dataset``, ``category``, if it is no one-class run ``protocol``, and if the grid gives it ``method``.
        """
        entry = self._category_entry(category)
        if not entry["published"]:
            return None
        method = self._backbone_entry(backbone).get("published")
        arguments = entry["init_args"]
        protocols = {"highshot": "2cls_highshot", "fewshot": f"2cls_{arguments.get('shots')}shot"}
        protocol = protocols.get(arguments.get("protocol", ""))
        own = str(arguments.get("category", category))
        of = {"dataset": entry["published"], "category": own, "protocol": protocol, "method": method}
        return {key: value for key, value in of.items() if value}

    def model_config(self, cell: Cell) -> Config:
        """Return ``class_path`` and ``init_args`` of the detector of a cell."""
        detector = self.detectors[cell.detector]
        init_args = dict(detector.get("init_args", {}))
        init_args |= self._backbone_entry(cell.backbone).get("init_args", {}).get(cell.detector, {})
        init_args |= self._category_entry(cell.category).get("detectors", {}).get(cell.detector, {})
        parameter = backbone_parameter(detector.get("class_path"))
        # a detector with encoders of its own names may have one of them
        if parameter == "backbone" or (parameter and parameter not in init_args):
            init_args[parameter] = self.backbone(cell.backbone, cell.category, cell.seed)
        return _plain({"class_path": detector.get("class_path"), "init_args": init_args})

    def trainer_config(self, cell: Cell) -> Config:
        """Return the arguments of Lightning's trainer of a cell."""
        return _plain(self.detectors[cell.detector].get("trainer", {}))

    def data_config(self, cell: Cell) -> Config:
        """Return ``class_path`` and ``init_args`` of the data module of a cell."""
        config = self._shared_data_config(cell.category, cell.seed)
        return _plain({**config, "init_args": config["init_args"] | self.detectors[cell.detector].get("data", {})})

    def _shared_data_config(self, category: str, seed: int) -> Config:
        """Return the data module's configuration without what a detector needs."""
        entry = self._category_entry(category)
        takes = inspect.signature(cast(type, locate(entry["class_path"]))).parameters
        init_args: Config = {"draw": seed} if "draw" in takes else {}
        if "category" in takes and "class_path" not in (self.categories[category] or {}):
            init_args["category"] = category
        return _plain({"class_path": entry["class_path"], "init_args": init_args | entry["init_args"]})

    def plain(self) -> Config:
        """Return the grid as it is written to a file."""
        return _plain(asdict(self))

    def check(self) -> None:
        """Check every key, and every detector and data module against its class, before anything is run.

        Raises:
            GridError: keys that are unknown, arguments that a class does not take, or of another type.
        """
        if errors := self.errors():
            raise GridError(errors)

    def errors(self) -> list[str]:
        """Return what :meth:`check` finds, a line each."""
        errors = dict.fromkeys(self._unknown_keys())
        for where, base, config in self.classes():
            try:
                check(base, config)
            except ValueError as error:
                errors[f"{where}: {error}"] = None
        return list(errors)

    def classes(self) -> list[tuple[str, type, Config]]:
        """Return the distinct detectors and data modules: where the grid has them, the base class, and the configuration."""
        distinct: dict[str, tuple[str, type, Config]] = {}
        for cell in self.cells():
            for where, base, config in (
                (f"detectors: {cell.detector}", AnomalibModule, self.model_config(cell)),
                (f"categories: {cell.category}", AnomalibDataModule, self.data_config(cell)),
            ):
                distinct.setdefault(json.dumps(config, sort_keys=True), (where, base, config))
        return list(distinct.values())


def backbone_parameter(class_path: Any) -> str | None:
    """Return the parameter by which a detector's class takes its backbone; None where it takes none.

    Args:
        class_path: of the class.
    """
    detector: Any = locate(str(class_path))
    takes = inspect.signature(detector).parameters if inspect.isclass(detector) else {"backbone": None}
    return next((name for name in BACKBONE_PARAMETERS if name in takes), None)


def _can_be_folder(label: str) -> bool:
    return len(label) <= LONGEST_LABEL and bool(LABEL.fullmatch(label)) and bool(label.strip("."))


def _plain(config: Config) -> Config:
    """Return a copy as a record will hold it: jsonargparse makes objects of class paths and file paths."""

    def as_plain(value: Any) -> Any:
        return value.as_posix() if isinstance(value, PurePath) else value.as_dict()

    plain: Config = json.loads(json.dumps(config, default=as_plain))
    return plain


def pairs(grid: Grid) -> Iterator[tuple[str, str]]:
    """Yield the pairs of backbones to compare."""
    first, *later = grid.backbones
    yield from ((a, b) for a, b in grid.comparisons or [(label, first) for label in later])
