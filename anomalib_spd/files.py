"""Files: atomic writes, digests, and the folders that belong to the user."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import platformdirs

HOME_VARIABLE = "ANOMALIB_SPD_HOME"

# the disk, a quota, or what a process may write is used up
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# what systems and programs put into folders beside the user's files; most other names of theirs begin with a dot
_SYSTEM_ENTRIES = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "lost+found"),
}


@contextmanager
def atomic_write(path: Path, *, sync: bool = True, remove_stale: bool = False) -> Iterator[BinaryIO]:
    """Open a file beside ``path`` that replaces it in one step when the block ends without an error.

    Until then, and after an error, ``path`` is as it was. Parent folders are made.

    Args:
        path: the file to write.
        sync: write the content to the disk before the file takes its name, so that it survives a crash of the machine.
        remove_stale: remove unfinished files that killed processes left for this path; only where no two processes write
            it at once.

    Yields:
        The file, opened for writing bytes. Its name starts with a dot.

    Raises:
        OSError: where the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if remove_stale:
        for stale in path.parent.glob(f".{path.name}.*"):
            stale.unlink()
    temporary = hidden_path(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, see :func:`atomic_write`; bytes of file names that are no text are written as escapes."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Make a folder beside ``path`` that takes its name in one step when the block ends without an error.

    After an error nothing is left. Parent folders are made.

    Args:
        path: the folder to make; may exist if it is empty.

    Yields:
        The folder to fill. Its name starts with a dot.

    Raises:
        OSError: where the folder cannot be written, or where another process has made ``path`` meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = hidden_path(path)
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def hidden_path(path: Path) -> Path:
    """Return an unused path beside ``path`` whose name starts with a dot; no two processes get the same."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digests(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the SHA-256 of files by path. A file is read again only where its size or a time of it has changed.

    What was read is noted in one file of the user's cache; without it, or where it cannot be written, all files are read.

    Raises:
        OSError: a file is missing or cannot be read; the message names it.
    """
    try:
        cache = cache_folder("digests") / "files.json"
    except OSError:  # who has no home notes nothing
        cache = Path(os.devnull) / "files.json"
    known, new, digests = _read_cache(cache), dict[str, list[Any]](), dict[Path, str]()
    for path in dict.fromkeys(paths):
        # the third is of the last change, of content or time: a copy may have the time of what it replaces
        stat, key = path.stat(), str(path.absolute())
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if known.get(key, [])[:3] != state:
            known[key] = new[key] = [*state, sha256_of(path)]
        digests[path] = known[key][3]
    if new:
        others = {key: entry for key, entry in _read_cache(cache).items() if Path(key).exists()}
        with suppress(OSError), atomic_write(cache, sync=False) as file:
            file.write(json.dumps(others | new).encode())
    return digests


def _read_cache(path: Path) -> dict[str, list[Any]]:
    with suppress(OSError, ValueError, AttributeError):
        entries = json.loads(path.read_bytes()).items()
        return {key: entry for key, entry in entries if isinstance(entry, list) and len(entry) == 4}
    return {}


def digest(*parts: str | bytes | memoryview) -> str:
    """Return the SHA-256 of the parts joined together, 64 hexadecimal digits; text is encoded as UTF-8."""
    sha256 = hashlib.sha256()
    for part in parts:
        # names of files may hold bytes that are no text
        sha256.update(part.encode(errors="surrogateescape") if isinstance(part, str) else part)
    return sha256.hexdigest()


def data_folder() -> Path:
    """Return the folder of the user's own backbones: ``$ANOMALIB_SPD_HOME``, or ``anomalib_spd`` in the platform's folder for user data.

    Raises:
        OSError: where the user has no home, as in some containers, and no folder is named.
    """
    home = os.environ.get(HOME_VARIABLE)
    with _with_home():
        return Path(home).expanduser() if home else platformdirs.user_data_path("anomalib_spd", appauthor=False)


def data_folder_name() -> str:
    """Return the path of the folder of the user's own backbones for messages, also where there is none."""
    try:
        return str(data_folder())
    except OSError:
        return f"${HOME_VARIABLE}"


def cache_folder(name: str) -> Path:
    """Return the folder of a cache: ``.NAME`` in ``$ANOMALIB_SPD_HOME``, or ``NAME`` in the platform's folder for caches.

    Args:
        name: of the cache, such as ``"saliency"``.

    Raises:
        OSError: where the user has no home, as in some containers, and no folder is named.
    """
    if os.environ.get(HOME_VARIABLE):
        # the dot keeps the registry, which reads the same folder, from taking it for a backbone
        return data_folder() / f".{name}"
    with _with_home():
        return platformdirs.user_cache_path("anomalib_spd", appauthor=False) / name


@contextmanager
def _with_home() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, KeyError) as error:
        msg = f"This user has no home folder. Set {HOME_VARIABLE} to the full path of a folder that you may write to."
        raise FileNotFoundError(msg) from error


def is_system_entry(name: str) -> bool:
    """Return whether a file or folder of this name is hidden or a system's own; readers of folders skip those."""
    return name.startswith(".") or name.lower() in _SYSTEM_ENTRIES


def is_disk_full(error: Exception) -> bool:
    """Return whether an error says that no room is left; those of safetensors have the number in their text alone."""
    number = error.errno if isinstance(error, OSError) else None
    return number in _DISK_FULL or any(f"os error {each})" in str(error) for each in _DISK_FULL)


def one_line(text: object) -> str:
    """Return foreign text as one line without control characters, such as those that move a terminal's cursor."""
    characters = (
        each if each.isspace() or unicodedata.category(each)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for each in str(text)
    )
    return " ".join("".join(characters).split())


def first_few(names: Iterable[str]) -> str:
    """Join the first three names for a message."""
    first = list(islice(names, 4))
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")
