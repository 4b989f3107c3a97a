"""Load a dataset from a folder, the embedded sample or a pandas frame."""

from __future__ import annotations

import os
from collections.abc import Hashable
from fractions import Fraction

import pandas as pd

from .clicks import clicks_of_frame
from .protocol import build_dataset
from .sessions import SessionDataset, open_dataset, verify_dataset
from .synthetic import sample_dataset


def load_dataset(data: str | os.PathLike) -> SessionDataset:
    """Open a dataset and check every file against its recorded hash.

    Args:
        data: a dataset's folder, or "sample" for the embedded sample, which is generated on the fly.

    Raises:
        InputError: the folder is not a dataset, or a file is truncated or altered.
    """
    if data == "sample":
        return sample_dataset()
    dataset = open_dataset(data)
    verify_dataset(dataset)
    return dataset


def dataset_from_frame(
    frame: pd.DataFrame,
    session: Hashable = "session",
    item: Hashable = "item",
    time: Hashable = "time",
    *,
    name: str = "frame",
    test_days: float = 7,
    min_item_clicks: int = 5,
    fraction: Fraction | str | float = 1,
    protocol: str = "sessions",
    seed: int = 0,
) -> SessionDataset:
    """Build a dataset from a pandas frame with a row per click, as from a CSV file with the same content.

    Args:
        frame: the clicks, in any order.
        session, item, time: labels of its columns. Ids are used as strings. Times are Unix seconds, ISO 8601 strings
            or pandas datetimes, in UTC if they have no time zone.
        name: the dataset's name, also used in error messages.
        test_days, min_item_clicks, fraction: see `protocol.build_sessions`. The course's protocol ignores them.
        protocol: "sessions" (the paper's) or "course", where a session is a user.
        seed: seed of the course's split of users.

    Raises:
        InputError: a column is missing, a value is missing or malformed (the message names the row's label), or the
            protocol leaves no training or no test sessions.
    """
    clicks = clicks_of_frame(frame, {"session": session, "item": item, "time": time}, name)
    parameters = {"test_days": test_days, "min_item_clicks": min_item_clicks, "fraction": fraction}
    return build_dataset(clicks, name, "pandas frame", protocol, seed=seed, **parameters)
