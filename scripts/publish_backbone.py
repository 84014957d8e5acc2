"""Publishes a backbone: writes its folder of the catalogue from a checkpoint of ``anomalib-spd pretrain``, or from a backbone's folder.

The weights are stored in half precision and without a classifier. Run it from the project's root; the text of the model card is
read from a file::

    python scripts/publish_backbone.py efficientnet_lite0_spd runs/supervised_spd/checkpoints/last.ckpt --card card.md ...
"""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from anomalib_spd.backbones.export import write_folder
from anomalib_spd.backbones.fitting import fit
from anomalib_spd.backbones.record import CATALOG_FOLDER
from anomalib_spd.backbones.sources import read_source
from anomalib_spd.files import sha256_of


def main() -> None:
    """Write the folder of the catalogue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the backbone; its folder in the catalogue is replaced if it exists")
    parser.add_argument("checkpoint", type=Path, help="Lightning checkpoint of this package, or exported folder")
    parser.add_argument("--card", type=Path, required=True, help="Markdown file: first paragraphs of the model card")
    parser.add_argument("--data", required=True, help="images that the weights were trained on, and their licence")
    parser.add_argument("--command", required=True, help="command line that made the checkpoint")
    parser.add_argument("--license", default="apache-2.0", help="SPDX identifier of the weights' licence")
    options = parser.parse_args()

    source = read_source(options.checkpoint)
    if source.network is None:
        parser.error(
            f"{options.checkpoint} does not name its network: give a checkpoint of anomalib-spd pretrain, or a backbone's folder"
        )
    model, _ = fit(source.tensors, source.network.architecture, **source.network.arguments)
    folder = CATALOG_FOLDER / options.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_folder(
        model,
        folder,
        options.name,
        source.network.architecture,
        replace(
            source.provenance,
            data=options.data,
            command=options.command,
            checkpoint=source.provenance.checkpoint or source.file.name,
            checkpoint_sha256=source.provenance.checkpoint_sha256 or sha256_of(source.file),
        ),
        model_args=source.network.model_args,
        license_id=options.license,
        description=options.card.read_text(encoding="utf-8").strip(),
        half=True,
    )


if __name__ == "__main__":
    main()
