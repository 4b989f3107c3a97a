"""Readers of click logs: Diginetica, Yoochoose, RecBole's `.inter`, any CSV, and pandas frames, into one tidy table.

pandas parses files in chunks, so that the strings of Yoochoose's 33 million rows are never all in memory. Files may be
compressed (`.gz`, `.zip` and other suffixes that pandas knows). A reader raises an InputError for a file that is not
such a log; the message names the line or the column.
"""

from __future__ import annotations

import contextlib
import csv
import lzma
import os
import zipfile
import zlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..errors import InputError

CHUNK = 1_000_000  # rows
MICROSECONDS = 1_000_000
EARLIEST = -62_135_596_800  # Unix seconds of the year 1
LATEST = 1e11  # Unix seconds in the year 5138; larger numbers are milliseconds
LONGEST_ID = 1_000  # characters of a raw id
CSV_COLUMNS = {"session": "session", "item": "item", "time": "time"}
WHICH = "say which columns hold session, item and time"
UNIX = "Unix seconds"
EXPECTED = {
    "%Y-%m-%d": "a date YYYY-MM-DD",
    "ISO8601": "an ISO 8601 timestamp such as 2014-04-07T08:51:09Z",
    UNIX: "a number of Unix seconds, from the year 1 to 5138 (milliseconds must be divided by 1000)",
}


@dataclass
class Clicks:
    """A log of clicks.

    Attributes:
        table: a row per click, with the columns `session` (int64, numbered from 0 in order of first appearance in the
            log), `item` (int32, numbered likewise), `time` (int64, UTC seconds), and `order` (int64) if the log has a
            column that orders the clicks of a session. Rows of Diginetica and Yoochoose are in file order. Others are
            grouped by session and sorted by time, with equal times in file order.
        item_ids: the raw id of each item code, as a string.
    """

    table: pd.DataFrame
    item_ids: list[str]


def read_diginetica(path: str | os.PathLike) -> Clicks:
    """Read Diginetica's `train-item-views.csv`: `;`-separated, columns spelled `session_id` or `sessionId`."""
    layout = {"sep": ";", "quoting": csv.QUOTE_NONE}
    header = _header(path, layout)
    spelled = {"session": ("session_id", "sessionId"), "item": ("item_id", "itemId")}
    columns = {role: new if new in header else old for role, (old, new) in spelled.items()}
    columns |= {"order": "timeframe", "time": "eventdate"}
    _require_columns(f"{path}, line 1", columns, header, "is this Diginetica's train-item-views.csv?")
    return _read(path, columns, layout, "%Y-%m-%d")


def read_yoochoose(path: str | os.PathLike) -> Clicks:
    """Read Yoochoose's `yoochoose-clicks.dat`: `session,timestamp,item,category`, with or without a header.

    Timestamps are UTC; fractions of a second are dropped, as in the paper's code.
    """
    layout = {"sep": ",", "quoting": csv.QUOTE_NONE}
    header = _header(path, layout)
    columns: dict = {"session": "session_id", "time": "timestamp", "item": "item_id"}
    if header[0].isdigit() and len(header) >= 3:  # no header: the first line is a click
        layout["header"] = None
        columns = {"session": 0, "time": 1, "item": 2}
    else:
        _require_columns(f"{path}, line 1", columns, header, "is this yoochoose-clicks.dat?")
    return _read(path, columns, layout, "ISO8601")


def read_inter(path: str | os.PathLike, columns: dict[str, str] | None = None) -> Clicks:
    """Read RecBole's atomic `.inter` file: tab-separated, with a header of `name:type`.

    Args:
        columns: names of the `session`, `item` and `time` columns, without the type (default: `session_id`, or
            `user_id` if there is none, `item_id` and `timestamp`). Times are as in `read_csv`.
    """
    layout = {"sep": "\t", "quoting": csv.QUOTE_NONE}
    header = _header(path, layout)
    typed = {name.split(":")[0]: name for name in header}
    session = "session_id" if "session_id" in typed else "user_id"
    columns = {"session": session, "item": "item_id", "time": "timestamp"} | (columns or {})
    _require_columns(f"{path}, line 1", columns, list(typed), WHICH)
    return _read(path, {role: typed[name] for role, name in columns.items()}, layout)


