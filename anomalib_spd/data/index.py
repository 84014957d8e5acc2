"""The names of very many images: listed once, kept in a few arrays, cached on disk."""

import logging
import os
import re
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from anomalib_spd.files import atomic_write, cache_folder, digest

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

_SUFFIXES = tuple(EXTENSIONS)

#: fewer images than that are listed in less time than a cache saves
CACHED_FROM = 10_000

#: part of the cache's key: raise it where the arrays, or what is listed, change
_FORMAT = 1

#: a time stamp may be as coarse as two seconds (FAT): of a younger one, the next change may not be seen
_SETTLED = 2.0


class Names:
    """Texts in one array: a million file names take tens of megabytes, as a list of ``str`` a hundred.

    Worker processes that are forked share the array; of a list they would copy every page that they read, since Python
    counts references inside the objects.

    Args:
        text: uint8, the bytes of all names, each followed by a zero.
    """

    def __init__(self, text: npt.NDArray[np.uint8]) -> None:
        self.text = text
        self._ends = np.flatnonzero(text == 0)

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """Pack names."""
        return cls(np.frombuffer(bytearray().join(os.fsencode(name) + b"\0" for name in names), np.uint8))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self.text.nbytes + self._ends.nbytes

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]  # IndexError, and negative numbers, as a list has them
        start = self._ends[index - 1] + 1 if index else 0
        return os.fsdecode(self.text[start : self._ends[index]].tobytes())

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """Image files with the numbers of their classes; a sequence of paths.

    Args:
        root: folder to which names are relative.
        names: of the files.
        labels: int32 ``(len(names),)``, each in ``[0, len(classes))``.
        classes: names in the order of their numbers.
    """

    root: Path
    names: Names
    labels: npt.NDArray[np.int32]
    classes: Names

    @classmethod
    def of(
        cls, root: Path | str, relative_to: Path | str | None = None, cache: Path | str | None = None
    ) -> "ImageIndex":
        """List the images of a folder, or take them from a text file.

        A folder's images are those below it, at any depth, in alphabetical order; links to folders are followed. A
        picture in a sub-folder has the first sub-folder's name as its class (``cat/deep/1.jpg``); one that lies in the
        folder itself, its own name up to the first underscore, which in ImageNet's file names is the class
        (``n01440764_10026.JPEG``). Classes are numbered in alphabetical order.

        A text file (UTF-8) has one path a line, and after a tab a class where there are classes. Its order is kept.
        Classes that are all whole numbers are numbered by value, others in alphabetical order. Without classes, a path
        has the class that it has in a folder; one that is not below ``relative_to``, its folder's name.

        From :data:`CACHED_FROM` images on, the list is cached, and read from the cache as long as no folder's, or the
        text file's, time of change and size have changed: this notices images that are added, removed and renamed, and
        no change of a picture's content, which is not in the list.

        Args:
            root: the folder or the text file.
            relative_to: folder to which a text file's paths are relative; by default its own.
            cache: folder of the cache; by default that of :func:`anomalib_spd.files.cache_folder`.

        Raises:
            FileNotFoundError: where ``root`` does not exist or holds no image, or a text file's first image does not
                exist.
            ValueError: where some lines of a text file have a class and others have none, or ``relative_to`` is given
                for a folder.
        """
        root = Path(root)
        if not root.exists():
            raise FileNotFoundError(f"The image folder or list {root} does not exist. {_ANOTHER}")
        if relative_to is not None and root.is_dir():
            raise ValueError(f"relative_to is for the paths of a text file, but {root} is a folder; leave it out")
        base = root if root.is_dir() else Path(relative_to or root.parent)
        key = f"{_FORMAT}\0{root.resolve()}\0{base.resolve()}"
        file = Path(cache or cache_folder("index")) / f"{digest(key)[:32]}.npz"
        arrays = _cached(file, root)
        if arrays is None:
            listing = _Listing()
            if root.is_dir():
                _list_folder(listing, str(root.resolve()))
            else:
                _list_file(listing, root, base)
            if not len(listing.labels):
                nothing = f"holds no image ({', '.join(sorted(EXTENSIONS))})" if root.is_dir() else "has no line"
                raise FileNotFoundError(f"The image folder or list {root} {nothing}. {_ANOTHER}")
            arrays = listing.arrays()
            if len(listing.labels) >= CACHED_FROM:
                _cache(file, arrays, root)
        index = cls(base, Names(arrays["names"]), arrays["labels"], Names(arrays["classes"]))
        if not root.is_dir() and not index[0].exists():
            raise FileNotFoundError(
                f"The first image of the list {root} does not exist: {index[0]}. "
                "Give the folder to which its paths are relative, with --data.init_args.relative_to."
            )
        return index

    @classmethod
    def of_files(cls, files: Iterable[Path | str]) -> "ImageIndex":
        """Take files as they are named, all of one class."""
        names = Names.of(str(file) for file in files)
        return cls(Path(), names, np.zeros(len(names), np.int32), Names.of(["images"]))

    def with_others(self, others: "ImageIndex") -> "ImageIndex":
        """Return these images and others behind them, which are of no class: their label is -1."""
        names = Names.of(str(path) for index in (self, others) for path in index)
        return ImageIndex(Path(), names, np.append(self.labels, np.full(len(others), -1, np.int32)), self.classes)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, bytes."""
        return self.names.nbytes + self.labels.nbytes + self.classes.nbytes

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:
        return self.root / self.names[index]

    def __iter__(self) -> Iterator[Path]:
        return (self[index] for index in range(len(self)))


_ANOTHER = "Give another with --data.root."


class _Listing:
    """A list that grows, in arrays from the start: objects for a million images would need several times their memory."""

    def __init__(self) -> None:
        self.names = bytearray()
        self.labels = array("i")
        self.numbers: dict[str, int] = {}
        self.by_value = False
        self.sources: list[str] = []
        self.stamps: list[tuple[int, int]] = []

    def add(self, name: str, class_name: str) -> None:
        self.names += os.fsencode(name) + b"\0"
        self.labels.append(self.numbers.setdefault(class_name, len(self.numbers)))

    def add_source(self, path: str) -> None:
        """Note a folder or file before it is read, so that a change while it is read is noticed the next time."""
        self.sources.append(path)
        self.stamps.append(_stamp(path))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        whole = self.by_value and all(re.fullmatch("[0-9]+", name) for name in self.numbers)
        classes = sorted(self.numbers, key=(lambda name: (int(name), name)) if whole else None)
        rank = np.empty(len(classes), np.int32)
        rank[[self.numbers[name] for name in classes]] = np.arange(len(classes))
        return {
            "names": np.frombuffer(self.names, np.uint8),
            "labels": rank[np.frombuffer(self.labels, np.int32)],
            "classes": Names.of(classes).text,
            "sources": Names.of(self.sources).text,
            "stamps": np.array(self.stamps, np.int64),
        }


def _list_folder(
    listing: _Listing, folder: str, prefix: str = "", top: str = "", above: tuple[tuple[int, int], ...] = ()
) -> None:
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder that it lies in
        return
    listing.add_source(folder)
    # names alone, not entries, which would take 300 bytes each
    names, folders = [], set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.add(entry.name)
                    names.append(entry.name)
                elif entry.name.lower().endswith(_SUFFIXES):
                    names.append(entry.name)
    except PermissionError as error:  # such as a disk's own lost+found
        logger.warning("The folder %s is left out: %s", folder, error)
    for name in sorted(names):
        if name in folders:
            _list_folder(listing, f"{folder}{os.sep}{name}", f"{prefix}{name}{os.sep}", top or name, (*above, here))
        else:
            listing.add(prefix + name, top or _own_class(name))


def _list_file(listing: _Listing, file: Path, base: Path) -> None:
    listing.by_value = True
    listing.add_source(str(file.resolve()))
    below = f"{base.absolute()}{os.sep}"
    labelled: bool | None = None
    with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            text, _, label = line.rstrip("\n").partition("\t")
            if not text.strip():
                continue
            label = label.strip()
            if labelled not in (None, bool(label)):
                raise ValueError(
                    f"Line {number} of {file} has {'a' if label else 'no'} class after a tab, unlike those before it: "
                    f"{line.strip()!r}. Give all lines a class, or none."
                )
            labelled = bool(label)
            name = os.path.normpath(text).removeprefix(below)
            listing.add(name, label or _class_of(name))


def _class_of(name: str) -> str:
    folder, _, own = name.rpartition(os.sep)
    if not folder:
        return _own_class(own)
    first = name.partition(os.sep)[0]
    is_outside = first in ("", os.pardir) or first.endswith(":")  # /, .. or C:
    return folder.rpartition(os.sep)[2] if is_outside else first


def _own_class(name: str) -> str:
    return (name.rpartition(".")[0] or name).split("_")[0]


def _stamp(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


def _cached(file: Path, root: Path) -> dict[str, npt.NDArray[Any]] | None:
    """Read the arrays, or return None where they are not cached, no longer true, or damaged."""
    if not file.exists():
        return None
    try:
        # zip checks each array's sum: damage is noticed
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in ("names", "labels", "classes", "sources", "stamps")}
    except Exception as error:  # whatever is wrong with the file, the list can be made anew
        logger.warning("The cached list of %s, %s, cannot be read (%s); it is made anew.", root, file, error)
        return None
    for path, stamp in zip(Names(arrays["sources"]), arrays["stamps"].tolist(), strict=True):
        if not Path(path).exists() or _stamp(path) != tuple(stamp):
            logger.info("The list of %s is made anew, since %s has changed.", root, path)
            return None
    return arrays


def _cache(file: Path, arrays: dict[str, Any], root: Path) -> None:
    if time.time() - arrays["stamps"][:, 0].max() / 1e9 < _SETTLED:
        logger.info("The list of %s is not cached: it has changed this moment, and may go on to.", root)
        return
    try:
        with atomic_write(file) as content:
            np.savez(content, **arrays)
    except OSError as error:
        logger.warning("The list of %s cannot be cached (%s); it is made anew at each start.", root, error)
