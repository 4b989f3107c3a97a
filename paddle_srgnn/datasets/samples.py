"""Samples, and batches of packed graphs for `paddle.io.DataLoader`.

A sample is the position of its target in the flat items of the sessions; its input is the session's clicks before it.
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..graph import PackedGraph, packed_graph
from ..runtime import import_paddle
from .sessions import Sessions

paddle = import_paddle()


class Batch(NamedTuple):
    """B samples: their sessions as packed graphs, and the items that were clicked next."""

    graph: PackedGraph
    target: paddle.Tensor  # (B,) int64


def epoch_order(n_samples: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the samples (n_samples,) int64 that depends on nothing but its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(n_samples)


class SampleBatches(paddle.io.Dataset):
    """A map-style dataset whose item k is the whole batch k: building it at once is what makes it cheap.

    Args:
        sessions: where the samples lie.
        batch_size: B; the last batch holds what is left, no sample is dropped.
        max_session_length: how many of the most recent clicks of an input are kept.
        positions: (n,) the targets of the samples to go through; by default all, as they lie.
    """

    def __init__(
        self, sessions: Sessions, batch_size: int, max_session_length: int, positions: np.ndarray | None = None
    ):
        super().__init__()
        self.items = np.asarray(sessions.items)  # the same memory map, without its slower indexing
        self.batch_size = batch_size
        self.positions = sessions.sample_positions() if positions is None else positions  # (n,)
        self.starts = np.maximum(sessions.sample_starts(self.positions), self.positions - max_session_length)  # (n,)

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def __getitem__(self, k: int) -> tuple[np.ndarray, ...]:
        """The arrays of the batch's `PackedGraph`, and the targets (B,) int64."""
        part = slice(k * self.batch_size, (k + 1) * self.batch_size)
        positions, starts = self.positions[part], self.starts[part]
        lengths = positions - starts  # (B,)
        ends = np.cumsum(lengths)
        clicks = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)  # (C,)
        graph = packed_graph(self.items[clicks], lengths)
        return *graph, self.items[positions].astype(np.int64)


class _Caught(paddle.io.Dataset):
    """Hands an exception on as an item: raised inside the DataLoader it would hang it, or lose its type and message."""

    def __init__(self, dataset: paddle.io.Dataset):
        super().__init__()
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, k: int) -> tuple:
        try:
            return self.dataset[k]
        except Exception as error:
            try:
                pickle.dumps(error)  # as a worker process has to
            except Exception:
                error = RuntimeError("".join(traceback.format_exception(error)))
            return np.zeros(1), error  # an item without an array does not pass the loader


class _Numbers(paddle.io.BatchSampler):
    """The numbers of the batches in order, until somebody sets `stopped`."""

    def __init__(self, n_batches: int):
        self.n_batches, self.stopped = n_batches, False

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[list[int]]:
        for k in range(self.n_batches):
            if self.stopped:
                return
            yield [k]


def _only(batch: list[tuple]) -> tuple:
    return batch[0]


def load_batches(dataset: paddle.io.Dataset, num_workers: int = 0) -> Iterator[list]:
    """Iterate over a dataset of whole batches through `paddle.io.DataLoader`, arrays turned into tensors.

    Close the iterator (`contextlib.closing`) where it may be left before its end.

    Raises:
        Exception: whatever the dataset raises, as itself, when its batch's turn comes, with any number of workers.
    """
    numbers = _Numbers(len(dataset))
    loader = paddle.io.DataLoader(
        _Caught(dataset), batch_sampler=numbers, collate_fn=_only, num_workers=num_workers, return_list=True
    )
    items = iter(loader)
    at_end = False
    try:
        for item in items:
            if isinstance(item[-1], Exception):
                raise item[-1]
            yield item
        at_end = True
    finally:
        # A thread of the loader that is inside Paddle when the interpreter exits can abort the process ("terminate
        # called without an active exception"), so the loader is brought to its end here.
        if not at_end:
            numbers.stopped = True
            with contextlib.suppress(RuntimeError, SystemError):  # Paddle's own, where it was its loader that failed
                for _ in items:
                    pass


def sample_batches(dataset: SampleBatches, num_workers: int = 0) -> Iterator[Batch]:
    """`load_batches` for samples."""
    with contextlib.closing(load_batches(dataset, num_workers)) as batches:
        for *graph, target in batches:
            yield Batch(PackedGraph(*graph), target)
