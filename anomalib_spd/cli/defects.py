"""The command ``anomalib-spd defects``: draw defects on good images, to look at them."""

import json
import sys
from argparse import ArgumentError
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from jsonargparse import ArgumentParser
from PIL import Image

from anomalib_spd.benchmark.build import build
from anomalib_spd.cli.defects_options import PROGRAM, parser
from anomalib_spd.config_files import load_config_files
from anomalib_spd.data import SyntheticValidation
from anomalib_spd.data.ready import set_up
from anomalib_spd.detectors.defect_pictures import MOST, defect_grid, to_picture
from anomalib_spd.files import atomic_folder, one_line


def run(args: list[str]) -> int:
    """Run ``anomalib-spd defects ...``; return its exit status.

    Args:
        args: what follows ``anomalib-spd defects``.
    """
    options, others = parser().parse_known_args(args)
    given = [*(["--data", options.data] if options.data else []), *others]
    output: Path = options.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists already, and nothing is overwritten: give a new folder, or remove it")
    data = build(AnomalibDataModule, _config(options.config, given))
    validation = data if isinstance(data, SyntheticValidation) else SyntheticValidation(data)
    set_up(validation, 0)
    number = _write(validation, output)
    print(f"Drew {number} defects; {validation.val_data.rejected} more lay on the background and were drawn anew.")
    print(f"Look at them: {output / 'contact_sheet.png'}")
    return 0


def _config(files: list[str], given: list[str]) -> dict[str, Any]:
    """Return class and arguments of the data module."""
    data = load_config_files(files).get("data", {}) if files else {}
    parsed = ArgumentParser(PROGRAM, exit_on_error=False)
    parsed.add_subclass_arguments(AnomalibDataModule, "data", fail_untyped=False, required=True)
    try:
        namespace = parsed.parse_args([*([f"--data={json.dumps(data)}"] if data else []), *given])
    except ArgumentError as error:
        print(f"error: {one_line(error)} ('{PROGRAM} make --help' has all options)", file=sys.stderr)
        raise SystemExit(2) from None
    config: dict[str, Any] = json.loads(parsed.dump(namespace, format="json"))["data"]
    return config


def _write(validation: SyntheticValidation, output: Path) -> int:
    """Draw all defects into a folder; return their number."""
    data = validation.val_data
    defective = [index for index, label in enumerate(data.samples.label_index) if label]
    paths = [Path(data.samples.image_path[index]) for index in defective]
    unique = len({path.stem for path in paths}) == len(paths)
    pictured: list[tuple[str, Image.Image, Image.Image]] = []
    with atomic_folder(output) as folder:
        for part in ("images", "masks"):
            (folder / part).mkdir()
        for number, (index, path) in enumerate(zip(defective, paths, strict=True)):
            drawn = data.draw(index)
            name = f"{path.stem}.png" if unique else f"{number:04d}_{path.stem}.png"
            image, mask = to_picture(drawn.image), Image.fromarray(255 * drawn.mask.numpy())
            image.save(folder / "images" / name)
            mask.save(folder / "masks" / name)
            if len(pictured) < MOST:
                share = float(drawn.mask.float().mean())
                pictured.append((f"{name}  {drawn.defect}  {share:.2%} of the image", image, mask))
        title = " ".join(filter(None, ("Drawn defects:", validation.name, validation.category)))
        defect_grid(pictured, title).save(folder / "contact_sheet.png")
    return len(defective)
