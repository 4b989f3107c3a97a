"""Readers of raw click logs: Diginetica, Yoochoose, RecBole's `.inter` and any CSV, into one tidy table of clicks.

pandas parses, in chunks, so that Yoochoose's 33 million rows never stand in memory as strings. Files may be compressed
(`.gz`, `.zip` and whatever else pandas knows by its suffix).
"""

from __future__ import annotations

import contextlib
import csv
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError

CHUNK = 1_000_000  # rows
MICROSECONDS = 1_000_000
LATEST = 1e11  # Unix seconds in the year 5138: anything later was milliseconds
CSV_COLUMNS = {"session": "session", "item": "item", "time": "time"}
UNIX = "Unix seconds"
EXPECTED = {
    "%Y-%m-%d": "a date YYYY-MM-DD",
    "ISO8601": "an ISO 8601 timestamp such as 2014-04-07T08:51:09Z",
    UNIX: "a number of Unix seconds (milliseconds must be divided by 1000)",
}


@dataclass
class Clicks:
    """A log of clicks.

    Attributes:
        table: a row per click, with the columns `session` (int64, numbered from 0 in order of first appearance in the
            log), `item` (int32, likewise), `time` (int64, UTC seconds), and `order` (int64) where the log has a column
            that orders the clicks of a session. Rows stand in file order; those of `.inter` and CSV files, which come
            in any order, are grouped by session and sorted by time, equal times in file order.
        item_ids: raw id of each item code, always a string as it stands in the log.
    """

    table: pd.DataFrame
    item_ids: list[str]


def read_diginetica(path: str | os.PathLike) -> Clicks:
    """Read Diginetica's `train-item-views.csv`: `;`-separated, columns spelled `session_id` or `sessionId`.

    Raises:
        InputError: the file cannot be read as such a log; the message names the line or the column.
    """
    layout = {"sep": ";", "quoting": csv.QUOTE_NONE}
    header = _header(path, layout)
    spelled = {"session": ("session_id", "sessionId"), "item": ("item_id", "itemId")}
    columns = {role: new if new in header else old for role, (old, new) in spelled.items()}
    columns |= {"order": "timeframe", "time": "eventdate"}
    _require_columns(path, columns, header, "is this Diginetica's train-item-views.csv?")
    return _read(path, columns, "%Y-%m-%d", layout)


def read_yoochoose(path: str | os.PathLike) -> Clicks:
    """Read Yoochoose's `yoochoose-clicks.dat`: `session,timestamp,item,category`, with or without a header.

    Timestamps are UTC and are cut to whole seconds, as the paper's authors do.

    Raises:
        InputError: the file cannot be read as such a log; the message names the line or the column.
    """
    layout = {"sep": ",", "quoting": csv.QUOTE_NONE}
    header = _header(path, layout)
    columns: dict = {"session": "session_id", "time": "timestamp", "item": "item_id"}
    if header[0].isdigit() and len(header) >= 3:  # a first click where a header would stand
        layout["header"] = None
        columns = {"session": 0, "time": 1, "item": 2}
    else:
        _require_columns(path, columns, header, "is this yoochoose-clicks.dat?")
    return _read(path, columns, "ISO8601", layout)


def read_inter(path: str | os.PathLike, columns: dict[str, str] | None = None) -> Clicks:
    """Read RecBole's atomic `.inter` file: tab-separated, with a header of `name:type`.

    Args:
        columns: names of the `session`, `item` and `time` columns that differ from `session_id` (where there is none,
            `user_id`), `item_id` and `timestamp`; without the type. Times as for `read_csv`.

    Raises:
        InputError: the file cannot be read as such a log; the message names the line or the column.
    """
    layout = {"sep": "\t", "quoting": csv.QUOTE_NONE}
    header = _header(path, layout)
    typed = {name.split(":")[0]: name for name in header}
    session = "session_id" if "session_id" in typed else "user_id"
    columns = {"session": session, "item": "item_id", "time": "timestamp"} | (columns or {})
    _require_columns(path, columns, list(typed), "name others with --columns session=..,item=..,time=..")
    return _read(path, {role: typed[name] for role, name in columns.items()}, None, layout, by_time=True)


