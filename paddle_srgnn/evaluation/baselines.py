"""Baselines (popularity, first-order Markov, nearest neighbours), and the ceiling of the synthetic sample.

Each is trained on sessions and scores all items, so that its ranks are counted as a model's are. A `train` argument is
the training sessions, and `n_items` the number of items, padding included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy import sparse

from ..datasets.sessions import SessionDataset, Sessions
from ..datasets.synthetic import World, sample_world
from ..protocols.metrics import count_above, top_k

CHUNK_SCORES = 1 << 21  # held at a time: 16 MB; the system allocates larger blocks anew, at three times the cost


class Baseline(Protocol):
    """Scores items; a sample is the position of its target in the sessions' items."""

    name: str
    n_items: int

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        """Scores of all items, padding in column 0, for the samples at `positions` (n,): float64 (n, n_items)."""


def training_clicks(train: Sessions, n_items: int) -> np.ndarray:
    """Clicks of each item in the training samples, int64 (n_items,)."""
    return np.bincount(train.items[_training_positions(train)], minlength=n_items)


def _training_positions(train: Sessions) -> np.ndarray:
    """Positions in `items` of the clicks in training samples, int64 (clicks,).

    If the first session contributes only some of its samples, its clicks after the last of them are left out.
    """
    return np.concatenate([train.offsets[:-1], train.sample_positions()])


def _popularity_share(train: Sessions, n_items: int) -> np.ndarray:
    """Share of each item in the training clicks, below 1, float64 (n_items,). It breaks ties between scores."""
    clicks = training_clicks(train, n_items)
    return clicks / (clicks.sum() + 1.0)


