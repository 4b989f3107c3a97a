"""Sessions in memory and on disk, as flat, memory-mapped arrays of clicks. A dataset records the hash of each file."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import atomic_folder, sha256, write_json

FORMAT = 1
DTYPES = {"items": np.int32, "offsets": np.int64, "dates": np.int64}
FILES = {"items.csv", *(f"{part}_{kind}.npy" for part in ("train", "valid", "test") for kind in DTYPES)}
REMAKE = "preprocess the log again"


@dataclass(frozen=True, eq=False)
class Sessions:
    """Sessions one after another, and the samples in them.

    A sample is the position `p` of its target in `items`. Every click but a session's first is a target. The input is
    the session's clicks before it, `items[start:p]`.

    Attributes:
        items: item numbers from 1, int32 (clicks,).
        offsets: where each session starts in `items`, and where the last one ends, int64 (sessions + 1,).
        dates: UTC seconds, ascending, int64 (sessions,); None if the source has no dates.
        first_samples: number of samples of the first session, its shortest prefixes; None: all of them.
    """

    items: np.ndarray
    offsets: np.ndarray
    dates: np.ndarray | None = None
    first_samples: int | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Clicks of each session, int64 (sessions,)."""
        return np.diff(self.offsets)

    @property
    def n_samples(self) -> int:
        cut = 0 if self.first_samples is None else int(self.offsets[1]) - 1 - self.first_samples
        return len(self.items) - len(self) - cut

    def sample_positions(self) -> np.ndarray:
        """Positions of the targets in `items`, ascending, int64 (n_samples,)."""
        is_target = np.ones(len(self.items), dtype=bool)  # (clicks,)
        is_target[self.offsets[:-1]] = False
        if self.first_samples is not None:
            is_target[1 + self.first_samples : self.offsets[1]] = False
        return np.flatnonzero(is_target)

    def sample_starts(self, positions: np.ndarray) -> np.ndarray:
        """Where the session of each target (n,) starts in `items`, int64 (n,)."""
        return self.offsets[np.searchsorted(self.offsets, positions, side="right") - 1]

    def split_recent(self, share: float) -> tuple[Sessions, Sessions]:
        """Split off the most recent share of the sessions: views of the older and of the recent sessions.

        Raises:
            InputError: one side would be empty.
        """
        recent = round(share * len(self))
        if not 0 < recent < len(self):
            raise InputError(
                f"a share of {share:g} of {len(self)} sessions leaves one side of the split empty; "
                "choose a share that leaves at least one session on each"
            )
        at = len(self) - recent
        click = self.offsets[at]
        dates = (None, None) if self.dates is None else (self.dates[:at], self.dates[at:])
        older = Sessions(self.items[:click], self.offsets[: at + 1], dates[0], self.first_samples)
        return older, Sessions(self.items[click:], self.offsets[at:] - click, dates[1])


