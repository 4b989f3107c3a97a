"""The paper's protocol: from a table of clicks to filtered, split and numbered sessions.

Source: Wu et al. (AAAI 2019), section 4, and the authors' preprocessing code where the section is silent.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd

from ..errors import InputError
from .clicks import Clicks
from .course import build_users
from .sessions import SessionDataset, Sessions

DAY = 86400  # seconds
PROTOCOLS = ("sessions", "course")  # the paper's, and the Datawhale course's


def build_dataset(
    clicks: Clicks, name: str, source: str, protocol: str = "sessions", *, seed: int = 0, **parameters
) -> SessionDataset:
    """Apply a protocol: `build_sessions` with the parameters, or `build_users` with the seed.

    Raises:
        InputError: the protocol is unknown, or `build_sessions` or `build_users` raises it.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"unknown protocol {protocol!r}: expected one of {', '.join(PROTOCOLS)}")
    if protocol == "course":
        return build_users(clicks, name, source, seed)
    return build_sessions(clicks, name, source, **parameters)


def build_sessions(
    clicks: Clicks,
    name: str,
    source: str,
    test_days: float = 7,
    min_item_clicks: int = 5,
    fraction: Fraction | str | float = 1,
) -> SessionDataset:
    """Apply the paper's protocol.

    1. A session's date is the time of its last click in the log.
    2. Sessions of one click are dropped. Then items clicked fewer than `min_item_clicks` times are removed. Then
       sessions left with fewer than two clicks are dropped.
    3. The clicks of a session are sorted by the log's `order` if it has one (stable), else they keep their order.
    4. Sessions dated before the latest date minus `test_days` are for training, and those after it for testing.
       Sessions exactly on the boundary are dropped.
    5. Training and test sessions are each sorted by date, and those of equal date by first appearance in the log.
    6. Items are numbered from 1 in order of first appearance in the training sessions. Items that do not occur there
       are removed from the test sessions, and test sessions left with fewer than two clicks are dropped.
    7. Only the last `fraction` of the training samples is kept (Yoochoose 1/4 and 1/64). If the cut falls inside a
       session, that session contributes its shortest prefixes only. The numbering of items does not change.

    Args:
        clicks: the log.
        name: the dataset's name.
        source: a description of the log, for meta.json.
        test_days: length of the test period, in days.
        min_item_clicks: minimum number of clicks of an item.
        fraction: the most recent share of training samples to keep, in (0, 1], such as "1/64".

    Raises:
        InputError: a parameter is out of range, or no sessions are left; the message says which rule removed them.
    """
    fraction = _checked(test_days, min_item_clicks, fraction)
    table, date = _filter(clicks.table, min_item_clicks)
    latest = date[table["session"]].max()
    boundary = latest - test_days * DAY
    train_items, train_offsets, train_dates = _flatten(table, date, date < boundary)
    if not len(train_dates):
        raise InputError(
            f"no training sessions: every session is dated within {test_days:g} days of the latest one, "
            f"{pd.Timestamp(latest, unit='s')} UTC; choose a smaller test_days"
        )
    codes, first_seen = pd.factorize(train_items)
    number = np.zeros(len(clicks.item_ids), dtype=np.int32)  # (items,), of each item code; 0 if not in training
    number[first_seen] = np.arange(1, len(first_seen) + 1)
    train, first_samples = _most_recent(train_offsets, fraction)
    start = train_offsets[train]
    items = (codes[start:] + 1).astype(np.int32)
    train = Sessions(items, train_offsets[train:] - start, train_dates[train:], first_samples)

    seen = number[table["item"]] > 0
    test_items, test_offsets, test_dates = _flatten(_drop_short(table[seen]), date, date > boundary)
    if not len(test_dates):
        raise InputError(
            f"no test sessions: none after {pd.Timestamp(boundary, unit='s')} UTC has two clicks on items that occur "
            "in training; choose a larger test_days"
        )
    test = Sessions(number[test_items], test_offsets, test_dates)
    item_ids = ["", *(clicks.item_ids[code] for code in first_seen.tolist())]
    item_clicks = np.bincount(train.items, minlength=len(item_ids))
    parameters = {"test_days": float(test_days), "min_item_clicks": int(min_item_clicks), "fraction": str(fraction)}
    meta = {"source": source, "protocol": "sessions", "parameters": parameters}
    return SessionDataset(name, train, test, item_ids, item_clicks, meta)


def _checked(test_days: float, min_item_clicks: int, fraction: Fraction | str | float) -> Fraction:
    """Check the ranges of all three; return the fraction as a Fraction."""
    try:
        share = Fraction(str(fraction))
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise InputError(f"fraction={fraction!r}: expected a number in (0, 1], such as 1/64")
    if not 0 <= test_days < float("inf"):
        raise InputError(f"test_days={test_days!r}: expected a number of days, at least 0")
    if not min_item_clicks >= 1:
        raise InputError(f"min_item_clicks={min_item_clicks!r}: expected a whole number, at least 1")
    return share


def _drop_short(table: pd.DataFrame) -> pd.DataFrame:
    """The clicks of sessions with two clicks or more."""
    lengths = np.bincount(table["session"])
    return table[lengths[table["session"]] >= 2]


def _filter(table: pd.DataFrame, min_item_clicks: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Rules 1 and 2: the clicks to keep, and the date of each session code, int64 (sessions,)."""
    date = table.groupby("session", sort=True)["time"].last().to_numpy()  # the codes are 0, 1, 2, ...
    table = _drop_short(table)
    if table.empty:
        raise InputError("no session has two clicks; is this the right column for the session?")
    counts = np.bincount(table["item"])
    table = _drop_short(table[counts[table["item"]] >= min_item_clicks])
    if table.empty:
        raise InputError(
            f"no session has two clicks after removing the items clicked fewer than {min_item_clicks} times; "
            "choose a smaller min_item_clicks"
        )
    return table, date


def _flatten(table: pd.DataFrame, date: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rules 3 and 5: item codes (clicks,), offsets (sessions + 1,) and dates (sessions,) of the chosen sessions."""
    table = table[chosen[table["session"]]]
    sessions = np.unique(table["session"])  # in order of first appearance in the log
    sessions = sessions[np.argsort(date[sessions], kind="stable")]
    place = np.zeros(len(date), dtype=np.int64)
    place[sessions] = np.arange(len(sessions))
    place = place[table["session"]]  # (clicks,)
    keys = (table["order"], place) if "order" in table else (place,)
    items = table["item"].to_numpy()[np.lexsort(keys)]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(sessions)))])
    return items, offsets, date[sessions]


def _most_recent(offsets: np.ndarray, fraction: Fraction) -> tuple[int, int | None]:
    """Rule 7: the first session kept, and the number of samples it contributes (None: all of them)."""
    samples = np.cumsum(np.diff(offsets) - 1)  # (sessions,), up to and including each session
    kept = int(samples[-1]) * fraction.numerator // fraction.denominator
    if kept == 0:
        raise InputError(f"{fraction} of {samples[-1]} training samples is less than one; choose a larger fraction")
    first = int(np.searchsorted(samples, samples[-1] - kept, side="right"))
    contributes = int(samples[first] - (samples[-1] - kept))
    return first, None if contributes == offsets[first + 1] - offsets[first] - 1 else contributes
