"""Maps of a classifier on disk: a picture is looked at once, whatever process asks, in whatever epoch."""

import itertools
import warnings
import zlib
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from anomalib_spd.files import atomic_write, digest
from anomalib_spd.saliency.layer_cam import LayerCAM, TopK

# part of every key: to be counted up when LayerCAM computes other maps from the same
_EDITION = "1"


class SaliencyCache:
    """LayerCAM maps kept in a folder, under a name made of all that they depend on.

    That is the image's bytes, shape and dtype, the model's structure, parameters and buffers, the layers and the
    target. Maps of anything else are missed, never taken for one's own, so several models may share a folder, and many
    processes may use it at once: a file takes its name only when it is whole. Nothing is ever removed. Files that start
    with a dot were left by killed writers, and may be deleted while no process writes.

    Maps are stored in half precision (safetensors with a check sum, one file an image), and rounded to it also when they
    are fresh: the same values are returned cold and warm. What cannot be read is computed again and replaced; its last
    bits may then be others, as they depend on the company in which an image is computed.

    Source: ours.

    Args:
        folder: is made when the first maps are written.
        cam: computes what is missing. The weights of its model are read here, once: they must not change afterwards.
        target: whose logit is explained, see ``Target``; one rule for all images.

    Examples:
        >>> import tempfile, timm, anomalib_spd
        >>> classifier = timm.create_model("efficientnet_lite0_in1k", pretrained=True)
        >>> cache = SaliencyCache(tempfile.mkdtemp(), LayerCAM(classifier, ["blocks.2", "blocks.4"]))
        >>> images = torch.randn(2, 3, 64, 64)
        >>> bool((cache(images) == cache(images)).all())
        True
    """

    def __init__(self, folder: Path | str, cam: LayerCAM, target: Literal["argmax"] | int | TopK = "argmax") -> None:
        self.folder = Path(folder)
        self.cam = cam
        self.target = target
        origin = (_EDITION, _fingerprint(cam.model), cam.layers, target)
        self._origin = repr(origin).encode()
        self._has_warned = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return the maps of a batch; those that are not in the folder are computed in one go and put there.

        Args:
            images: as :class:`LayerCAM` takes them, ``(B, C, H, W)``.

        Returns:
            float32 ``(B, L, H, W)`` in ``[0, 1]`` with the precision of float16, on the device of the images.

        Raises:
            ValueError: those of :class:`LayerCAM`.

        Warns:
            UserWarning: a file is damaged (it is named), or the folder cannot be written to (once; maps are returned
                all the same).
        """
        keys = [self._key(image) for image in images.detach().cpu()]
        maps = torch.empty(len(images), len(self.cam.layers), *images.shape[-2:], dtype=torch.float16)
        # an image that is twice in the batch is computed once
        missing = {key: index for index, key in enumerate(keys) if not self._read(key, maps[index])}
        if missing:
            fresh = self.cam(images[list(missing.values())], self.target).half().cpu()
            computed = dict(zip(missing, fresh, strict=True))
            for index, key in enumerate(keys):
                if key in computed:
                    maps[index] = computed[key]
            for key, one in computed.items():
                self._write(key, one)
        return maps.to(images.device).float()

    def _key(self, image: Tensor) -> str:
        return digest(self._origin, f"{image.dtype} {tuple(image.shape)}", _bytes(image))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str, out: Tensor) -> bool:
        """Copy stored maps into ``out``, float16 ``(L, H, W)``; tells whether there were any."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return False
        try:
            stored = load(content)
            maps = stored["maps"]
            if maps.dtype == out.dtype and maps.shape == out.shape and _check_sum(maps).equal(stored["check_sum"]):
                out.copy_(maps)
                return True
            reason = "its maps are of another shape or dtype, or do not fit their check sum"
        except (SafetensorError, KeyError) as error:
            reason = repr(error)
        warnings.warn(f"The saliency maps in {path} are damaged and computed again: {reason}", stacklevel=3)
        return False

    def _write(self, key: str, maps: Tensor) -> None:
        try:
            # no sync, which takes long for one file an image: the check sum finds what a crash of the machine has left
            with atomic_write(self._path(key), sync=False) as file:
                file.write(save({"maps": maps, "check_sum": _check_sum(maps)}))
        except OSError as error:
            if not self._has_warned:
                warnings.warn(f"Saliency maps cannot be kept in {self.folder}: {error}", stacklevel=3)
            self._has_warned = True


def _fingerprint(model: nn.Module) -> str:
    """Return the sha256 of a model's structure, parameters and buffers."""
    # the structure, as layers without parameters (pooling, activations, strides) are told by it alone
    parts: list[str | memoryview] = [repr(model)]
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}", _bytes(tensor.detach().cpu())]
    return digest(*parts)


def _bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, row by row however it lies in memory; bfloat16, too, unlike NumPy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _check_sum(maps: Tensor) -> Tensor:
    """Return the CRC-32 of maps, int64 ``(1,)``; a crash of the machine may leave holes in a file."""
    return torch.tensor([zlib.crc32(_bytes(maps))])
