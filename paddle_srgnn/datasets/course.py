"""The course's protocol: a session is a user with all items in order of time, and the split is by user, not by day.

Source: the Datawhale course's pipeline around the reference's layers. Each epoch draws one training sample per user. In
validation and test, the first 80 % of a user's items are the input and the rest are the labels.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .clicks import Clicks
from .sessions import SessionDataset, Sessions

FIRST_CUT = 4  # minimum number of items before a training sample's target
CSV_COLUMNS = {"session": "user_id", "item": "item_id", "time": "timestamp"}
CUTS = 1  # number of this random stream; the order of samples has its own


def build_users(clicks: Clicks, name: str, source: str, seed: int = 0) -> SessionDataset:
    """Apply the course's protocol.

    1. A user's items form one sequence, in order of time and then of the file.
    2. Users with fewer than five items are dropped because they have no training sample. No items are dropped.
    3. The users are shuffled. The first 8/10 (rounded down) are for training, those up to 9/10 for validation, and the
       rest for test.
    4. Items are numbered from 1 in order of first appearance in the whole log, as in the course. Items without a
       training user keep their number and count as labels.

    Args:
        clicks: the log, grouped by user and in order of time (`read_csv`, `read_inter`).
        name: the dataset's name.
        source: a description of the log, for meta.json.
        seed: seed of the shuffle.

    Raises:
        InputError: one of the three parts would be empty.
    """
    users = clicks.table["session"].to_numpy()
    items = clicks.table["item"].to_numpy() + 1
    lengths = np.bincount(users)  # (users,)
    starts = np.cumsum(lengths) - lengths
    kept = np.flatnonzero(lengths > FIRST_CUT)
    bounds = [0, len(kept) * 8 // 10, len(kept) * 9 // 10, len(kept)]
    if min(np.diff(bounds)) == 0:
        raise InputError(
            f"{len(kept)} of {len(lengths)} users have {FIRST_CUT + 1} items or more: too few to split 8:1:1 into "
            "training, validation and test, expected at least 6; is this the right column for the user?"
        )
    shuffled = np.random.default_rng(seed).permutation(kept)

    def part(first: int, last: int) -> Sessions:
        chosen = shuffled[first:last]
        offsets = np.concatenate([[0], np.cumsum(lengths[chosen])])
        clicks = np.arange(offsets[-1]) + np.repeat(starts[chosen] - offsets[:-1], lengths[chosen])
        return Sessions(items[clicks].astype(np.int32), offsets)

    train, valid, test = map(part, bounds[:-1], bounds[1:])
    item_ids = ["", *clicks.item_ids]
    item_clicks = np.bincount(train.items, minlength=len(item_ids))
    parameters = {"seed": int(seed), "dropped_users": len(lengths) - len(kept)}
    meta = {"source": source, "protocol": "course", "parameters": parameters}
    return SessionDataset(name, train, test, item_ids, item_clicks, meta, valid=valid)


def n_cuts(users: Sessions) -> int:
    """The number of training samples in an epoch: one for each user with more than four items."""
    return int((users.lengths > FIRST_CUT).sum())


def random_cuts(users: Sessions, seed: int, epoch: int) -> np.ndarray:
    """An epoch's training samples: for each user, a target drawn from all items but the first four.

    User i's draw is number i of the random stream of seed and epoch, and depends on nothing else.

    Returns:
        Positions of the targets in `users.items`, int64 (n_cuts(users),), ascending.
    """
    uniform = np.random.default_rng([seed, epoch, CUTS]).random(len(users))  # (users,)
    lengths = users.lengths
    cuts = FIRST_CUT + (uniform * (lengths - FIRST_CUT)).astype(np.int64)
    return (users.offsets[:-1] + cuts)[lengths > FIRST_CUT]


def evaluation_cuts(users: Sessions) -> np.ndarray:
    """Positions in `users.items` where each user's labels begin, int(0.8 * length) items in: int64 (users,)."""
    return users.offsets[:-1] + (0.8 * users.lengths).astype(np.int64)