@dataclass(frozen=True, eq=False)
class SessionDataset:
    """Training and test sessions with one numbering of items. Under the course's protocol a session is a user.

    Attributes:
        name: the dataset's name.
        train, test: the sessions.
        valid: the course's sessions for validation; None under the paper's protocol.
        item_ids: the raw id of each item number; "" for the padding, number 0.
        item_clicks: clicks of each item in `train`, int64 (n_items,); 0 for the padding.
        meta: origin and parameters; for an opened dataset, its meta.json.
        path: the folder of an opened dataset; None for a dataset in memory.
    """

    name: str
    train: Sessions
    test: Sessions
    item_ids: list[str]
    item_clicks: np.ndarray
    meta: dict = field(default_factory=dict)
    path: Path | None = None
    valid: Sessions | None = None

    @property
    def protocol(self) -> str:
        """The protocol that defines the sessions, samples and metrics: "sessions" or "course"."""
        return "sessions" if self.valid is None else "course"

    @property
    def is_sample(self) -> bool:
        """Whether this is the embedded sample in memory."""
        return self.path is None and "synthetic" in self.meta

    @property
    def parts(self) -> dict[str, Sessions]:
        """The sessions by part: train, valid if there is one, and test."""
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: sessions for name, sessions in parts.items() if sessions is not None}

    @property
    def n_items(self) -> int:
        """Number of items, padding included."""
        return len(self.item_ids)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of sessions and items, without name and origin; `open_dataset` reads it from meta.json."""
        return _content_hash(self)


def _content_hash(dataset: SessionDataset) -> str:
    content = {name: hashlib.sha256(np.ascontiguousarray(a)).hexdigest() for name, a in _arrays(dataset).items()}
    content["item_ids"] = hashlib.sha256(json.dumps(dataset.item_ids).encode()).hexdigest()
    content |= {"n_items": dataset.n_items, "first_samples": dataset.train.first_samples}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _arrays(dataset: SessionDataset) -> dict[str, np.ndarray]:
    """The arrays of the processed layout by name: train_items, train_offsets, ..."""
    arrays = {f"{part}_{kind}": getattr(sessions, kind) for part, sessions in dataset.parts.items() for kind in DTYPES}
    return {
        name: np.asarray(array, dtype=DTYPES[name.split("_")[1]]) for name, array in arrays.items() if array is not None
    }


def write_dataset(dataset: SessionDataset, folder: str | os.PathLike, replace: bool = False) -> None:
    """Write a dataset in the processed layout. The folder is either complete or absent.

    Raises:
        InputError: the folder exists and `replace` is false.
    """
    with atomic_folder(folder, replace) as new:
        for name, array in _arrays(dataset).items():
            np.save(new / f"{name}.npy", array, allow_pickle=False)
        write_items(new / "items.csv", dataset)
        files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in sorted(new.iterdir())}
        counts = {}
        for part, sessions in dataset.parts.items():
            sizes = {"sessions": len(sessions), "clicks": len(sessions.items), "samples": sessions.n_samples}
            counts |= {f"{part}_{what}": size for what, size in sizes.items()}
        meta = {"format": FORMAT, "name": dataset.name, "n_items": dataset.n_items}
        meta |= {"first_samples": dataset.train.first_samples, "counts": counts}
        write_json(new / "meta.json", dataset.meta | meta | {"files": files, "hash": _content_hash(dataset)})


def open_dataset(folder: str | os.PathLike) -> SessionDataset:
    """Open a processed dataset. Arrays are memory-mapped, and only sizes are checked: see `verify_dataset`.

    Raises:
        InputError: the folder is not a dataset, has another format version, or has inconsistent files.
    """
    folder = Path(folder)
    meta = _read_meta(folder)
    try:
        for name, recorded in meta["files"].items():
            if name not in FILES:
                raise InputError(f"{folder / 'meta.json'} names the file {name[:60]!r}, no part of a dataset; {REMAKE}")
            size, expected, _ = (folder / name).stat().st_size, recorded["bytes"], recorded["sha256"]
            if size != expected:
                raise InputError(f"{folder / name} has {size} bytes, expected {expected!s:.60}; {REMAKE}")
        names = ("train", "valid", "test") if "valid_items.npy" in meta["files"] else ("train", "test")
        parts = {part: _open_sessions(folder, part, meta) for part in names}
        item_ids, item_clicks = read_items(folder / "items.csv")
        if len(item_ids) != meta["n_items"]:
            expected = str(meta["n_items"] - 1)[:60]
            raise InputError(f"{folder / 'items.csv'} has {len(item_ids) - 1} items, expected {expected}")
        if meta["first_samples"] is not None and not 0 < meta["first_samples"] < parts["train"].lengths[0]:
            raise InputError(f"{folder / 'meta.json'}: the first session cannot have first_samples samples; {REMAKE}")
        parts["train"] = replace(parts["train"], first_samples=meta["first_samples"])
        items = {"item_ids": item_ids, "item_clicks": item_clicks}
        dataset = SessionDataset(meta["name"], **parts, **items, meta=meta, path=folder)
        vars(dataset)["hash"] = meta["hash"]  # sets the cached property
        return dataset
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} is missing from the dataset; {REMAKE}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'meta.json'} is damaged: {error!r:.200}; {REMAKE}") from error


def _read_meta(folder: Path) -> dict:
    path = folder / "meta.json"
    if not path.is_file():
        raise InputError(f"{folder} is not a dataset: it has no meta.json; preprocess a log first")
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        version = meta["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a dataset's meta.json: {error!r:.200}; {REMAKE}") from error
    if version != FORMAT:
        raise InputError(f"{path} has format version {version!r:.60}, this version reads {FORMAT}; {REMAKE}")
    return meta


def _open_sessions(folder: Path, part: str, meta: dict) -> Sessions:
    arrays = {}
    for kind, dtype in DTYPES.items():
        path = folder / f"{part}_{kind}.npy"
        if path.name not in meta["files"]:  # dates are optional; Sessions raises a TypeError without another array
            continue
        try:
            array = np.lib.format.open_memmap(path, mode="r")
        except OSError:
            raise
        except Exception as error:  # for a crafted header, numpy raises almost any exception
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} is not an array: {reason}; {REMAKE}") from None
        if array.dtype != dtype or array.ndim != 1:
            raise InputError(f"{path} is {array.dtype} with {array.ndim} dimensions, expected {np.dtype(dtype)} with 1")
        arrays[kind] = array
    sessions = Sessions(**arrays)
    ends = sessions.offsets[[0, -1]].tolist() if len(sessions.offsets) > 1 else None
    if ends != [0, len(sessions.items)] or sessions.lengths.min() < 2:
        raise InputError(
            f"{folder / part}_offsets.npy does not divide the {len(sessions.items)} clicks of {part}_items.npy into "
            f"sessions of two clicks or more; {REMAKE}"
        )
    if sessions.dates is not None and len(sessions.dates) != len(sessions):
        raise InputError(f"{folder / part}_dates.npy has {len(sessions.dates)} dates for {len(sessions)} sessions")
    return sessions


def write_items(path: Path, dataset: SessionDataset) -> None:
    """Write items.csv: number, raw id and training clicks of each item except the padding."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "raw_id", "training_clicks"])
        numbers, clicks = range(1, dataset.n_items), dataset.item_clicks[1:].tolist()
        writer.writerows(zip(numbers, dataset.item_ids[1:], clicks, strict=True))