def read_csv(path: str | os.PathLike, columns: dict[str, str] | None = None, sep: str = ",") -> Clicks:
    """Read any delimited file with a header.

    Args:
        columns: names of the `session`, `item` and `time` columns (default: these words). Times are Unix seconds or
            ISO 8601 timestamps (UTC if they have no offset), all in the format of the first row.
    """
    layout = {"sep": sep}
    columns = CSV_COLUMNS | (columns or {})
    _require_columns(f"{path}, line 1", columns, _header(path, layout), f"{WHICH}, and their separator")
    return _read(path, columns, layout)


def clicks_of_frame(frame: pd.DataFrame, columns: dict[str, Hashable], name: str) -> Clicks:
    """The clicks of a pandas frame, as `read_csv` returns them for the same frame written to CSV.

    Args:
        columns: labels of the `session`, `item` and `time` columns.
        name: the frame's name in error messages.

    Raises:
        InputError: a column is missing or a value is wrong; the message names the row's label or the column.
    """
    _require_columns(name, columns, list(frame.columns), WHICH)
    text = {role: frame[label].astype(object).map(str, na_action="ignore") for role, label in columns.items()}
    chunk = pd.DataFrame(text, index=frame.index)
    return _tidy([chunk.mask(chunk == "")], _Source(name, "row", columns))


@contextlib.contextmanager
def _refusing(path: str | os.PathLike) -> Iterator[None]:
    """Convert pandas's errors for a broken file to an InputError of one line."""
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
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise InputError(f"{path} {what}: expected a file with a log of clicks")
    with _refusing(path):
        header = list(pd.read_csv(path, nrows=0, index_col=False, **layout).columns)
    if "\0" in "".join(header):
        raise InputError(f"{path} is not text: line 1 contains NUL bytes; expected a log of clicks in UTF-8")
    return header


def _require_columns(where: str, columns: dict[str, Hashable], header: list, hint: str) -> None:
    missing = ", ".join(str(name) for name in columns.values() if name not in header)
    if missing:
        found = ", ".join(map(str, header))
        raise InputError(f"{where}: no column {missing}; found {found[:200]}{' ...' * (len(found) > 200)}; {hint}")
    for name in columns.values():
        if list(columns.values()).count(name) > 1 or header.count(name) > 1:
            raise InputError(f"{where}: column {name} appears or is named twice; expected three different columns")


class _Source(NamedTuple):
    """The origin of clicks, for error messages."""

    name: str
    unit: str  # what its index counts: "line" or "row"
    columns: dict[str, Hashable]  # role -> label

    def refuse(self, role: str, text: pd.Series, bad: pd.Series, expected: str) -> None:
        """Raise an InputError for the first bad field, if there is one."""
        if bad.any():
            at = int(np.argmax(bad))
            found = "is empty" if pd.isna(text.iloc[at]) else f"is {text.iloc[at][:60]!r}"
            column = self.columns[role]
            column = f"field {column + 1}" if self.unit == "line" and isinstance(column, int) else f"column {column}"
            raise InputError(f"{self.name}, {self.unit} {text.index[at]}: {column} {found}; expected {expected}")


def _numbered(chunks: list[tuple[np.ndarray, pd.Index]]) -> tuple[np.ndarray, np.ndarray]:
    """Codes (rows,) and distinct strings (codes,) of a column, in order of first appearance, from those of chunks."""
    bounds = np.cumsum([len(ids) for _, ids in chunks])
    # A string occurs once in every chunk that has it.
    code_of, ids = pd.factorize(np.concatenate([np.asarray(ids, dtype=object) for _, ids in chunks]))
    parts = np.split(code_of, bounds[:-1])
    return np.concatenate([part[codes] for part, (codes, _) in zip(parts, chunks, strict=True)]), ids


