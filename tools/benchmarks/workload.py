"""The same sessions for every contender, and the reference that the user names."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.errors import InputError, WorkFailed


def load_reference(file: str) -> type:
    """The class of a Python file, given as FILE.py or FILE.py:CLASS, by default SRGNN; this runs the file.

    Raises:
        InputError: there is no such file or class.
        WorkFailed: the file raises an error.
    """
    path, _, name = file.partition(":")
    name = name or "SRGNN"
    if not Path(path).is_file():
        raise InputError(f"--reference {path}: no such file")
    loader = importlib.machinery.SourceFileLoader("reference", path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("reference", loader))
    sys.modules["reference"] = module  # where dataclasses and inspect look for it
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        what = own_error(error, path)
        raise WorkFailed(f"--reference {path} cannot be run, by an error of its own: {what}") from error
    if not inspect.isclass(getattr(module, name, None)):
        raise InputError(f"--reference {path}: no class {name} in it")
    return getattr(module, name)


def own_error(error: BaseException, file: str) -> str:
    """An error that a file's code raised, on one line, with the last line of the file that took part."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f" (line {lines[-1]} of {file})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"


def random_sessions(n_rows: int, length: int, n_items: int, seed: int = 0) -> list[np.ndarray]:
    """Sessions of 1 to `length` clicks, one in five clicks going back to an item of the session."""
    rng = np.random.default_rng(seed)
    sessions = []
    for n_clicks in rng.integers(1, length + 1, n_rows):
        clicks = rng.integers(1, n_items, n_clicks)
        back = rng.random(n_clicks) < 0.2
        clicks[back] = clicks[rng.integers(0, n_clicks, n_clicks)][back]
        sessions.append(clicks)
    return sessions


def padded(sessions: list[np.ndarray], length: int) -> np.ndarray:
    """Left-aligned and padded with 0: (B, length) int64."""
    rows = np.zeros((len(sessions), length), dtype=np.int64)
    for row, session in zip(rows, sessions, strict=True):
        row[: len(session)] = session
    return rows


class PaddedSamples:
    """Batches for padded models; what does not change from batch to batch is computed once, as ours does.

    Args:
        sessions: where the samples lie.
        length: L, how many of the most recent clicks are kept.
    """

    def __init__(self, sessions: Sessions, length: int):
        self.items, self.length = np.asarray(sessions.items), length
        self.positions = sessions.sample_positions()
        self.starts = np.maximum(sessions.sample_starts(self.positions), self.positions - length)

    def batch(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inputs (B, L) and targets (B,) of the samples with the given numbers, int64."""
        positions = self.positions[samples]
        columns = self.starts[samples][:, None] + np.arange(self.length)  # (B, L)
        inside = columns < positions[:, None]
        rows = np.where(inside, self.items[np.where(inside, columns, 0)], 0)
        return rows.astype(np.int64), self.items[positions].astype(np.int64)


def timed(work: Callable[[], object], repeat: int) -> list[float]:
    """Milliseconds of each of `repeat` calls, after one that does not count."""
    work()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return times
