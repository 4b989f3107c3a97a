"""The authors' pickles in and out: `train.txt`, `test.txt` and `all_train_seq.txt` as their preprocessing writes them.

`train.txt` and `test.txt` hold (inputs, labels), each session's longest prefix first; `all_train_seq.txt` holds the
training sessions. No code in a file is run: `unpickling` allows no names here.
"""

from __future__ import annotations

import os
import pickle
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import atomic_file
from ..unpickling import load_pickle
from .sessions import SessionDataset, Sessions

LARGEST = np.iinfo(np.int32).max - 1


def _load(path: Path):
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected the authors' test.txt with train.txt or all_train_seq.txt")
    return load_pickle(path, "lists, tuples, ints and strings")


def _require(condition: bool, path: Path, found: str, expected: str) -> None:
    if not condition:
        raise InputError(f"{path}: {found}; expected {expected}")


def _numbers(values: list, path: Path) -> np.ndarray:
    """Item numbers as int32, checked to be ints in range."""
    for kind in set(map(type, values)) - {int}:
        raise InputError(f"{path}: found a {kind.__name__} in place of an item number; expected ints")
    _require(min(values) >= 1 and max(values) <= LARGEST, path, f"items {min(values)} to {max(values)}", "items from 1")
    return np.fromiter(values, dtype=np.int32, count=len(values))


def _flat(sequences: object, path: Path, shortest: int) -> tuple[np.ndarray, np.ndarray]:
    """A list of sequences of items as (items (clicks,), lengths (sequences,))."""
    _require(isinstance(sequences, (list, tuple)), path, f"a {type(sequences).__name__}", "a list of sequences")
    for kind in set(map(type, sequences)) - {list, tuple}:
        raise InputError(f"{path}: found a {kind.__name__} in place of a sequence of items; expected lists")
    lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
    _require(len(lengths) > 0, path, "no sequences", "at least one")
    _require(lengths.min() >= shortest, path, f"a sequence of {lengths.min()} items", f"at least {shortest} in each")
    return _numbers(list(chain.from_iterable(sequences)), path), lengths


def _sessions_of_samples(path: Path) -> Sessions:
    """Rebuild the sessions of (inputs, labels): a prefix of length 1 ends a session."""
    samples = _load(path)
    is_pair = isinstance(samples, (list, tuple)) and len(samples) == 2 and isinstance(samples[1], (list, tuple))
    _require(is_pair, path, f"a {type(samples).__name__}", "a pair (inputs, labels) of lists")
    inputs, input_lengths = _flat(samples[0], path, shortest=1)
    _require(
        len(input_lengths) == len(samples[1]),
        path,
        f"{len(input_lengths)} inputs and {len(samples[1])} labels",
        "as many of each",
    )
    labels = _numbers(samples[1], path)

    is_first = np.concatenate([[True], input_lengths[:-1] == 1])  # (samples,), a session's longest prefix
    shrinks = is_first | (np.diff(input_lengths, prepend=0) == -1)
    shrinks[-1] &= input_lengths[-1] == 1  # nothing is cut off
    _require_samples(shrinks, path)
    offsets = np.concatenate([[0], np.cumsum(input_lengths[is_first] + 1)])  # (sessions + 1,)
    is_last = np.zeros(offsets[-1], dtype=bool)  # (clicks,), a session's last click is its longest prefix's label
    is_last[offsets[1:] - 1] = True
    items = np.empty(len(is_last), dtype=np.int32)
    items[is_last] = labels[is_first]
    items[~is_last] = inputs[np.repeat(is_first, input_lengths)]

    start = offsets[np.cumsum(is_first) - 1]  # (samples,), of each one's session
    input_start = np.cumsum(input_lengths) - input_lengths  # (samples,)
    click = np.arange(len(inputs)) + np.repeat(start - input_start, input_lengths)  # of every input's click, in items
    agrees = np.logical_and.reduceat(items[click] == inputs, input_start)
    _require_samples(agrees & (items[start + input_lengths] == labels), path)
    return Sessions(items, offsets)


def _require_samples(good: np.ndarray, path: Path) -> None:
    if not good.all():
        raise InputError(
            f"{path}: sample {int(np.argmin(good)) + 1} of {len(good)} breaks the authors' order; "
            "expected all prefixes of a session, from the longest down to one item, before the next session's"
        )


def import_pickles(folder: str | os.PathLike, name: str) -> SessionDataset:
    """Import a folder of the authors' pickles, without running code in them.

    Training sessions come from `train.txt`, or without it from `all_train_seq.txt`; test sessions from `test.txt`. They
    have no dates, but training sessions are in order of date. An item's raw id is its number.

    Raises:
        InputError: a file is missing or damaged, or holds anything but lists, tuples, ints and strings in that layout.
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
    n_items = int(max(train.items.max(), test.items.max())) + 1
    return SessionDataset(
        name=name,
        train=train,
        test=test,
        item_ids=["", *map(str, range(1, n_items))],
        item_clicks=np.bincount(train.items, minlength=n_items),
        meta={"source": f"the authors' pickles in {folder.name}", "protocol": "sessions", "parameters": {}},
    )


def export_pickles(dataset: SessionDataset, folder: str | os.PathLike) -> None:
    """Write `train.txt`, `test.txt` and `all_train_seq.txt` into a folder, in the authors' order of samples."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    items, offsets = dataset.train.items.tolist(), dataset.train.offsets.tolist()
    contents = {
        "train.txt": authors_samples(dataset.train),
        "test.txt": authors_samples(dataset.test),
        "all_train_seq.txt": [items[start:end] for start, end in pairwise(offsets)],
    }
    for name, content in contents.items():
        with atomic_file(folder / name) as path, open(path, "wb") as file:
            pickle.dump(content, file)


def authors_samples(sessions: Sessions) -> tuple[list[list[int]], list[int]]:
    """(inputs, labels): sessions in order, the longest prefix of each first."""
    positions = sessions.sample_positions()
    starts = sessions.sample_starts(positions)
    order = np.lexsort((-positions, starts))
    positions, starts = positions[order], starts[order]
    items = sessions.items.tolist()
    inputs = [items[start:end] for start, end in zip(starts.tolist(), positions.tolist(), strict=True)]
    return inputs, sessions.items[positions].tolist()