def clicks_before(sessions: Sessions, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inputs of the samples at `positions` (n,), oldest click first.

    Returns:
        For each click its sample, from 0 to n - 1, its item, and its distance from the target, 1 for the latest click:
        each (clicks,) int.
    """
    starts = sessions.sample_starts(positions)
    lengths = positions - starts
    sample = np.repeat(np.arange(len(positions)), lengths)
    first = np.cumsum(lengths) - lengths  # (n,), the first click of each sample
    place = np.arange(len(sample)) + (starts - first)[sample]
    return sample, sessions.items[place], positions[sample] - place


class Popularity:
    """Ranks items by their clicks in training, regardless of the session."""

    name = "popularity"

    def __init__(self, train: Sessions, n_items: int):
        self.n_items = n_items
        self._clicks = training_clicks(train, n_items).astype(np.float64)  # (n_items,)

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self._clicks, (len(positions), self.n_items))


class Markov:
    """Ranks items by how often they followed the last click's item in training (item to item, first order).

    The score is this count plus the item's share of all training clicks, which is below 1. So popularity ranks the
    many items that never followed, without which the baseline would be needlessly weak.
    """

    name = "Markov"

    def __init__(self, train: Sessions, n_items: int):
        self.n_items = n_items
        targets = train.sample_positions()
        steps = (train.items[targets - 1], train.items[targets])
        counts = sparse.coo_array((np.ones(len(targets)), steps), shape=(n_items, n_items))
        self._counts = counts.tocsr()  # (n_items, n_items), repeated steps summed
        self._share = _popularity_share(train, n_items)  # (n_items,)

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        # float64: next to a count of a hundred, float32 cannot distinguish the shares of rare items.
        return self._counts[sessions.items[positions - 1]].toarray() + self._share


class SessionPopularity:
    """Ranks items by their clicks in the session so far, then by popularity.

    S-POP of Hidasi et al., *Session-based Recommendations with Recurrent Neural Networks*, ICLR 2016.
    """

    name = "session popularity"

    def __init__(self, train: Sessions, n_items: int):
        self.n_items = n_items
        self._share = _popularity_share(train, n_items)  # (n_items,)

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        sample, item, _ = clicks_before(sessions, positions)
        scores = np.tile(self._share, (len(positions), 1))
        np.add.at(scores, (sample, item), 1.0)
        return scores


DECAYS = {
    "div": lambda step: 1.0 / step,
    "quadratic": lambda step: 1.0 / step**2,
    "log": lambda step: 1.0 / np.log10(step + 1.7),
}


class VSKNN:
    """Ranks items by the training sessions most similar to the session so far, weighting recent clicks most.

    V-SKNN of Ludewig & Jannach, *Evaluation of Session-based Recommendation Algorithms*, UMUAI 2018. In a session of L
    clicks the click `step` steps before the target weighs (L - step + 1) / L. A training session's similarity is the
    sum of the weights of the items it shares, each by its latest click. The neighbours are the `k` most similar of the
    `m` most recent training sessions that share an item; ties go to the most recent. An item's score is the sum, over
    the neighbours that contain it, of similarity x decay(step), with the step of the latest click that the neighbour
    shares. As in Ludewig et al., *Empirical Analysis of Session-based Recommendation Algorithms*, UMUAI 2021, it is
    multiplied by 1 + idf x ln(training sessions / those that contain the item). Popularity breaks ties.

    The defaults were chosen on the most recent tenth of the training sessions: data/results/vsknn-validation.csv.

    Args:
        train: in order of date.
        decay: one of `DECAYS`.
        idf: how much rare items are preferred; 0 gives the method of 2018.
    """

    name = "V-SKNN"
    ROWS = 64  # samples whose neighbours are held at a time
    TIE = 1e-6  # weight of the popularity: too small to reorder scores, large enough to count in float64

    def __init__(self, train: Sessions, n_items: int, k: int = 500, m: int = 5000, decay: str = "div", idf: float = 2):
        self.n_items, self.k, self.m = n_items, k, m
        self._decay = DECAYS[decay]
        positions = _training_positions(train)
        session = np.searchsorted(train.offsets, positions, side="right") - 1
        session, item = np.divmod(np.unique(session * n_items + train.items[positions]), n_items)
        self._sessions = _incidence(session, item, (len(train), n_items))
        by_item = np.argsort(item, kind="stable")
        # The m most recent sessions that share an item are among the m most recent that contain that item.
        by_item = by_item[_last_of_each(item[by_item], m)]
        self._holders = _incidence(item[by_item], session[by_item], (n_items, len(train)))
        holders = np.maximum(np.bincount(item, minlength=n_items), 1)  # (n_items,)
        self._rarity = 1.0 + idf * np.log(len(train) / holders)  # (n_items,)
        self._tie = self.TIE * _popularity_share(train, n_items)  # (n_items,)

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        scores = np.tile(self._tie, (len(positions), 1))
        for start in range(0, len(positions), self.ROWS):
            found = self._neighbours_scores(sessions, positions[start : start + self.ROWS])
            row = start + np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
            scores[row, found.indices] += found.data * self._rarity[found.indices]
        return scores

    def _neighbours_scores(self, sessions: Sessions, positions: np.ndarray) -> sparse.csr_array:
        """The sums over the neighbours, (n, n_items)."""
        n = len(positions)
        sample, item, step = clicks_before(sessions, positions)
        latest = np.unique((sample * self.n_items + item)[::-1], return_index=True)[1]  # of each item, from the end
        sample, item, step = sample[::-1][latest], item[::-1][latest], step[::-1][latest]
        length = positions - sessions.sample_starts(positions)  # (n,)
        weight = length[sample] - step + 1  # times L, as whole numbers: equal sums stay exactly equal
        clicks = sparse.csr_array((weight, (sample, item)), shape=(n, self.n_items))

        similarity = clicks @ self._holders  # (n, training sessions)
        similarity.sort_indices()
        sample_of = np.repeat(np.arange(n), np.diff(similarity.indptr))
        recent = _last_of_each(sample_of, self.m)
        sample_of, near, alike = sample_of[recent], similarity.indices[recent], similarity.data[recent]
        order = np.lexsort((near, alike, sample_of))
        order = order[_last_of_each(sample_of[order], self.k)]
        sample_of, near, alike = sample_of[order], near[order], alike[order]

        recency = sparse.csr_array((self._decay(step), (sample, item)), shape=(n, self.n_items))
        shared = self._sessions[near].multiply(recency[sample_of])  # (neighbours, n_items)
        alike = alike / length[sample_of] * shared.max(axis=1).toarray().ravel()
        return sparse.csr_array((alike, (sample_of, near)), shape=similarity.shape) @ self._sessions


def _incidence(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _last_of_each(groups: np.ndarray, n: int) -> np.ndarray:
    """Which entries of ascending `groups` are among the last n of their group, bool."""
    return np.searchsorted(groups, groups, side="right") - np.arange(len(groups)) <= n


class TrueDistribution:
    """Ranks items by their probability in the synthetic world that drew the sessions: the ceiling on its sample.

    It is given the same clicks as a model, without the items that the protocol removed.
    """

    name = "ceiling"
    is_bound = True

    def __init__(self, world: World, item_ids: list[str]):  # raw id of each item number
        self.n_items = len(item_ids)
        self._world = world
        code_of = {raw: code for code, raw in enumerate(world.item_ids)}
        self._codes = np.array([0, *(code_of[raw] for raw in item_ids[1:])])  # (n_items,), unused for the padding

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        before = np.maximum(positions - 2, sessions.sample_starts(positions))
        previous, current = self._codes[sessions.items[before]], self._codes[sessions.items[positions - 1]]
        return self._world.next_click_probabilities(previous, current)[:, self._codes]


def baselines(dataset: SessionDataset) -> list[Baseline]:
    """The baselines, trained on a dataset's training sessions, and last the ceiling of a synthetic dataset."""
    trained = [kind(dataset.train, dataset.n_items) for kind in (Popularity, SessionPopularity, Markov, VSKNN)]
    world = sample_world(dataset)
    return trained if world is None else [*trained, TrueDistribution(world, dataset.item_ids)]


class BaselineScorer:
    """Counts and lists a baseline's scores for the protocols, `chunk_scores` at a time; padding is never listed."""

    def __init__(self, baseline: Baseline, chunk_scores: int = CHUNK_SCORES):
        self.baseline, self.n_items = baseline, baseline.n_items
        self.chunk = max(1, chunk_scores // baseline.n_items)

    def count(self, sessions: Sessions, advance: Callable, top: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """As `ranks.count_ranks`."""
        positions, counts = sessions.sample_positions(), []
        for start in range(0, len(positions), self.chunk):
            some = positions[start : start + self.chunk]
            scores = self.baseline.scores(sessions, some)
            counts.append(count_above(scores, sessions.items[some]))
            if top is not None:
                top[start : start + self.chunk] = 1 + top_k(scores[:, 1:], top.shape[1])[0]
            advance(len(some))
        return tuple(map(np.concatenate, zip(*counts, strict=True)))

    def best(self, sessions: Sessions, positions: np.ndarray, k: int, advance: Callable) -> np.ndarray:
        """The k items of highest score given the clicks before each position (n,), ties by number: int64 (n, k)."""
        k, lists = min(k, self.n_items - 1), []
        for start in range(0, len(positions), self.chunk):
            scores = self.baseline.scores(sessions, positions[start : start + self.chunk])
            lists.append(1 + top_k(scores[:, 1:], k)[0])
            advance(len(lists[-1]))
        return np.concatenate(lists)
