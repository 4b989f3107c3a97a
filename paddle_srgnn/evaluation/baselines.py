"""What a model has to beat (popularity, first-order Markov, neighbours), and what none can (the sample's distribution).

Each scores every item for any samples of a split, so that the ranks come from the same counting as a model's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from scipy import sparse

from ..datasets.sessions import SessionDataset, Sessions
from ..datasets.synthetic import World, sample_world
from ..protocols.metrics import count_above, top_k

# Scores held at a time: 16 MB; larger blocks come fresh from the system, at three times the cost.
CHUNK_SCORES = 1 << 21


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
    return np.bincount(train.items[training_positions(train)], minlength=n_items)


def training_positions(train: Sessions) -> np.ndarray:
    """Positions in `items` of the clicks that the training samples hold, int64 (clicks,)."""
    return np.concatenate([train.offsets[:-1], train.sample_positions()])


def popularity_share(train: Sessions, n_items: int) -> np.ndarray:
    """Share of each item in the training clicks, below 1, float64 (n_items,): it ranks items of equal score."""
    clicks = training_clicks(train, n_items)
    return clicks / (clicks.sum() + 1.0)


def clicks_before(sessions: Sessions, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inputs of the samples at `positions` (n,), oldest click first.

    Returns:
        Of each click its sample, from 0 to n - 1, its item, and its steps before the target, 1 for the latest click:
        each (clicks,) int.
    """
    starts = sessions.sample_starts(positions)
    lengths = positions - starts
    sample = np.repeat(np.arange(len(positions)), lengths)
    first = np.cumsum(lengths) - lengths  # (n,) of each sample among the clicks returned
    place = np.arange(len(sample)) + (starts - first)[sample]
    return sample, sessions.items[place], positions[sample] - place


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
        self._share = popularity_share(train, n_items)  # (n_items,)

    def scores(self, sessions: Sessions, positions: np.ndarray) -> np.ndarray:
        # float64: beside a count of a hundred, float32 no longer tells the shares of rare items apart.
        return self._counts[sessions.items[positions - 1]].toarray() + self._share


class SessionPopularity:
    """Ranks the session's items by their clicks in it so far, and all others behind them; those equal by popularity.

    S-POP of Hidasi et al., *Session-based Recommendations with Recurrent Neural Networks*, ICLR 2016.

    Args:
        train: the training sessions.
        n_items: the number of items, padding included.
    """

    name = "session popularity"

    def __init__(self, train: Sessions, n_items: int):
        self.n_items = n_items
        self._share = popularity_share(train, n_items)  # (n_items,)

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
    """Ranks items by the training sessions most like the session so far, its recent clicks counting most.

    V-SKNN of Ludewig & Jannach, *Evaluation of Session-based Recommendation Algorithms*, UMUAI 2018. In a session of L
    clicks the click `step` steps before the target weighs (L - step + 1) / L. A training session's similarity is the
    sum of the weights of the items it shares, each by its latest click. Of the `m` most recent training sessions that
    share an item the `k` most similar are the neighbours; of equally similar ones the most recent. An item's score is
    the sum, over the neighbours that hold it, of similarity x decay(step), with the step of the latest click that the
    neighbour shares. As in Ludewig et al., *Empirical Analysis of Session-based Recommendation Algorithms*, UMUAI 2021,
    it is multiplied by 1 + idf x ln(training sessions / those that hold the item). Items of equal score, most of them
    in no neighbour, are ranked by popularity.

    The defaults were chosen on the most recent tenth of the training sessions: data/results/vsknn-validation.csv.

    Args:
        train: the training sessions, in order of date.
        n_items: the number of items, padding included.
        k: the number of neighbours.
        m: the number of training sessions they are chosen from.
        decay: one of `DECAYS`.
        idf: how much rare items are preferred; 0 is the method of 2018.
    """

    name = "V-SKNN"
    ROWS = 64  # samples whose neighbours are held at a time
    TIE = 1e-6  # weight of the popularity: too little to reorder scores, and in float64 not lost beside them

    def __init__(self, train: Sessions, n_items: int, k: int = 500, m: int = 5000, decay: str = "div", idf: float = 2):
        self.n_items, self.k, self.m = n_items, k, m
        self._decay = DECAYS[decay]
        positions = training_positions(train)
        session = np.searchsorted(train.offsets, positions, side="right") - 1
        session, item = np.divmod(np.unique(session * n_items + train.items[positions]), n_items)
        self._sessions = _incidence(session, item, (len(train), n_items))
        by_item = np.argsort(item, kind="stable")
        # One of the m most recent sessions that share an item is one of the m most recent that hold that item.
        by_item = by_item[_last_of_each(item[by_item], m)]
        self._holders = _incidence(item[by_item], session[by_item], (n_items, len(train)))
        holders = np.maximum(np.bincount(item, minlength=n_items), 1)  # (n_items,)
        self._rarity = 1.0 + idf * np.log(len(train) / holders)  # (n_items,)
        self._tie = self.TIE * popularity_share(train, n_items)  # (n_items,)

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
        weight = length[sample] - step + 1  # times L for now: sums of whole numbers that should be equal are
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
    """Which entries of ascending `groups` are among the last n of their own, bool."""
    return np.searchsorted(groups, groups, side="right") - np.arange(len(groups)) <= n


class TrueDistribution:
    """Ranks items by the probability with which the synthetic world draws them next: the ceiling on its sample.

    The world is asked about the clicks that a model sees, which lack the items that the protocol removed.

    Args:
        world: the world that made the sessions.
        item_ids: raw id of each item number.
    """

    name = "ceiling"
    is_bound = True

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
    kinds = (Popularity, SessionPopularity, Markov, VSKNN)
    trained: list[Baseline] = [kind(dataset.train, dataset.n_items) for kind in kinds]
    world = sample_world(dataset)
    return trained if world is None else [*trained, TrueDistribution(world, dataset.item_ids)]


class BaselineScorer:
    """A baseline as the protocols measure it, in bounded memory; the padding is never a candidate.

    Args:
        baseline: scores the items.
        chunk_scores: scores held at a time.
    """

    def __init__(self, baseline: Baseline, chunk_scores: int = CHUNK_SCORES):
        self.baseline, self.n_items = baseline, baseline.n_items
        self.chunk = max(1, chunk_scores // baseline.n_items)

    def count(self, sessions: Sessions, advance: Callable, top: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """For each sample, how many items score above its target and how many others as high, each int64 (n_samples,).

        `top` (n_samples, k), if it is given, gets the k best items of each sample, best first.
        """
        positions, counts = sessions.sample_positions(), []
        for start in range(0, len(positions), self.chunk):
            some = positions[start : start + self.chunk]
            scores = self.baseline.scores(sessions, some)
            counts.append(count_above(scores, sessions.items[some]))
            if top is not None:
                top[start : start + self.chunk] = 1 + top_k(scores[:, 1:], top.shape[1])[0]
            advance(len(some))
        greater, equals = (np.concatenate(parts) for parts in zip(*counts, strict=True))
        return greater, equals

    def best(self, sessions: Sessions, positions: np.ndarray, k: int, advance: Callable) -> np.ndarray:
        """The k items of highest score after the clicks before each position (n,), equal ones by number: (n, k)."""
        k, lists = min(k, self.n_items - 1), []
        for start in range(0, len(positions), self.chunk):
            scores = self.baseline.scores(sessions, positions[start : start + self.chunk])
            lists.append(1 + top_k(scores[:, 1:], k)[0])
            advance(len(lists[-1]))
        return np.concatenate(lists)