def _read(path: str | os.PathLike, columns: dict, layout: dict, time_format: str | None = None) -> Clicks:
    """Read the columns (role -> label) of a file; `layout` holds keywords of `pandas.read_csv`."""
    roles = {label: role for role, label in columns.items()}
    first_line = 1 if "header" in layout else 2

    def chunks() -> Iterator[pd.DataFrame]:
        # Blank lines are read, so that the index counts lines; `_tidy` drops them.
        text = {"dtype": str, "keep_default_na": False, "na_values": [""], "skip_blank_lines": False}
        for chunk in pd.read_csv(path, usecols=list(roles), index_col=False, chunksize=CHUNK, **text, **layout):
            chunk.index += first_line
            yield chunk.rename(columns=roles)

    with _refusing(path):
        return _tidy(chunks(), _Source(str(path), "line", columns), time_format)


def _tidy(chunks: Iterable[pd.DataFrame], source: _Source, time_format: str | None = None) -> Clicks:
    """Check and number the clicks of tables of strings.

    Args:
        chunks: tables with a column for each role; None or NaN marks a missing value.
        time_format: of a log with a known layout, whose clicks stay in file order. By default it is UNIX or ISO8601, as
            the first time, and clicks are grouped by session and sorted by time.
    """
    by_time = time_format is None
    sessions, items, times, orders = [], [], [], []
    for chunk in chunks:
        chunk = chunk.dropna(how="all")
        if chunk.empty:
            continue
        for role in chunk:
            source.refuse(role, chunk[role], chunk[role].isna(), "a value in every row")
        if time_format is None:
            is_number = pd.to_numeric(chunk["time"].iloc[:1], errors="coerce").notna().all()
            time_format = UNIX if is_number else "ISO8601"
        times.append(_microseconds(source, chunk["time"], time_format))
        if "order" in chunk:
            numbers = pd.to_numeric(chunk["order"], errors="coerce")
            bad = (numbers % 1 != 0) | (numbers.abs() >= 2**63)  # NaN and infinities too
            source.refuse("order", chunk["order"], bad, "a whole number of 64 bits")
            orders.append(numbers.to_numpy(np.int64))
        sessions.append(pd.factorize(chunk["session"]))
        items.append(pd.factorize(chunk["item"]))
        too_long = items[-1][1].str.len() > LONGEST_ID  # (distinct items,)
        if too_long.any():
            source.refuse("item", chunk["item"], too_long[items[-1][0]], f"at most {LONGEST_ID:,} characters")
    if not times:
        raise InputError(f"{source.name} has no clicks: expected a row per click")

    session, _ = _numbered(sessions)  # (clicks,)
    item, item_ids = _numbered(items)  # (clicks,), (items,)
    time = np.concatenate(times)  # (clicks,)
    table = {"session": session.astype(np.int64), "item": item.astype(np.int32), "time": time // MICROSECONDS}
    if orders:
        table["order"] = np.concatenate(orders)
    frame = pd.DataFrame(table)
    if by_time:
        frame = frame.iloc[np.lexsort((time, session))].reset_index(drop=True)
    return Clicks(frame, item_ids.tolist())


def _microseconds(source: _Source, text: pd.Series, time_format: str) -> np.ndarray:
    """Times as int64 UTC microseconds since 1970, (rows,)."""
    if time_format == UNIX:
        seconds = pd.to_numeric(text, errors="coerce")
        source.refuse("time", text, ~((seconds >= EARLIEST) & (seconds < LATEST)), EXPECTED[UNIX])  # NaN too
        return np.rint(seconds.to_numpy(np.float64) * MICROSECONDS).astype(np.int64)
    moments = pd.to_datetime(text, format=time_format, errors="coerce", utc=True)
    bad = moments.isna() | (text.str[4] != "-")  # pandas also reads 2014 and 20140407 as dates
    source.refuse("time", text, bad, EXPECTED[time_format])
    return moments.astype("datetime64[us, UTC]").astype(np.int64).to_numpy()
