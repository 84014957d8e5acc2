"""A trained detector from its checkpoint."""

import inspect
from pathlib import Path
from pydoc import locate
from typing import Any

import anomalib.models
import torch
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.pre_processing import PreProcessor
from anomalib.utils.serialization import anomalib_safe_globals

from anomalib_spd.config_files import read_yaml
from anomalib_spd.files import one_line
from anomalib_spd.spelling import did_you_mean


def load(ckpt_path: Path, name: str | None = None) -> AnomalibModule:
    """Return the detector of a checkpoint, on the CPU, ready to predict. Nothing is unpickled but tensors and plain values.

    Args:
        ckpt_path: ``weights/lightning/model.ckpt`` of a run.
        name: of its class in ``anomalib.models``, or the import path of one; by default the one that the run's ``config.yaml`` names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the class is unknown, or the file is damaged, of another kind, or of another class.
    """
    if not ckpt_path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {ckpt_path}: give weights/lightning/model.ckpt of a run")
    made = _class_of(ckpt_path, name)
    content = _read(ckpt_path, made)
    parameters = inspect.signature(made).parameters
    takes = {*parameters}
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        takes |= {"pre_processor", "evaluator", "visualizer"}  # our own detectors hand these on to stock's
    # no evaluator and no pictures in what is handed on; and weights come from the checkpoint, not from the network
    given: dict[str, Any] = {key: False for key in ("evaluator", "visualizer", "pre_trained") if key in takes}
    if "pre_processor" in takes and (config := content.get("anomalib_pre_processor_config")):
        # some detectors are built for the size of images
        given["pre_processor"] = PreProcessor()
        given["pre_processor"].load_checkpoint_config(config)
    try:
        detector = made.load_from_checkpoint(ckpt_path, map_location="cpu", **given)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{ckpt_path} is not a checkpoint of {made.__name__} ({one_line(error)[:200]}): name its class by --model"
        ) from error
    return detector.eval()


def _class_of(ckpt_path: Path, name: str | None) -> type[AnomalibModule]:
    if name is None:
        config = ckpt_path.absolute().parents[2] / "config.yaml"
        content = read_yaml(config) if config.is_file() else None
        model = content.get("model") if isinstance(content, dict) else None
        name = model.get("class_path") if isinstance(model, dict) else None
        if not isinstance(name, str):
            raise ValueError(f"no config.yaml of a run is beside {ckpt_path}: name the detector's class by --model")
    found: Any = getattr(anomalib.models, name, None) or locate(name)
    if not (inspect.isclass(found) and issubclass(found, AnomalibModule)):
        known = [each for each in dir(anomalib.models) if each[0].isupper()]
        raise ValueError(f"{name!r} is no detector of anomalib{did_you_mean(name, known)}")
    return found


def _read(path: Path, made: type[AnomalibModule]) -> dict[str, Any]:
    try:
        with anomalib_safe_globals(extra=made.checkpoint_safe_globals()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in torch's reader, with any exception
        raise ValueError(
            f"{path} is not a complete checkpoint of anomalib: it is damaged, cut off, or of another kind. Copy it again, or "
            "give weights/lightning/model.ckpt of a run"
        ) from error
    if not (isinstance(content, dict) and {"state_dict", "hyper_parameters"} <= content.keys()):
        raise ValueError(f"{path} holds no detector: give weights/lightning/model.ckpt of a run of anomalib")
    return content


def backbone_names(detector: AnomalibModule) -> list[str]:
    """Return the names of the modules that are backbones: those that read feature maps of timm's networks."""
    return [name for name, module in detector.named_modules() if isinstance(module, TimmFeatureExtractor)]
