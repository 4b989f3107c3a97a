"""What a model has to beat (popularity, first-order Markov), and what none can beat (the sample's true distribution).

Each scores every item for any samples of a split, so that the ranks come from the same counting as a model's.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy import sparse

from ..datasets.sessions import SessionDataset, Sessions
from ..datasets.synthetic import World, sample_world
from .metrics import count_above, ranks

CHUNK_SCORES = 1 << 23  # scores held at a time: 64 MB


class Baseline(Protocol):
    """Scores items; a sample is the position of its target in the sessions' items."""

    name: str
    n_items: int

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        """Scores of all items, padding in column 0, for the samples at `positions` (n,): float64 (n, n_items)."""


def training_clicks(train: Sessions, n_items: int) -> np.ndarray:
    """Clicks of each item in the training samples, int64 (n_items,).

    Clicks past the last sample of a first session that contributes only some do not count.
    """
    seen = np.concatenate([train.items[train.offsets[:-1]], train.items[train.sample_positions()]])
    return np.bincount(seen, minlength=n_items)


class Popularity:
    """Ranks items by their clicks in training, whatever the session.

    Args:
        train: the training sessions.
        n_items: the number of items, padding included.
    """

    name = "popularity"

    def __init__(self, train: Sessions, n_items: int):
        self.n_items = n_items
        self._clicks = training_clicks(train, n_items).astype(np.float64)  # (n_items,)

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self._clicks, (len(positions), self.n_items))


class Markov:
    """Ranks items by how often they followed the last click's item in training (item to item, first order).

    Items that followed it equally often, most of them never, are ranked by popularity: the score is the count plus
    the share of all training clicks, which is below 1. Without that the baseline would be weaker than it need be.

    Args:
        train: the training sessions.
        n_items: the number of items, padding included.
    """

    name = "Markov"

    def __init__(self, train: Sessions, n_items: int):
        self.n_items = n_items
        targets = train.sample_positions()
        steps = (train.items[targets - 1], train.items[targets])
        counts = sparse.coo_array((np.ones(len(targets)), steps), shape=(n_items, n_items))
        self._counts = counts.tocsr()  # (n_items, n_items), repeated steps summed
        clicks = training_clicks(train, n_items)
        self._share = clicks / (clicks.sum() + 1.0)  # (n_items,)

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        # float64: beside a count of a hundred, float32 no longer tells the shares of rare items apart.
        return self._counts[sessions.items[positions - 1]].toarray() + self._share


class TrueDistribution:
    """Ranks items by the probability with which the synthetic world draws them next: the ceiling on its sample.

    The world is asked about the clicks that a model sees, which lack the items that the protocol removed.

    Args:
        world: the world that made the sessions.
        item_ids: raw id of each item number.
    """

    name = "ceiling"

    def __init__(self, world: World, item_ids: list[str]):
        self.n_items = len(item_ids)
        self._world = world
        code_of = {raw: code for code, raw in enumerate(world.item_ids)}
        self._codes = np.array([0, *(code_of[raw] for raw in item_ids[1:])])  # (n_items,); the padding's is never used

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        before = np.maximum(positions - 2, sessions.sample_starts(positions))
        previous, current = self._codes[sessions.items[before]], self._codes[sessions.items[positions - 1]]
        return self._world.next_click_probabilities(previous, current)[:, self._codes]


def baselines(dataset: SessionDataset) -> list[Baseline]:
    """The baselines, trained on a dataset's training sessions, and last, if it is synthetic, its ceiling."""
    trained: list[Baseline] = [kind(dataset.train, dataset.n_items) for kind in (Popularity, Markov)]
    world = sample_world(dataset)
    return trained if world is None else [*trained, TrueDistribution(world, dataset.item_ids)]


def baseline_ranks(
    baseline: Baseline, sessions: Sessions, ties: str = "mean", chunk_scores: int = CHUNK_SCORES
) -> np.ndarray:
    """Rank of every sample's target, in memory bounded by `chunk_scores` scores at a time.

    Args:
        baseline: scores the items.
        sessions: the split to rank, for example a dataset's `test`.
        ties: as for `metrics.ranks`.

    Returns:
        Ranks from 1, float64 (n_samples,), in order of the samples' positions.
    """
    positions = sessions.sample_positions()
    chunk = max(1, chunk_scores // baseline.n_items)
    counts = [
        count_above(baseline.scores(sessions, some), sessions.items[some])
        for some in (positions[start : start + chunk] for start in range(0, len(positions), chunk))
    ]
    greater, equals = (np.concatenate(parts) for parts in zip(*counts, strict=True))
    return ranks(greater, equals, ties)
