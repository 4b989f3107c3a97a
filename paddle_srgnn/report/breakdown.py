"""Where a model is right and what it recommends: figures taken apart, from the ranks and lists of one pass."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from ..datasets.sessions import Sessions

K = 20  # of the metrics by group
KS = np.arange(1, 51)  # of the curves
EXAMPLES = 12

LENGTHS = (1, 2, 3, 4, 5, 7, 10, 15)  # where the groups begin; the last one is open
POPULARITIES = (0, 5, 10, 30, 100, 300, 1000, 3000)


class Group(NamedTuple):
    """The samples that have something in common, and the metrics over them in percent; NaN where there are none."""

    label: str
    samples: int
    p: float
    mrr: float


class Recommended(NamedTuple):
    """What is in a set of lists.

    Attributes:
        coverage: the share of the catalogue that is in any of them, in percent.
        median_clicks, mean_clicks: training clicks of their items, over all places of all lists.
    """

    coverage: float
    median_clicks: float
    mean_clicks: float


class Example(NamedTuple):
    """A sample, its items by number."""

    sample: int  # its place among the samples
    clicks: list[int]  # before the target, oldest first
    target: int
    rank: float
    top: list[int]  # best first


class Breakdown(NamedTuple):
    """The figures of one result, taken apart."""

    over_k: dict[str, np.ndarray]  # "P" and "MRR" at each of KS, in percent
    by_length: list[Group]  # clicks before the target
    by_popularity: list[Group]  # the target's training clicks
    by_novelty: list[Group]  # whether the target was clicked before in its session
    recommended: Recommended
    examples: list[Example]


def break_down(ranks: np.ndarray, top: np.ndarray, sessions: Sessions, item_clicks: np.ndarray) -> Breakdown:
    """Take the figures of one result apart.

    Args:
        ranks: (n_samples,), from 1, in order of the samples' positions.
        top: (n_samples, k) the lists, items by number.
        sessions: what the samples are of.
        item_clicks: (n_items,) training clicks of each item.
    """
    positions = sessions.sample_positions()
    targets = sessions.items[positions]
    length = positions - sessions.sample_starts(positions)
    novelty = ["new", "repeated"]
    return Breakdown(
        over_k=metrics_over_k(ranks),
        by_length=by_group(ranks, group_of(length, LENGTHS), group_labels(LENGTHS)),
        by_popularity=by_group(ranks, group_of(item_clicks[targets], POPULARITIES), group_labels(POPULARITIES)),
        by_novelty=by_group(ranks, was_clicked(sessions, positions).astype(np.int64), novelty),
        recommended=recommended(top, item_clicks),
        examples=examples(ranks, top, sessions),
    )


def metrics_over_k(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """P@K and MRR@K in percent at each K of `KS`, each float64 (len(KS),)."""
    first_k = np.minimum(np.ceil(ranks), KS[-1] + 1).astype(np.int64)  # the first K at which a sample is a hit
    hits = np.bincount(first_k, minlength=KS[-1] + 2)[KS]
    reciprocals = np.bincount(first_k, 1.0 / ranks, minlength=KS[-1] + 2)[KS]
    return {"P": 100.0 * hits.cumsum() / len(ranks), "MRR": 100.0 * reciprocals.cumsum() / len(ranks)}


def by_group(ranks: np.ndarray, group: np.ndarray, labels: list[str]) -> list[Group]:
    """P@20 and MRR@20 over the samples of each group; `group` (n,) numbers a sample's from 0."""
    hits = ranks <= K
    samples = np.bincount(group, minlength=len(labels))
    sums = [np.bincount(group, weights, minlength=len(labels)) for weights in (hits, hits / ranks)]
    with np.errstate(invalid="ignore"):  # 0 / 0 of a group without samples is the NaN it should be
        p, mrr = (100.0 * of_groups / samples for of_groups in sums)
    return list(map(Group, labels, samples.tolist(), p.tolist(), mrr.tolist()))


def group_of(values: np.ndarray, starts: tuple[int, ...]) -> np.ndarray:
    """The number of the group (n,) whose start is the last one not above the value (n,)."""
    return np.searchsorted(starts, values, side="right") - 1


def group_labels(starts: tuple[int, ...]) -> list[str]:
    """What the groups hold, whole numbers: "1", "5–6", and of the last one "15+"."""
    closed = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(starts)]
    return [*closed, f"{starts[-1]}+"]


def was_clicked(sessions: Sessions, positions: np.ndarray) -> np.ndarray:
    """Whether the target was clicked before in its session, bool (n,)."""
    session = np.repeat(np.arange(len(sessions)), sessions.lengths)  # (clicks,)
    pairs = session * (int(sessions.items.max()) + 1) + sessions.items
    _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
    return first[which[positions]] < positions


def recommended(top: np.ndarray, item_clicks: np.ndarray) -> Recommended:
    """What is in lists of items by number, of any shape, given the training clicks of each item (n_items,)."""
    places = np.bincount(top.ravel(), minlength=len(item_clicks))  # of each item, in all lists
    by_clicks = np.argsort(item_clicks, kind="stable")
    middle = by_clicks[np.searchsorted(places[by_clicks].cumsum(), (top.size + 1) // 2)]
    coverage = 100.0 * np.count_nonzero(places) / (len(item_clicks) - 1)
    return Recommended(coverage, float(item_clicks[middle]), float(places @ item_clicks / top.size))


def examples(ranks: np.ndarray, top: np.ndarray, sessions: Sessions) -> list[Example]:
    """Some samples, half of them hits and half misses where there are enough, evenly spread over the split."""
    hit = np.flatnonzero(ranks <= K)
    missed = np.flatnonzero(ranks > K)
    n_hits = min(len(hit), max(EXAMPLES // 2, EXAMPLES - len(missed)))
    chosen = np.sort(np.concatenate([_spread(hit, n_hits), _spread(missed, EXAMPLES - n_hits)]))
    positions = sessions.sample_positions()[chosen]
    starts = sessions.sample_starts(positions)
    return [
        Example(int(sample), sessions.items[start:position].tolist(), int(sessions.items[position]),
                float(ranks[sample]), top[sample].tolist())
        for sample, start, position in zip(chosen, starts, positions, strict=True)
    ]  # fmt: skip


def _spread(of: np.ndarray, n: int) -> np.ndarray:
    """The middles of n equal parts of `of`, or all of a shorter one."""
    n = min(n, len(of))
    return of[(2 * np.arange(n) + 1) * len(of) // max(2 * n, 1)]
