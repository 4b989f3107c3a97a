"""Atomic writing of files and folders: each is either complete or absent if writing is interrupted."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # from Linux's fcntl.h and fs.h


def sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems cannot sync a folder; renaming is still atomic
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the path and the error number to the errors of a failed write that lack them."""
    try:
        yield
    except SafetensorError as error:
        code = re.search(r"(?:os error|code:) (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
    except OSError as error:
        if error.filename is not None or not str(error):
            raise
        code = error.errno or errno.ENOSPC  # numpy only says that it wrote less than it should
        raise OSError(code, os.strerror(code), str(path)) from error


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success, fsync it and rename it to `path`; on failure, remove it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _naming(path):
            yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`. On success, fsync its files and rename it to `path`.

    An existing folder is replaced once the new one is complete. What killed processes left of the same folder is
    removed first.

    Raises:
        InputError: `path` exists and `replace` is false.
    """
    path = Path(path)
    _recover(path)
    if path.exists() and not replace:
        raise InputError(f"{path} exists already; choose another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _remove(temporary)
        temporary.mkdir()
        with _naming(path):
            yield temporary
        for file in temporary.rglob("*"):
            _fsync(file)
        _fsync(temporary)
        if not path.exists():
            os.replace(temporary, path)
        elif not _exchange(temporary, path):
            _replace_in_two_steps(temporary, path)
        _fsync(path.parent)
    finally:
        _remove(temporary)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; false where the system or the file system cannot."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no renameat2, or no C library by that name
        paths = os.fsencode(one), os.fsencode(other)
        return ctypes.CDLL(None).renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0
    return False


def _replace_in_two_steps(temporary: Path, path: Path) -> None:
    old = temporary.with_suffix(".old")
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(old, path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _recover(path: Path) -> None:
    """Remove what killed processes left of a folder, or restore it if they left no folder under its name."""
    leftover = re.compile(re.escape(f".{path.name}.") + r"(\d{1,9})\.(old|tmp)")
    with contextlib.suppress(OSError):  # the folder around it does not exist yet, or may not be read
        found = [(one, match) for one in sorted(path.parent.iterdir()) if (match := leftover.fullmatch(one.name))]
        for one, match in found:
            if _lives(int(match[1])):
                continue
            if match[2] == "old" and not path.exists():
                os.replace(one, path)
            else:
                _remove(one)


def _lives(process: int) -> bool:
    if os.name != "posix":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
    """Hold a folder's lock, which also ends with the process; where the system has no such lock, do nothing.

    Raises:
        InputError: another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = f"another process{_holder(os.fstat(descriptor).st_ino)}"
            raise InputError(f"{folder} is being trained by {other}; wait for its end") from None
        yield
    finally:
        os.close(descriptor)


def _holder(inode: int) -> str:
    """" (pid N)" of the process that has locked an inode; "" if the system does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/locks", encoding="ascii") as file:
        for line in map(str.split, file):
            if line[1] == "FLOCK" and line[5].endswith(f":{inode}") and int(line[4]) > 0:
                return f" (pid {line[4]})"
    return ""


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Remove the temporary files and folders that a killed process left in `folder`."""
    for path in Path(folder).glob(".*.tmp"):
        _remove(path)


def write_json(path: str | os.PathLike, content: object) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: str | os.PathLike, rows: Sequence[Mapping], columns: Sequence[str] = ()) -> None:
    """Write rows under the given columns, followed by any others in the rows. Missing values are left empty."""
    columns = dict.fromkeys([*columns, *(key for row in rows for key in row)])
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file by name.

    Raises:
        InputError: the file is missing or damaged, or contains arrays of a type that numpy does not have.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError, TypeError, KeyError) as error:  # the last two: a type unknown to numpy
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
