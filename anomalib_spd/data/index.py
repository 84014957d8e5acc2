"""Lists of image files with their classes, as NumPy arrays."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from anomalib_spd.files import first_few, is_system_entry

logger = logging.getLogger(__name__)

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """Image files with the numbers of their classes; a sequence of paths.

    Names are bytes in one array: a million take tens of megabytes, and forked worker processes share them. They would copy the
    pages of a list of ``str`` that they read, since Python counts references inside the objects.

    Args:
        root: folder to which names are relative.
        names: bytes ``(N,)``, paths in the file system's encoding.
        labels: int32 ``(N,)``, each in ``[0, len(classes))``, or -1 for images without a class.
        classes: names in the order of their numbers.
    """

    root: Path
    names: npt.NDArray[np.bytes_]
    labels: npt.NDArray[np.int32]
    classes: list[str]

    @classmethod
    def of(cls, root: Path | str, relative_to: Path | str | None = None, option: str = "--data.root") -> "ImageIndex":
        """List the images of a folder, or read a text file.

        A folder's images are those below it, at any depth, in alphabetical order; links to folders are followed. Hidden entries
        and those of systems, such as ``.ipynb_checkpoints`` and ``__MACOSX``, are skipped, which is logged once. The class
        of an image is the name of the first sub-folder (``cat/deep/1.jpg``) or, directly in the folder, the file's name up to
        the first underscore, as in ImageNet (``n01440764_10026.JPEG``). Classes are numbered in alphabetical order.

        A text file (UTF-8) has one path per line, and after a tab a class where there are classes. Its order stays. Classes
        that are all whole numbers are numbered by value, others in alphabetical order. Without classes, a path has the
        class that it has in a folder; one outside of ``relative_to`` has the name of its own folder. On a slow file system a
        text file is also the faster one: a folder is listed at each start.

        Args:
            root: the folder or the text file.
            relative_to: folder to which a text file's paths are relative; by default its own.
            option: that gives ``root``, for messages.

        Raises:
            FileNotFoundError: if ``root`` does not exist or holds no image, or a text file's first image does not exist.
            ValueError: if some lines of a text file have a class and others have none, or ``relative_to`` is given for a
                folder.
        """
        check_exists(root := Path(root), option)
        if relative_to is not None and root.is_dir():
            raise ValueError(f"relative_to is for the paths of a text file, but {root} is a folder; leave it out")
        base = root if root.is_dir() else Path(relative_to or root.parent)
        if root.is_dir():
            skipped: list[str] = []
            names = list(_walk(str(root), skipped))
            log_skipped(root, skipped)
            labels, classes = _number((_class_of(name) for name in names), by_value=False)
        else:
            names, class_names = _read_list(root, base)
            labels, classes = _number(class_names, by_value=True)
        if not names:
            nothing = f"holds no image ({', '.join(EXTENSIONS)})" if root.is_dir() else "has no line"
            raise FileNotFoundError(f"The image folder or list {root} {nothing}. {_ANOTHER.format(option)}")
        index = cls(base, _encode(names), labels, classes)
        if not root.is_dir() and not index[0].exists():
            raise FileNotFoundError(
                f"The first image of the list {root} does not exist: {index[0]}. "
                "Give the folder to which its paths are relative, with --data.init_args.relative_to."
            )
        return index

    @classmethod
    def of_files(cls, files: Iterable[Path | str], labels: Sequence[int] | None = None) -> "ImageIndex":
        """Return an index of these files, of the classes with these numbers, by default all of one."""
        names = _encode(str(file) for file in files)
        numbers = np.zeros(len(names), np.int32) if labels is None else np.asarray(labels, np.int32)
        return cls(Path(), names, numbers, [str(number) for number in range(numbers.max(initial=0) + 1)])

    def with_background(self, others: "ImageIndex") -> "ImageIndex":
        """Return these images followed by others, whose label is -1."""
        names = _encode(str(path) for index in (self, others) for path in index)
        return ImageIndex(Path(), names, np.append(self.labels, np.full(len(others), -1, np.int32)), self.classes)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:
        return self.root / os.fsdecode(self.names[index])

    def __iter__(self) -> Iterator[Path]:
        return (self[index] for index in range(len(self)))


_ANOTHER = "Give another with {}."
#: that gives the images to replay, for messages
REPLAY_OPTION = "--data.replay_images"


def check_exists(root: Path, option: str) -> None:
    """Check that a folder of images, or a list, exists.

    Args:
        root: the folder or the text file.
        option: that gives it, for the message.

    Raises:
        FileNotFoundError: if it does not.
    """
    if not root.exists():
        raise FileNotFoundError(f"The image folder or list {root} does not exist. {_ANOTHER.format(option)}")


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder in alphabetical order, without hidden ones and those of systems, which are logged."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    hidden = [path.name for path in entries if is_system_entry(path.name)]
    log_skipped(folder, [name for name in hidden if _is_content(name, (folder / name).is_dir())])
    return [path for path in entries if not is_system_entry(path.name)]


def log_skipped(folder: Path, skipped: list[str]) -> None:
    """Log the hidden entries of a folder, and those of systems, that are skipped."""
    if skipped:
        logger.warning("%d hidden or system entries in %s are skipped: %s", len(skipped), folder, first_few(skipped))


def _is_content(name: str, is_folder: bool) -> bool:
    return is_folder or name.lower().endswith(EXTENSIONS)


def _walk(folder: str, skipped: list[str], above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yield the images below a folder, relative to it, in alphabetical order of their parts; collect what is skipped."""
    try:
        status = Path(folder).stat()
        with os.scandir(folder) as entries:
            content = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except PermissionError as error:  # such as a folder of another user
        logger.warning("The folder %s is left out: %s", folder, error)
        return
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder that it lies in
        return
    for name, is_folder in content:
        if not _is_content(name, is_folder):
            continue
        if is_system_entry(name):
            skipped.append(f"{folder}{os.sep}{name}")
        elif is_folder:
            below = _walk(f"{folder}{os.sep}{name}", skipped, (*above, here))
            yield from (f"{name}{os.sep}{each}" for each in below)
        else:
            yield name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or one whose target cannot be seen
        return False


