"""The runtimes of exported detectors, each as a function of an image.

As a program, it scores one image in a process that imports nothing but the runtime, and prints the process's peak memory:

    python -P runtimes.py FORMAT FILE HEIGHT WIDTH
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: what anomalib names the outputs of its detectors
OUTPUTS = ("pred_score", "pred_label", "anomaly_map", "pred_mask")
#: images ``(B, 3, H, W)``, float32 in [0, 1] -> ``pred_score``, ``anomaly_map``, and so on, those that the detector has
Scorer = Callable[[NDArray[np.float32]], dict[str, NDArray[Any]]]


def scorer(name: str, path: Path, threads: int) -> Scorer:
    """Return an exported detector.

    Args:
        name: of the format.
        path: of the file.
        threads: of the CPU, that it computes with.
    """
    return {"torch": _torch, "onnx": _onnx}.get(name, _openvino)(path, threads)


def _torch(path: Path, threads: int) -> Scorer:
    import torch

    torch.set_num_threads(threads)
    # anomalib exports a pickle; this one was written by this program
    model = torch.load(path, map_location="cpu", weights_only=False)["model"].eval()

    @torch.inference_mode()
    def score(images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        found = model(torch.from_numpy(images))._asdict()
        return {name: each.numpy() for name, each in found.items() if each is not None}

    return score


def _onnx(path: Path, threads: int) -> Scorer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # idle threads that spin would slow what runs in turns with them
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def score(images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(None, {"input": images}), strict=True))

    return score


def _openvino(path: Path, threads: int) -> Scorer:
    import openvino

    # without the hint, OpenVINO computes in bfloat16 on processors that can
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    model = openvino.Core().compile_model(path, "CPU", options)
    # an output may have names of the operations behind it, too
    names = [name for each in model.outputs for name in each.names if name in OUTPUTS]

    def score(images: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        found = model(images)
        # the arrays are views into the runtime's memory
        return {name: found[name].copy() for name in names}

    return score


def usable_threads() -> int:
    """Return the number of the processor's threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """Return the most memory that this process has had, bytes."""
    with suppress(OSError, IndexError):
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    name, path, height, width = sys.argv[1:]
    score = scorer(name, Path(path), usable_threads())
    for _ in range(3):
        score(np.random.default_rng(0).random((1, 3, int(height), int(width)), dtype=np.float32))
    print(peak_memory())
