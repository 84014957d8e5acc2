"""Makes anomalib's data modules ready: checked, downloaded, split alike each time, and told apart by their files."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule
from anomalib.data.utils.synthetic import SyntheticAnomalyDataset
from lightning.pytorch import seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image

from anomalib_spd.files import content_digests, digest, first_few
from anomalib_spd.spelling import did_you_mean

#: how the message of a missing folder begins
FOLDER = "The folder of images"


def set_up(data: AnomalibDataModule, seed: int) -> None:
    """Prepare a data module and set it up, once for all later calls of a trainer.

    What it draws, such as a test set that is taken from the training images, depends on the seed and not on what else has
    drawn before. The random generators are left as they were.

    Args:
        data: the data module.
        seed: of the draw.

    Raises:
        ValueError: see :func:`prepare`; data modules raise their own errors.
    """
    with isolate_rng():
        seed_everything(seed, workers=True, verbose=False)
        prepare(data)
        data.setup(TrainerFn.FITTING)  # a trainer's stage: with another, anomalib would draw again in each call


@contextmanager
def listing(data: AnomalibDataModule) -> Iterator[None]:
    """While a data module lists its images, say in one line what it lacks.

    Args:
        data: the data module.

    Raises:
        ValueError: in place of anomalib's error of a folder without images, and of pandas' of defective images without masks.
    """
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"{data.name}: {error}") from error
    except ValueError as error:
        raise ValueError(
            f"{data.name} cannot list its images: {error}. Where defective images have no masks, anomalib.data.Folder reads them"
        ) from error


def prepare(data: AnomalibDataModule) -> None:
    """Prepare a data module's files: some download them into their folder if they are missing.

    Args:
        data: the data module.

    Raises:
        ValueError: its data set has no such category.
        OSError: the files are missing and cannot be downloaded, or the folder to download into does not exist.
    """
    check_root(data)
    try:
        data.prepare_data()
    except OSError as error:
        what = " ".join(filter(None, (type(data).__name__, data.category)))
        raise OSError(
            f"{what}: not all of it is in {getattr(data, 'root', None)}, and it could not be prepared ({error}): give the "
            "folder of the data set as root"
        ) from error


def check_root(data: AnomalibDataModule) -> None:
    """Look whether the folder of a data set is there, and has the category; nothing is prepared.

    A module that could download its data set does so into a folder that exists, if an empty one: a name that was left as
    it is, or misspelt, starts no download of gigabytes.

    Args:
        data: the data module.

    Raises:
        ValueError: its data set has no such category.
        FileNotFoundError: the folder does not exist.
    """
    inner = _innermost(data)
    check_category(inner)
    if (folder := missing_folder(inner)) and folder == Path(inner.root):
        option = "--data.root" if inner is data else "--data.datamodule.init_args.root"
        raise FileNotFoundError(
            f"{FOLDER} {folder} does not exist. Give another with {option}, or make it, empty, to have "
            f"{type(inner).__name__} downloaded into it."
        )


def missing_folder(data: AnomalibDataModule) -> Path | None:
    """Return the folder that is missing of what a data module would download; None where all is there, or it downloads nothing.

    Args:
        data: the data module.
    """
    inner = _innermost(data)
    # anomalib's modules have this beside them; those that make images, or take them as they are, have not
    if not hasattr(sys.modules[_preparing_class(inner).__module__], "DOWNLOAD_INFO"):
        return None
    root = Path(inner.root)
    if not root.is_dir():
        return root
    return None if not inner.category or _has_folder(root, inner.category) else root / inner.category


def prepares_files(data: AnomalibDataModule) -> bool:
    """Return whether a data module downloads, converts or makes files before it lists them."""
    return not _preparing_class(_innermost(data)).__module__.startswith("lightning.")


def _preparing_class(data: AnomalibDataModule) -> type:
    return next(each for each in type(data).__mro__ if "prepare_data" in vars(each))


def _innermost(data: AnomalibDataModule) -> Any:
    """Return the data module that lists the images: itself, or the one that it wraps."""
    inner = getattr(data, "datamodule", None)
    return _innermost(inner) if isinstance(inner, AnomalibDataModule) else data


def _has_folder(root: Path, category: str) -> bool:
    folder = glob.escape(category)
    return any(path.is_dir() for form in (folder, f"*/{folder}") for path in root.glob(form))


def check_category(data: AnomalibDataModule) -> None:
    """Check that a data set has the category of a data module, where anomalib lists its categories.

    A category of another name may have a folder in the data set's.

    Args:
        data: the data module.

    Raises:
        ValueError: it has not.
    """
    known, root = categories_of(type(data)), getattr(data, "root", None)
    if not known or root is None or data.category in known:
        return
    if data.category and _has_folder(Path(root), data.category):
        return
    raise ValueError(
        f"{type(data).__name__} has no category {data.category!r}{did_you_mean(data.category, known)}; it has: "
        f"{', '.join(known)}"
    )


def categories_of(module: type[AnomalibDataModule]) -> Sequence[str]:
    """Return the categories that anomalib lists for its own class of a data module; empty for others, which may have more."""
    if not module.__module__.startswith("anomalib.data.datamodules."):
        return ()
    datasets = module.__module__.replace(".datamodules.", ".datasets.")
    return tuple(getattr(import_module(datasets), "CATEGORIES", ())) if find_spec(datasets) else ()


@contextmanager
def naming_unreadable(data: AnomalibDataModule) -> Iterator[None]:
    """Name the files that cannot be read as images, if what is done in the block with the data module fails.

    Args:
        data: the data module, set up.

    Raises:
        OSError: with the names; where all can be read, the block's own error.
    """
    try:
        yield
    except Exception as error:
        files = dict.fromkeys(path for *_, files, _ in _rows(data) for path in files)
        if bad := [str(path) for path in files if not _is_readable(path)]:
            raise OSError(
                f"{len(bad)} of {len(files)} files cannot be read as images: {first_few(bad)}; replace or remove them"
            ) from error
        raise


def _is_readable(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # Pillow raises nearly anything for damaged files
        return False
    return True


def fingerprint(data: AnomalibDataModule) -> str:
    """Return a SHA-256 of the training, validation and test images: split, label, name, content with that of the mask, and what is drawn.

    A split file counts by the splits that it makes. The folder of the data set and the order of its images do not matter.

    Args:
        data: the data module, set up.

    Raises:
        OSError: a file is missing or cannot be read; the message names it.
    """
    rows = _rows(data)
    digests = content_digests(path for *_, files, _ in rows for path in files)
    folders = [image.parent for *_, image, _, drawn in rows if not (drawn and image.is_relative_to(drawn))]
    root = os.path.commonpath(folders) if folders else None

    def line(split: str, label: int, image: Path, files: list[Path], drawn: Path | None) -> str:
        name = image.relative_to(drawn if drawn and image.is_relative_to(drawn) else root or "")
        return " ".join([split, str(label), *(digests[path] for path in files), name.as_posix()])

    # what is drawn on images when they are read is in no file
    recipes = [part.recipe for part in _parts(data).values() if hasattr(part, "recipe")]
    return digest("\n".join([*sorted(line(*row) for row in rows), *recipes]))


def _rows(data: AnomalibDataModule) -> list[tuple[str, int, Path, list[Path], Path | None]]:
    """Return split, label, image, files (of image, mask, depth) and, of synthetic images, folder of all samples."""
    rows = []
    for split, part in _parts(data).items():
        # synthetic anomalies are in a folder whose name is drawn
        drawn = part.root if isinstance(part, SyntheticAnomalyDataset) else None
        columns = [name for name in part.samples if name.endswith("_path")]  # of image, mask, depth
        for image, label, *paths in part.samples[["image_path", "label_index", *columns]].itertuples(index=False):
            files = [Path(path) for path in paths if isinstance(path, str) and path]
            rows.append((split, int(label), Path(image), files, drawn))
    return rows


def _parts(data: AnomalibDataModule) -> dict[str, Any]:
    """Return the data sets by their splits."""
    return {
        split: getattr(data, f"{split}_data") for split in ("train", "val", "test") if hasattr(data, f"{split}_data")
    }
