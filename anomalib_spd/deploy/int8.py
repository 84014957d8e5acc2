"""Quantizes the backbone of an exported detector to 8 bits; distances, maps and scores stay in float."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Calibration(Protocol):
    """Normal images ``(1, 3, H, W)`` in [0, 1], and their number."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[NDArray[np.float32]]: ...


_LAYERS = {"Convolution", "GroupConvolution", "MatMul"}
#: layers of a backbone that stay in float: they see pixels, whose errors all others inherit. In 8 bits, bottle's maps are off by 0.09 on
#: average, without the first by 0.03, without two by 0.01, without six by 0.004, which costs 2 to 6 % of the images/s;
#: of a small network at most a third
_FIRST = 6


def quantize(source: Path, path: Path, backbones: Sequence[str], calibration: Calibration) -> None:
    """Write a detector whose backbone computes in 8 bits.

    NNCF chooses the ranges of activations by normal images: the maps of defects are to stand out, and shall not widen the ranges.
    (anomalib calibrates on validation images, which hold defects, and are often the test images.) Each channel of a layer's weights
    has its own scale. The first layers, and what stands before them and behind the feature maps, stay as they are: a distance is a small
    difference of large numbers.

    Args:
        source: ``model.xml`` in float.
        path: of the file to write; its folder exists.
        backbones: names of the modules to quantize, as their weights' names begin.
        calibration: normal images ``(1, 3, H, W)``, in [0, 1].

    Raises:
        ValueError: the file holds no weights of these names.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on a machine without CUDA
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(source)
    per_channel = nncf.quantization.advanced_parameters.QuantizationParameters(per_channel=True)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(calibration),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=_outside(model, backbones), validate=False),
        advanced_parameters=nncf.AdvancedQuantizationParameters(weights_quantization_params=per_channel),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def _outside(model: Any, backbones: Sequence[str]) -> list[str]:
    """Return the names of the operations that stay in float."""
    operations = {each.get_friendly_name(): each for each in model.get_ordered_ops()}
    prefixes = tuple(f"{name}." for name in backbones)
    weights = [name for name in operations if name.startswith(prefixes)]
    if not weights:
        raise ValueError(f"the exported detector holds no weights of {', '.join(backbones)}")
    # a weight may be reshaped before its layer reads it
    last = {
        name for name in _reached(weights, operations, _outputs, stop=_LAYERS) if _type_of(operations[name]) in _LAYERS
    }
    # some weights lose their names in the conversion: all layers up to the last that has its own are the backbone's
    up_to = _reached(last, operations, _inputs)
    layers = [name for name in operations if name in up_to and _has_weights(name, operations)]
    inside = up_to & _reached(layers, operations, _outputs) - {*layers[: min(_FIRST, len(layers) // 3)]}
    constant = {"Constant", "Parameter", "Result"}
    return [name for name, each in operations.items() if name not in inside and _type_of(each) not in constant]


def _reached(
    names: Iterable[str], operations: dict[str, Any], ways: Callable[[Any], list[Any]], stop: Iterable[str] = ()
) -> set[str]:
    """Return the names of all that is reached from some operations, these too; what is in ``stop`` is not gone through."""
    found: set[str] = set()
    left = [*names]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            if _type_of(operations[name]) not in stop:
                left += [each.get_friendly_name() for each in ways(operations[name])]
    return found


def _has_weights(name: str, operations: dict[str, Any]) -> bool:
    """Return whether an operation is a layer whose second factor is of constants: resizing and attention have products of maps."""
    if _type_of(operations[name]) not in _LAYERS:
        return False
    factor = operations[name].input_value(1).get_node().get_friendly_name()
    return all(_type_of(operations[each]) != "Parameter" for each in _reached([factor], operations, _inputs))


def _type_of(node: Any) -> str:
    return str(node.get_type_name())


def _inputs(node: Any) -> list[Any]:
    return [each.get_source_output().get_node() for each in node.inputs()]


def _outputs(node: Any) -> list[Any]:
    return [target.get_node() for each in node.outputs() for target in each.get_target_inputs()]
