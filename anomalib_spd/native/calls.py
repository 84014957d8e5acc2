"""Where the extension in C serves: whole batches of float32 in a CPU's memory, many times faster than torch's indexing.

Elsewhere (on GPUs, in other dtypes, under autograd and ``torch.compile``, and where the package was installed without a
C compiler) the transforms do the same by torch.
"""

import ctypes
import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_extension: ModuleType | None
try:
    _extension = importlib.import_module("._extension", __package__)
except ImportError:
    _extension = None

#: an array, or none, or a number
Argument = Tensor | int | None


def serves(*tensors: Tensor, dtype: torch.dtype = torch.float32) -> bool:
    """Return whether the extension can work on these: of a dtype, contiguous, on a CPU, none to be differentiated."""
    if _extension is None or torch.compiler.is_compiling():
        return False
    return all(
        # no subclass: their memory, if they have any, is not theirs alone to read
        type(each) is Tensor
        and each.dtype == dtype
        and each.device.type == "cpu"
        and each.is_contiguous()
        and not (each.requires_grad and torch.is_grad_enabled())
        for each in tensors
    )


@contextmanager
def switched_off() -> Iterator[None]:
    """Let torch do everything for a while, to compare."""
    global _extension
    kept, _extension = _extension, None
    try:
        yield
    finally:
        _extension = kept


def call(name: str, *arguments: Argument) -> int:
    """Call a function of the extension, and return how many images of the batch it could not serve.

    In one thread: memory bounds it, and a second one of Python's was slower, beside torch's own that wait in a loop.

    Args:
        name: of the function.
        *arguments: tensors, contiguous; ``None`` for no array; whole numbers.

    Raises:
        MemoryError: where memory is short.
    """
    refused: int = _function(name)(*(_passed(each) for each in arguments))
    if refused < 0:
        msg = f"Memory is short for {name}."
        raise MemoryError(msg)
    return refused


@functools.cache
def _function(name: str) -> Any:
    assert _extension is not None, "ask `serves` first"
    # without a binding of Python's: ctypes passes addresses, and lets go of Python's lock meanwhile
    function = ctypes.CDLL(_extension.__file__)[name]
    function.restype = ctypes.c_int64
    return function


def _passed(argument: Argument) -> ctypes.c_int64 | ctypes.c_void_p:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())
