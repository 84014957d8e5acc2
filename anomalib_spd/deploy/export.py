"""Exports a detector by anomalib, in every format."""

import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from anomalib.deploy import ExportType
from anomalib.engine import Engine
from anomalib.models.components import AnomalibModule

from anomalib_spd.deploy.detector import backbone_names
from anomalib_spd.deploy.exportable import make_exportable
from anomalib_spd.deploy.int8 import Calibration, quantize
from anomalib_spd.files import one_line
from anomalib_spd.spelling import did_you_mean

#: format -> the packages that it needs
FORMATS = {
    "torch": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "openvino-int8": ("onnx", "onnxscript", "openvino", "nncf"),
}
SUFFIXES = {"torch": ".pt", "onnx": ".onnx", "openvino": ".xml", "openvino-int8": ".xml"}
#: the opset of torch's exporter, which fails to convert what it makes to anomalib's default; and one image at a time: what anomalib
#: exports for any number takes exactly two
_ONNX = {"opset_version": 18, "dynamic_axes": {"input": {2: "height", 3: "width"}}, "verbose": False}


def check_formats(formats: Sequence[str], detector: AnomalibModule | None = None) -> None:
    """Check that formats exist and that what they need is there.

    Args:
        formats: names, of :data:`FORMATS`.
        detector: that is to be exported.

    Raises:
        ValueError: a name is unknown or twice, or the detector has no backbone to quantize.
        ModuleNotFoundError: a package is missing.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"unknown format {name!r}{did_you_mean(name, FORMATS)}; there are: {', '.join(FORMATS)}")
    if not formats or len({*formats}) < len(formats):
        raise ValueError(f"give each format once, and at least one. Got: {', '.join(formats) or 'none'}")
    missing = dict.fromkeys(each for name in formats for each in FORMATS[name] if find_spec(each) is None)
    if missing:
        raise ModuleNotFoundError(f"{', '.join(missing)} is missing: pip install 'anomalib_spd[deploy]'")
    if detector is not None and "openvino-int8" in formats and not backbone_names(detector):
        raise ValueError(
            f"openvino-int8 quantizes the backbone, and {type(detector).__name__} reads none through anomalib's "
            "TimmFeatureExtractor: leave out this format"
        )


class Exporter:
    """Writes one detector in several formats into a folder, ``weights/FORMAT/`` each.

    Args:
        detector: that :func:`~anomalib_spd.deploy.detector.load` returned; it is changed.
        folder: to write into.
        scratch: folder for what the formats are made of.
    """

    def __init__(self, detector: AnomalibModule, folder: Path, scratch: Path) -> None:
        self.detector, self.folder, self.scratch = detector, folder, scratch
        self.engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=scratch)

    def export(self, name: str, calibration: Calibration = ()) -> Path:
        """Write the detector in a format.

        Args:
            name: of the format.
            calibration: normal images ``(1, 3, H, W)`` in [0, 1], for ``openvino-int8``.

        Returns:
            The file; further files are beside it.

        Raises:
            ValueError: anomalib cannot export the detector.
        """
        path = self.folder / "weights" / name / f"model{SUFFIXES[name]}"
        if name == "torch":
            make_exportable(self.detector, pickled=True)
            self._by_anomalib(ExportType.TORCH, self.folder)
        elif name == "onnx":
            shutil.copytree(self._onnx().parent, path.parent)
        elif name == "openvino":
            shutil.copytree(self._openvino().parent, path.parent)
        else:
            path.parent.mkdir(parents=True)
            quantize(self._openvino(), path, backbone_names(self.detector), calibration)
        return path

    def _onnx(self) -> Path:
        """Return the detector as ONNX, for an image of any size: one file serves all formats but the pickle."""
        path = self.scratch / "weights/onnx/model.onnx"
        if not path.is_file():
            make_exportable(self.detector, pickled=False)
            self._by_anomalib(ExportType.ONNX, self.scratch)
        return path

    def _openvino(self) -> Path:
        """Return the ONNX file converted, as anomalib's ``to_openvino`` does."""
        path = self.scratch / "weights/openvino/model.xml"
        if not path.is_file():
            import openvino

            openvino.save_model(openvino.convert_model(self._onnx()), path, compress_to_fp16=False)
        return path

    def _by_anomalib(self, export_type: ExportType, folder: Path) -> None:
        try:
            self.engine.export(self.detector, export_type, export_root=folder, onnx_kwargs=_ONNX)
        except Exception as error:  # torch's exporter has many, and says last what was the first
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise ValueError(
                f"anomalib cannot export {type(self.detector).__name__} as {export_type.value} ({type(cause).__name__}: "
                f"{one_line(cause)[:200]}): leave out --formats that are made of it"
            ) from error
