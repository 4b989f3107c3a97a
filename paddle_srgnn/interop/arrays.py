"""Read named arrays from .safetensors, .npz and .pdparams files without running code, and write the first two."""

from __future__ import annotations

import math
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from safetensors.numpy import save_file

from ..errors import InputError
from ..files import atomic_file, read_safetensors
from ..unpickling import load_pickle

WRITABLE = (".safetensors", ".npz")
PDPARAMS = ".pdparams"
SMALL = 1 << 28  # bytes that any .npz may unpack to; a larger one at most MOST_COMPRESSED times its own size
MOST_COMPRESSED = 100
PARAMETER_NAMES = "StructuredToParameterName@@"  # Paddle's table of generated names in a state dict


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file by name, in the format of its suffix.

    Raises:
        InputError: another suffix, or the file is missing or damaged, or contains anything but arrays of numbers.
    """
    readers = {".safetensors": read_safetensors, ".npz": _read_npz, PDPARAMS: _read_pdparams}
    if path.suffix not in readers:
        raise InputError(f"{path}: ends in {path.suffix!r}, expected one of {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return readers[path.suffix](path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write .safetensors or .npz, by the suffix. The same arrays in the same order give the same bytes.

    Raises:
        InputError: another suffix.
    """
    if path.suffix not in WRITABLE:
        raise InputError(f"{path}: ends in {path.suffix!r}, expected {' or '.join(WRITABLE)}")
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomic_file(path) as temporary:
        if path.suffix == ".npz":
            with open(temporary, "wb") as file:  # given a name, numpy would append .npz
                np.savez(file, **contiguous)
        else:
            save_file(contiguous, temporary)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz. No more memory is taken than the archive says that its members have."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > max(SMALL, MOST_COMPRESSED * path.stat().st_size):
                raise InputError(f"{size:,} bytes when unpacked; expected weights, which hardly compress")
            return dict(_read_member(archive, member) for member in archive.infolist())
    except Exception as error:  # for a crafted file, zipfile and numpy raise almost any exception
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a readable .npz of plain arrays ({reason})") from None


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, np.ndarray]:
    """Name and array of a member, whose header must agree with its size before anything is read."""
    name = member.filename.removesuffix(".npy")
    if name == member.filename:
        raise InputError(f"it contains {name[:60]!r}; expected only .npy arrays")
    with archive.open(member) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd headers, which are then refused
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise InputError(f"{name[:60]!r} has .npy version {version}; expected 1.0 or 2.0")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, is_fortran, dtype = read_header(file)
        if dtype.kind not in "fiub":
            raise InputError(f"{name[:60]!r} has the type {str(dtype)[:60]}; expected numbers")
        size, expected = member.file_size - file.tell(), math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != expected:
            raise InputError(f"{name[:60]!r} has {size:,} bytes; expected those of its shape {str(shape)[:60]}")
        content = np.frombuffer(bytearray(file.read()), dtype)  # a bytearray, so that the array can be changed
    return name, content.reshape(shape, order="F" if is_fortran else "C")


def _read_pdparams(path: Path) -> dict[str, np.ndarray]:
    """A state dict that `paddle.save` of Paddle 2 or 3 wrote, with pickle protocol 2 to 4."""
    content = load_pickle(path, "a state dict of numpy arrays, as paddle.save writes it", _STAND_INS)
    if not isinstance(content, dict):
        raise InputError(f"{path}: found a {type(content).__name__}, expected a state dict")
    arrays = {}
    for name, value in content.items():
        if name == PARAMETER_NAMES:
            continue
        if not isinstance(name, str) or not isinstance(value, _Array) or value.array is None:
            raise InputError(f"{path}: {name!r} is a {type(value).__name__.strip('_')}, expected an array under a name")
        arrays[name] = value.array
    return arrays


class _Call:
    """A function that a pickle can call but not change."""

    __slots__ = ("_function",)

    def __init__(self, function):
        self._function = function

    def __call__(self, *arguments):
        return self._function(*arguments)

    def __setstate__(self, state):
        raise InputError("refuses a state set on a function")


class _Dtype:
    """The type of an array. A pickle sets the byte order as its state."""

    __slots__ = ("code", "dtype")

    def __init__(self, code: str):
        self.code, self.dtype = code, None

    def __setstate__(self, state):
        if not isinstance(state, tuple) or state[:1] != (3,) or state[1:2] not in (("<",), ("|",)):
            raise InputError("refuses the state of a dtype: expected little-endian numbers")
        if any(state[2:5]):
            raise InputError("refuses an array with fields: expected numbers")
        self.dtype = np.dtype(state[1] + self.code)


class _Array:
    """An array. A pickle sets shape, type and content as its state."""

    __slots__ = ("array",)

    def __init__(self):
        self.array = None

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) != 5:
            raise InputError("refuses an array's state: expected five parts")
        _, shape, dtype, is_fortran, content = state
        if not isinstance(dtype, _Dtype) or dtype.dtype is None:
            raise InputError("refuses an array without a dtype")
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise InputError(f"refuses the shape {shape!r}: expected whole numbers")
        if not isinstance(content, bytes) or len(content) != math.prod(shape) * dtype.dtype.itemsize:
            raise InputError(f"refuses an array of shape {shape}: its content has another number of bytes")
        self.array = np.frombuffer(content, dtype=dtype.dtype).reshape(shape, order="F" if is_fortran else "C")


def _dtype(code=None, *_) -> _Dtype:
    if not isinstance(code, str) or not re.fullmatch("[fiub][1248]", code):
        raise InputError(f"refuses an array of type {code!r}: expected numbers")
    return _Dtype(code)


def _empty(kind=None, *_) -> _Array:
    if kind is not _NDARRAY:
        raise InputError("refuses the reconstruction of anything but an array")
    return _Array()


def _encode(*arguments) -> bytes:
    if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
        raise InputError("refuses to encode anything but a string in latin1")
    return arguments[0].encode("latin1")


def _not_called(*arguments):
    raise InputError("refuses to call numpy.ndarray")


_NDARRAY = _Call(_not_called)
# Stand-ins for the names in a .pdparams. None is numpy's own code, which a crafted dtype could exploit.
_STAND_INS = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Call(_dtype),
    ("_codecs", "encode"): _Call(_encode),  # in protocol 2, which has no bytes
    ("numpy.core.multiarray", "_reconstruct"): _Call(_empty),  # before numpy 2
    ("numpy._core.multiarray", "_reconstruct"): _Call(_empty),
}
