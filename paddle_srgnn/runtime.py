"""The process around Paddle: threads, MKL and malloc, a quiet import, the device, the seeds.

On a CPU these settings decide the speed of training more than any line of the model: one thread instead of all, the
slow code path that the wheel's MKL takes on AMD, and a malloc that maps and unmaps the score matrix at every step.
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

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4

_tuned = False  # before Paddle's import, or told that it came after
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
    Variables set by the user take precedence. `PADDLE_SRGNN_TUNING=0` turns tuning off; on other systems only Paddle is
    imported. If Paddle is imported already, MKL's code path cannot change; the rest is applied and a warning says so.

    Args:
        threads: number of Paddle's CPU threads; None: the first number of OMP_NUM_THREADS, else one per core.

    Returns:
        The number of threads.

    Raises:
        MissingPaddle: Paddle is not installed.
    """
    global _threads, _tuned
    enabled = os.environ.get("PADDLE_SRGNN_TUNING") != "0" and platform.libc_ver()[0] == "glibc"
    if enabled:
        if "paddle" in sys.modules and not _tuned:
            logger.warning("tune() came after Paddle's import: threads and malloc are set, MKL's code path is not")
        _keep_large_buffers()
        if _is_amd():
            os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
        # After a product MKL's threads would wait for the next one in a loop for 200 ms, on the cores that others need.
        os.environ.setdefault("KMP_BLOCKTIME", "1")
        if threads is None:
            # Paddle's import puts 1 into an unset or malformed variable, so its value counts only before.
            asked = None if "paddle" in sys.modules else _threads_in_environment()
            threads = asked or len(os.sched_getaffinity(0))
    paddle = import_paddle()
    if threads is not None:
        # Rather than by OMP_NUM_THREADS, for which Paddle prints two warnings; the speed is the same.
        paddle.base.core.set_num_threads(threads)
    _tuned = True
    _threads = threads or _threads_in_environment() or 1
    return _threads


def _threads_in_environment() -> int | None:
    """The first number of OMP_NUM_THREADS, which may be a list; None if it is unset or malformed."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def thread_count() -> int:
    """How many threads this process computes with, as `tune` set it."""
    return _threads


def _keep_large_buffers() -> None:
    libc = ctypes.CDLL(None)
    # Both are needed: without mmap large blocks come from the heap, and without trimming the heap keeps them.
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _is_amd() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            return any(line.startswith("vendor_id") and "AuthenticAMD" in line for line in file)
    except OSError:
        return False


@contextlib.contextmanager
def log_to(path: str | os.PathLike | None = None) -> Iterator[None]:
    """Send the package's log to stderr, or with dates to the end of a file, for a while."""
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
    """Choose where Paddle computes: "cpu", "gpu", or None for a GPU where this Paddle has one. Returns the choice.

    Raises:
        InputError: a GPU was asked for and there is none; the message says why.
    """
    paddle = import_paddle()
    compiled = paddle.device.is_compiled_with_cuda()
    usable = compiled and paddle.device.cuda.device_count() > 0
    if name == "gpu" and not usable:
        reason = (
            "Paddle finds no GPU here" if compiled else "this Paddle was built for CPUs only; install its GPU build"
        )
        raise InputError(f"device gpu: {reason}; use the cpu to train without one")
    if name not in (None, "cpu", "gpu"):
        raise InputError(f"unknown device {name!r}: expected cpu or gpu")
    name = name or ("gpu" if usable else "cpu")
    paddle.set_device(name)
    return name