def read_csv(path: str | os.PathLike, columns: dict[str, str] | None = None, sep: str = ",") -> Clicks:
    """Read any delimited file with a header.

    Args:
        columns: names of the `session`, `item` and `time` columns that differ from those words. Times are Unix seconds
            or ISO 8601 timestamps (UTC where they name no offset); the first row decides which.
        sep: one character.

    Raises:
        InputError: the file cannot be read as such a log; the message names the line or the column.
    """
    layout = {"sep": sep}
    columns = CSV_COLUMNS | (columns or {})
    _require_columns(
        path, columns, _header(path, layout), "name others with --columns session=..,item=..,time=.. (and --sep)"
    )
    return _read(path, columns, None, layout, by_time=True)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what pandas raises on a broken file into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty: expected a log of clicks") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: {error.reason}; expected a log of clicks in UTF-8") from error
    except (ValueError, OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as a log of clicks: {reason}") from error


def _header(path: str | os.PathLike, layout: dict) -> list[str]:
    """The fields of the first line."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}: expected a file with a log of clicks")
    with _refusing(path):
        header = list(pd.read_csv(path, nrows=0, index_col=False, **layout).columns)
    if "\0" in "".join(header):
        raise InputError(f"{path} is not text: its first line holds NUL bytes; expected a log of clicks in UTF-8")
    return header


def _require_columns(path: str | os.PathLike, columns: dict[str, str], header: list[str], hint: str) -> None:
    missing = [name for name in columns.values() if name not in header]
    if missing:
        found = ", ".join(header)
        found = found if len(found) <= 200 else found[:200] + " ..."
        raise InputError(f"{path}, line 1: no column {', '.join(missing)} in the header, which holds: {found}; {hint}")
    if len(set(columns.values())) < len(columns):
        raise InputError(f"{path}: {columns} names a column twice; expected a column each")


class _Numbering:
    """Numbers the strings of a column from 0 in order of first appearance, chunk by chunk."""

    def __init__(self):
        self.ids: list[np.ndarray] = []  # of each chunk, in order of first appearance
        self.codes: list[np.ndarray] = []  # of each chunk's rows, into all chunks' ids
        self.n_ids = 0

    def add(self, text: pd.Series) -> None:
        codes, ids = pd.factorize(text)
        self.codes.append(codes + self.n_ids)
        self.ids.append(np.asarray(ids, dtype=object))
        self.n_ids += len(ids)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes int64 (rows,) and the distinct strings (codes,)."""
        code_of, ids = pd.factorize(np.concatenate(self.ids))  # an id stands there once per chunk that has it
        return code_of[np.concatenate(self.codes)], ids


def _read(path: str | os.PathLike, columns: dict, time_format: str | None, layout: dict, by_time=False) -> Clicks:
    """Read the columns (role -> label) of a log.

    Args:
        time_format: pandas's, or UNIX, or None for what the first row holds.
        layout: keywords of `pandas.read_csv`.
        by_time: group the clicks by session, each session's in order of time.
    """
    path = Path(path)
    roles = {label: role for role, label in columns.items()}
    sessions, items, times, orders = _Numbering(), _Numbering(), [], []
    with _refusing(path):
        # Blank lines are read, so that the index counts lines, and dropped below.
        text = {"dtype": str, "keep_default_na": False, "na_values": [""], "skip_blank_lines": False}
        for chunk in pd.read_csv(path, usecols=list(roles), index_col=False, chunksize=CHUNK, **text, **layout):
            chunk.index += 1 if "header" in layout else 2
            chunk = chunk.rename(columns=roles).dropna(how="all")
            if chunk.empty:
                continue
            for role in chunk:
                _refuse(path, columns[role], chunk[role], chunk[role].isna(), "a value in every row")
            if time_format is None:
                is_number = pd.to_numeric(chunk["time"].iloc[:1], errors="coerce").notna().all()
                time_format = UNIX if is_number else "ISO8601"
            times.append(_microseconds(path, columns["time"], chunk["time"], time_format))
            if "order" in chunk:
                orders.append(_whole_numbers(path, columns["order"], chunk["order"]))
            sessions.add(chunk["session"])
            items.add(chunk["item"])
    if not times:
        raise InputError(f"{path} holds no clicks: expected a row per click")

    session, _ = sessions.finish()  # (clicks,)
    item, item_ids = items.finish()  # (clicks,), (items,)
    time = np.concatenate(times)  # (clicks,)
    table = {"session": session.astype(np.int64), "item": item.astype(np.int32), "time": time // MICROSECONDS}
    if orders:
        table["order"] = np.concatenate(orders)
    frame = pd.DataFrame(table)
    if by_time:
        frame = frame.iloc[np.lexsort((time, session))].reset_index(drop=True)
    return Clicks(frame, item_ids.tolist())


def _refuse(path: Path, column: object, text: pd.Series, bad: pd.Series, expected: str) -> None:
    """Raise an InputError for the first bad field; the index of `text` and `bad` is the line number."""
    if bad.any():
        line = bad.idxmax()
        found = "is empty" if pd.isna(text[line]) else f"holds {text[line][:60]!r}"
        name = f"column {column}" if isinstance(column, str) else f"field {column + 1}"
        raise InputError(f"{path}, line {line}: {name} {found}; expected {expected}")


def _microseconds(path: Path, column: object, text: pd.Series, time_format: str) -> np.ndarray:
    """Times as int64 UTC microseconds since 1970, (rows,)."""
    if time_format == UNIX:
        seconds = pd.to_numeric(text, errors="coerce")
        _refuse(path, column, text, ~(seconds.abs() < LATEST), EXPECTED[UNIX])  # NaN too
        return np.rint(seconds.to_numpy(np.float64) * MICROSECONDS).astype(np.int64)
    moments = pd.to_datetime(text, format=time_format, errors="coerce", utc=True)
    bad = moments.isna() | (text.str[4] != "-")  # pandas takes 2014 and 20140407 for dates, too
    _refuse(path, column, text, bad, EXPECTED[time_format])
    return moments.astype("datetime64[us, UTC]").astype(np.int64).to_numpy()


def _whole_numbers(path: Path, column: object, text: pd.Series) -> np.ndarray:
    numbers = pd.to_numeric(text, errors="coerce")
    _refuse(path, column, text, numbers % 1 != 0, "a whole number")  # NaN and infinities too
    return numbers.to_numpy(np.int64)
