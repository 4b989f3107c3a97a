"""The process around Paddle: threads, MKL and malloc, a quiet import, and the device.

On a CPU Paddle's defaults are slow: one thread, MKL's slow code path on AMD, and a malloc that maps and unmaps the
score matrix in every step.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from .errors import InputError, MissingPaddle

logger = logging.getLogger("paddle_srgnn")

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h

MOST_THREADS = 1024

_tuned = False  # whether tune() has run
_threads = 1  # Paddle's own default


def import_paddle() -> ModuleType:
    """Import Paddle without its ccache warning and without the logging handler it puts on the root logger.

    Raises:
        MissingPaddle: Paddle is not installed.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    first_import = "paddle" not in sys.modules
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No ccache found")
        try:
            import paddle
        except ModuleNotFoundError as error:
            if error.name != "paddle":
                raise
            raise MissingPaddle(
                'PaddlePaddle is not installed: pip install "paddlepaddle>=3.0,<4", or paddlepaddle-gpu for a GPU'
            ) from None
    if first_import:
        root.handlers[:] = handlers
        root.setLevel(level)
    return paddle


def tune(threads: int | None = None) -> int:
    """Make this process fast for training on a CPU, then import Paddle. Call it before anything else imports Paddle.

    On Linux with glibc, malloc keeps large buffers (about 300 MB more resident memory), MKL uses its AVX2 code on AMD
    processors, MKL's threads release their core soon after a product, and Paddle uses every core of this process.
    Environment variables set by the user take precedence. `PADDLE_SRGNN_TUNING=0` turns tuning off. On other systems
    this only imports Paddle. If Paddle is imported already, everything but MKL's code path is set, with a warning.

    Args:
        threads: number of Paddle's CPU threads; None: the first number of OMP_NUM_THREADS, else one per core.

    Returns:
        The number of threads.

    Raises:
        InputError: `threads` is not from 1 to 1024.
        MissingPaddle: Paddle is not installed.
    """
    global _threads, _tuned
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise InputError(f"{threads} threads: expected 1 to {MOST_THREADS}")
    enabled = os.environ.get("PADDLE_SRGNN_TUNING") != "0" and platform.libc_ver()[0] == "glibc"
    if enabled:
        if "paddle" in sys.modules and not _tuned:
            logger.warning("tune() came after Paddle's import: threads and malloc are set, MKL's code path is not")
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)  # large blocks come from the heap,
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)  # which keeps them
        if _is_amd():
            os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
        # By default MKL's threads spin for 200 ms after a product, on cores that other threads need.
        os.environ.setdefault("KMP_BLOCKTIME", "1")
        if threads is None:
            # Importing Paddle sets an unset or malformed variable to 1, so its value counts only before.
            asked = None if "paddle" in sys.modules else _threads_in_environment()
            threads = asked or len(os.sched_getaffinity(0))
    paddle = import_paddle()
    if threads is not None:
        # Not by OMP_NUM_THREADS, which is as fast but makes Paddle print two warnings.
        paddle.base.core.set_num_threads(threads)
    _tuned = True
    _threads = threads or _threads_in_environment() or 1
    return _threads


def _threads_in_environment() -> int | None:
    """The first number of OMP_NUM_THREADS, which may be a list; None if it is unset or malformed."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and len(first) < 5 and 1 <= int(first) <= MOST_THREADS else None


def thread_count() -> int:
    """The number of CPU threads that `tune` set."""
    return _threads


def _is_amd() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in file)
    except OSError:
        return False


@contextlib.contextmanager
def log_to(path: str | os.PathLike | None = None) -> Iterator[None]:
    """Send the package's log to stderr, or append it with dates to a file, inside the `with` block."""
    handler = logging.StreamHandler() if path is None else logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s" if path is None else "%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


def set_device(name: str | None = None) -> str:
    """Set Paddle's device to "cpu", "gpu", or with None to a GPU if Paddle finds one, and return its name.

    Raises:
        InputError: an unknown device, or "gpu" without a usable GPU.
    """
    paddle = import_paddle()
    compiled = paddle.device.is_compiled_with_cuda()
    usable = compiled and paddle.device.cuda.device_count() > 0
    if name == "gpu" and not usable:
        reason = "Paddle finds no GPU" if compiled else "this Paddle was built for CPUs only; install its GPU build"
        raise InputError(f"device gpu: {reason}, or use the cpu")
    if name not in (None, "cpu", "gpu"):
        raise InputError(f"unknown device {name!r}: expected cpu or gpu")
    name = name or ("gpu" if usable else "cpu")
    paddle.set_device(name)
    return name