def _read_list(file: Path, base: Path) -> tuple[list[str], list[str]]:
    """Return the paths, relative to ``base`` where they lie below it, and their classes."""
    names, classes, below = list[str](), list[str](), f"{base.absolute()}{os.sep}"
    labelled: bool | None = None
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            path, _, label = line.rstrip("\n").partition("\t")
            if not path.strip():
                continue
            label = label.strip()
            if labelled not in (None, bool(label)):
                raise ValueError(
                    f"Line {number} of {file} has {'a' if label else 'no'} class after a tab, unlike those before it: "
                    f"{line.strip()!r}. Give all lines a class, or none."
                )
            labelled = bool(label)
            names.append(os.path.normpath(path).removeprefix(below))
            classes.append(label or _class_of(names[-1]))
    return names, classes


def _class_of(name: str) -> str:
    folder, _, own = name.rpartition(os.sep)
    if not folder:
        return (own.rpartition(".")[0] or own).split("_")[0]
    first = name.partition(os.sep)[0]
    is_outside = first in ("", os.pardir) or first.endswith(":")  # /, .. or C:
    return folder.rpartition(os.sep)[2] if is_outside else first


def _number(class_names: Iterable[str], by_value: bool) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the number of each image's class, int32, and the names of the classes in the order of their numbers."""
    found, labels = np.unique(_encode(class_names), return_inverse=True)
    classes = [os.fsdecode(name) for name in found]
    if by_value and all(name.isascii() and name.isdigit() for name in classes):
        order = sorted(range(len(classes)), key=lambda number: (int(classes[number]), classes[number]))
        labels, classes = np.argsort(order)[labels], [classes[number] for number in order]
    return labels.astype(np.int32), classes


def _encode(names: Iterable[str]) -> npt.NDArray[np.bytes_]:
    return np.array([os.fsencode(name) for name in names], np.bytes_)
