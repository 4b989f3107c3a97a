"""Read and write the pickles of the authors' preprocessing: `train.txt`, `test.txt` and `all_train_seq.txt`.

`train.txt` and `test.txt` contain (inputs, labels), each session's longest prefix first. `all_train_seq.txt` contains
the training sessions. Reading never runs code from a file.
"""

from __future__ import annotations

import os
import pickle
from itertools import chain
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import atomic_file
from ..unpickling import load_pickle
from .sessions import SessionDataset, Sessions

LARGEST = np.iinfo(np.int32).max - 1
FEW = 10_000_000  # items or clicks, which fit in memory whatever the size of the file


def _load(path: Path):
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected the authors' test.txt with train.txt or all_train_seq.txt")
    return load_pickle(path, "lists, tuples, ints and strings")


def _require(condition: bool, path: Path, found: str, expected: str) -> None:
    if not condition:
        raise InputError(f"{path}: {found}; expected {expected}")


def _numbers(values: list, path: Path) -> np.ndarray:
    """Item numbers as int32, after a check of their type and range."""
    for kind in set(map(type, values)) - {int}:
        raise InputError(f"{path}: found a value of type {kind.__name__}; expected item numbers of type int")
    low, high = min(values), max(values)
    if low < 1 or high > LARGEST:
        shown = " to ".join(str(value) if abs(value) < 2**64 else "more than 64 bits" for value in (low, high))
        raise InputError(f"{path}: items {shown}; expected items from 1 to {LARGEST:,}")
    return np.fromiter(values, dtype=np.int32, count=len(values))


def _flat(sequences: object, path: Path, shortest: int) -> tuple[np.ndarray, np.ndarray]:
    """A list of sequences of items as (items (clicks,), lengths (sequences,))."""
    _require(isinstance(sequences, (list, tuple)), path, f"a {type(sequences).__name__}", "a list of sequences")
    for kind in set(map(type, sequences)) - {list, tuple}:
        raise InputError(f"{path}: found a value of type {kind.__name__}; expected lists of items")
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    _require(len(lengths) > 0, path, "no sequences", "at least one")
    _require(lengths.min() >= shortest, path, f"a sequence of {lengths.min()} items", f"at least {shortest} in each")
    size = path.stat().st_size  # a pickle can repeat a list for 2 bytes, but of the authors' each item takes 2
    found = f"{lengths.sum():,} items in {size:,} bytes"
    _require(lengths.sum() <= max(size, FEW), path, found, "sequences that are written out")
    return _numbers(list(chain.from_iterable(sequences)), path), lengths


def _sessions_of_samples(path: Path) -> Sessions:
    """Rebuild the sessions of (inputs, labels): a prefix of length 1 ends a session."""
    samples = _load(path)
    is_pair = isinstance(samples, (list, tuple)) and len(samples) == 2 and isinstance(samples[1], (list, tuple))
    _require(is_pair, path, f"a {type(samples).__name__}", "a pair (inputs, labels) of lists")
    inputs, input_lengths = _flat(samples[0], path, shortest=1)
    found = f"{len(input_lengths)} inputs and {len(samples[1])} labels"
    _require(len(input_lengths) == len(samples[1]), path, found, "as many of each")
    labels = _numbers(samples[1], path)

    is_first = np.concatenate([[True], input_lengths[:-1] == 1])  # (samples,), a session's longest prefix
    shrinks = is_first | (np.diff(input_lengths, prepend=0) == -1)
    shrinks[-1] &= input_lengths[-1] == 1  # the last session is complete
    _require_samples(shrinks, path)
    offsets = np.concatenate([[0], np.cumsum(input_lengths[is_first] + 1)])  # (sessions + 1,)
    is_last = np.zeros(offsets[-1], dtype=bool)  # (clicks,), a session's last click is its longest prefix's label
    is_last[offsets[1:] - 1] = True
    items = np.empty(len(is_last), dtype=np.int32)
    items[is_last] = labels[is_first]
    items[~is_last] = inputs[np.repeat(is_first, input_lengths)]

    start = offsets[np.cumsum(is_first) - 1]  # (samples,), where each sample's session starts
    input_start = np.cumsum(input_lengths) - input_lengths  # (samples,)
    click = np.arange(len(inputs)) + np.repeat(start - input_start, input_lengths)  # where inputs are in `items`
    agrees = np.logical_and.reduceat(items[click] == inputs, input_start)
    _require_samples(agrees & (items[start + input_lengths] == labels), path)
    return Sessions(items, offsets)


def _require_samples(good: np.ndarray, path: Path) -> None:
    if not good.all():
        raise InputError(
            f"{path}: sample {int(np.argmin(good)) + 1} of {len(good)} is not in the authors' order; "
            "expected all prefixes of a session, from the longest down to one item, before the next session's"
        )


def import_pickles(folder: str | os.PathLike, name: str) -> SessionDataset:
    """Import a folder of the authors' pickles, without running code in them.

    Training sessions come from `train.txt`, or from `all_train_seq.txt` if that is missing; test sessions come from
    `test.txt`. They have no dates, but training sessions are in order of date. An item's raw id is its number.

    Raises:
        InputError: a file is missing or damaged, or contains anything else than lists, tuples, ints and strings in
            that layout.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: expected one with test.txt and train.txt or all_train_seq.txt")
    if (folder / "train.txt").exists():
        train = _sessions_of_samples(folder / "train.txt")
    else:
        items, lengths = _flat(_load(folder / "all_train_seq.txt"), folder / "all_train_seq.txt", shortest=2)
        train = Sessions(items, np.concatenate([[0], np.cumsum(lengths)]))
    test = _sessions_of_samples(folder / "test.txt")
    n_items, n_clicks = int(max(train.items.max(), test.items.max())) + 1, len(train.items) + len(test.items)
    found = f"the largest item is {n_items - 1:,} in a total of {n_clicks:,} clicks"
    _require(n_items <= max(FEW, 100 * n_clicks), folder, found, "items numbered from 1 with few gaps")
    item_ids, item_clicks = ["", *map(str, range(1, n_items))], np.bincount(train.items, minlength=n_items)
    meta = {"source": f"the authors' pickles in {folder.name}", "protocol": "sessions", "parameters": {}}
    return SessionDataset(name, train, test, item_ids, item_clicks, meta)


def export_pickles(dataset: SessionDataset, folder: str | os.PathLike) -> None:
    """Write `train.txt`, `test.txt` and `all_train_seq.txt` into a folder, in the authors' order of samples."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train = np.split(dataset.train.items, dataset.train.offsets[1:-1])
    contents = {
        "train.txt": authors_samples(dataset.train),
        "test.txt": authors_samples(dataset.test),
        "all_train_seq.txt": [items.tolist() for items in train],
    }
    for name, content in contents.items():
        with atomic_file(folder / name) as path, open(path, "wb") as file:
            pickle.dump(content, file)


def authors_samples(sessions: Sessions) -> tuple[list[list[int]], list[int]]:
    """The samples as (inputs, labels): sessions in order, the longest prefix of each first."""
    positions = sessions.sample_positions()
    starts = sessions.sample_starts(positions)
    order = np.lexsort((-positions, starts))
    positions, starts = positions[order], starts[order]
    items = sessions.items.tolist()
    inputs = [items[start:end] for start, end in zip(starts.tolist(), positions.tolist(), strict=True)]
    return inputs, sessions.items[positions].tolist()