def read_items(path: Path) -> tuple[list[str], np.ndarray]:
    """Raw ids and training clicks, int64 (n_items,), of each item. The padding comes first."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        try:
            next(rows, None)
            index, raw_ids, clicks = zip(*rows, strict=True)
            numbers = np.array([index, clicks], dtype=np.int64)  # (2, items)
        except (ValueError, OverflowError, csv.Error) as error:  # no rows, not UTF-8, no three fields, no int64
            reason = " ".join(str(error).split())[:100]
            raise InputError(
                f"{path} is damaged ({reason}): expected index,raw_id,training_clicks in UTF-8; {REMAKE}"
            ) from None
    if not np.array_equal(numbers[0], np.arange(1, len(index) + 1)):
        raise InputError(f"{path} is damaged: its items are not numbered 1, 2, 3, ...; {REMAKE}")
    return ["", *raw_ids], np.concatenate([[0], numbers[1]])


def verify_dataset(dataset: SessionDataset) -> None:
    """Check the range of a dataset's item numbers and, if it has a folder, each file against its recorded hash.

    Raises:
        InputError: a file was altered, or an item number is out of range.
    """
    if dataset.path is not None:
        for name, recorded in dataset.meta["files"].items():
            if sha256(dataset.path / name) != recorded["sha256"]:
                raise InputError(f"{dataset.path / name} was altered after it was written; {REMAKE}")
        if _content_hash(dataset) != dataset.hash:
            raise InputError(f"{dataset.path / 'meta.json'} was altered after it was written; {REMAKE}")
    for part, sessions in dataset.parts.items():
        low, high = int(sessions.items.min()), int(sessions.items.max())
        if low < 1 or high >= dataset.n_items:
            found, expected = low if low < 1 else high, f"1 to {dataset.n_items - 1}"
            raise InputError(f"{dataset.name}: {part} sessions contain item {found}, expected {expected}")
