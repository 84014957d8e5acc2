"""From a checkpoint to a folder of exported detectors, measured."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.data import AnomalibDataModule
from anomalib.models.components import AnomalibModule
from numpy.typing import NDArray

from anomalib_spd.data.ready import naming_unreadable, set_up
from anomalib_spd.deploy.card import card_text
from anomalib_spd.deploy.detector import load
from anomalib_spd.deploy.export import FORMATS, Exporter, check_formats
from anomalib_spd.deploy.measure import TRAINED, machine, parity, peak_memory, speed
from anomalib_spd.deploy.runtimes import usable_threads
from anomalib_spd.files import atomic_folder, sha256_of, write_text
from anomalib_spd.version import __version__

RECORD, CARD = "deploy.json", "README.md"
#: normal images that the ranges of 8-bit activations are chosen by, at most
CALIBRATION = 300
#: packages whose versions are on record, where they are needed
_PACKAGES = ("anomalib", "torch", "onnx", "onnxruntime", "openvino", "nncf")


def deploy(
    ckpt_path: Path | str,
    data: AnomalibDataModule,
    output: Path | str,
    formats: Sequence[str] = tuple(FORMATS),
    model: str | None = None,
) -> dict[str, Any]:
    """Export a trained detector by anomalib, and measure every file beside it on the test images.

    The folder has ``weights/FORMAT/`` for each format, the figures as ``deploy.json``, and a page about them, ``README.md``. It
    appears once all is measured.

    Args:
        ckpt_path: checkpoint of a run of anomalib.
        data: data module whose test images it is measured on; ``openvino-int8`` is calibrated on its training images.
        output: folder to make; may exist if it is empty.
        formats: names, of ``torch``, ``onnx``, ``openvino`` and ``openvino-int8``.
        model: class of the detector; by default the one that the run's ``config.yaml`` names.

    Returns:
        The content of ``deploy.json``.

    Raises:
        ValueError: a format is unknown, the checkpoint is none, or anomalib cannot export the detector.
        ModuleNotFoundError: a package that a format needs is missing.
        OSError: the folder exists and is not empty, or files are missing.
    """
    ckpt_path, output = Path(ckpt_path), Path(output)
    check_formats(formats)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise FileExistsError(f"{output} exists already: give another --output, or remove it")
    detector = load(ckpt_path, model)
    check_formats(formats, detector)
    set_up(data, 0)
    with atomic_folder(output) as folder, naming_unreadable(data):
        files = _export(detector, data, formats, folder)
        # what the exports changed in it is not to be measured
        record = _measure(load(ckpt_path, model), files, data)
        record = {"checkpoint_sha256": sha256_of(ckpt_path), **record}
        for name, path in files.items():
            record["formats"][name]["file"] = path.relative_to(folder).as_posix()
        write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
        write_text(folder / CARD, card_text(record))
    return record


def _export(
    detector: AnomalibModule, data: AnomalibDataModule, formats: Sequence[str], folder: Path
) -> dict[str, Path]:
    files = {}
    with tempfile.TemporaryDirectory() as scratch:
        exporter = Exporter(detector, folder, Path(scratch))
        for name in formats:
            print(f"Exporting {name}", flush=True)
            files[name] = exporter.export(name, _NormalImages(data) if name == "openvino-int8" else ())
    return files


class _NormalImages:
    """Normal training images ``(1, 3, H, W)`` in [0, 1], evenly spread; read when they are needed, since photographs are large."""

    def __init__(self, data: AnomalibDataModule) -> None:
        self.images: Any = data.train_data
        normal = np.flatnonzero(np.asarray(self.images.samples.label_index) == 0)
        self.chosen = normal[np.linspace(0, len(normal) - 1, min(len(normal), CALIBRATION)).round().astype(int)]

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self.images[int(index)].image[None].numpy() for index in self.chosen)


def _measure(detector: AnomalibModule, files: dict[str, Path], data: AnomalibDataModule) -> dict[str, Any]:
    every = usable_threads()
    print(f"Measuring on {len(data.test_data)} test images", flush=True)
    found = parity(detector, files, data, every)
    seconds = speed(detector, files, data, sorted({1, every}))
    first: Any = data.test_data[0]
    size = first.image.shape[-2:]
    for name, path in files.items():
        found[name]["bytes"] = sum(each.stat().st_size for each in path.parent.iterdir())
        found[name]["peak_memory_bytes"] = peak_memory(name, path, (int(size[0]), int(size[1])))
    for name, each in seconds.items():
        found[name]["images_per_second"] = each
    labels = np.asarray(data.test_data.samples.label_index)
    bank = getattr(detector.model, "memory_bank", None)
    return {
        "detector": type(detector).__name__,
        "backbone": detector.hparams.get("backbone"),
        "data": {
            "name": " ".join(filter(None, (type(data).__name__, data.category))),
            "normal": int((labels == 0).sum()),
            "anomalous": int((labels == 1).sum()),
            "image_size": [int(size[0]), int(size[1])],
        },
        "memory_bank_bytes": None if bank is None else bank.numel() * bank.element_size(),
        "threads": every,
        **machine(),
        "versions": {
            "anomalib_spd": __version__,
            **{name: version(name) for name in _PACKAGES if _needed(name, files)},
        },
        TRAINED: found.pop(TRAINED),
        "formats": found,
    }


def _needed(package: str, files: dict[str, Path]) -> bool:
    return package in ("anomalib", "torch") or any(package in FORMATS[name] for name in files)
