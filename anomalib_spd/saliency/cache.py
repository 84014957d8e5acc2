"""LayerCAM maps on disk: each image is computed once for all processes and epochs."""

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

# part of every key; increment it when LayerCAM computes different maps from the same input
_VERSION = "1"


class SaliencyCache:
    """A folder of LayerCAM maps, each in a file named by a digest of everything that it depends on.

    That is the image's bytes, shape and dtype, the model's structure, parameters and buffers, the layers and the
    target. So several models may share a folder, and many processes may use it at once: files are written atomically.
    Nothing is removed. Files that start with a dot were left by killed processes, and may be deleted while no process
    writes.

    Maps are stored in half precision (safetensors with a checksum, one file an image), and new ones are rounded to it
    too, so that the first call returns the same values as later ones. A damaged file is computed again and replaced; its
    last bits may differ, as they depend on the other images of the batch.

    Source: ours.

    Args:
        folder: is made when the first maps are written.
        cam: computes missing maps. The weights of its model are read once, here, and must not change afterwards.
        target: the explained logit, see ``Target``; one rule for all images.

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
        origin = (_VERSION, _fingerprint(cam.model), cam.layers, target)
        self._origin = repr(origin).encode()
        self._has_warned = False

    def __call__(self, images: Tensor) -> Tensor:
        """Return the maps of a batch; missing ones are computed in one batch and stored.

        Args:
            images: as :class:`LayerCAM` takes them, ``(B, C, H, W)``.

        Returns:
            float32 ``(B, L, H, W)`` in ``[0, 1]`` with the precision of float16, on the device of the images.

        Raises:
            ValueError: as :class:`LayerCAM`.

        Warns:
            UserWarning: for a damaged file, or (once) a folder that cannot be written to; maps are returned anyway.
        """
        keys = [self._key(image) for image in images.detach().cpu()]
        maps = torch.empty(len(images), len(self.cam.layers), *images.shape[-2:], dtype=torch.float16)
        # a repeated image is computed once
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
        """Copy stored maps into ``out``, float16 ``(L, H, W)``; return whether there were any."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return False
        try:
            stored = load(content)
            maps = stored["maps"]
            if maps.dtype == out.dtype and maps.shape == out.shape and _checksum(maps).equal(stored["check_sum"]):
                out.copy_(maps)
                return True
            reason = "its maps are of another shape or dtype, or do not match their checksum"
        except (SafetensorError, KeyError) as error:
            reason = repr(error)
        warnings.warn(f"The saliency maps in {path} are damaged and computed again: {reason}", stacklevel=3)
        return False

    def _write(self, key: str, maps: Tensor) -> None:
        try:
            # no sync, which is slow for one file an image: the checksum detects damage by a crash of the machine
            with atomic_write(self._path(key), sync=False) as file:
                file.write(save({"maps": maps, "check_sum": _checksum(maps)}))
        except OSError as error:
            if not self._has_warned:
                warnings.warn(f"Saliency maps cannot be stored in {self.folder}: {error}", stacklevel=3)
            self._has_warned = True


def _fingerprint(model: nn.Module) -> str:
    """Return the sha256 of a model's structure, parameters and buffers."""
    # only the structure shows layers without parameters (pooling, activations, strides)
    parts: list[str | memoryview] = [repr(model)]
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}", _bytes(tensor.detach().cpu())]
    return digest(*parts)


def _bytes(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU in row-major order; bfloat16, too, unlike NumPy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _checksum(maps: Tensor) -> Tensor:
    """Return the CRC-32 of maps, int64 ``(1,)``; it detects holes that a crash of the machine left in a file."""
    return torch.tensor([zlib.crc32(_bytes(maps))])
