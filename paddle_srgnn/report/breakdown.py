"""A result in detail: accuracy by K and by group, and what the lists contain, from the ranks and lists of one pass."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..datasets.sessions import Sessions

K = 20  # the cut-off of the metrics by group
KS = np.arange(1, 51)  # the cut-offs of the curves
EXAMPLES = 12
LEAST = 50  # samples in a group; the metrics of fewer are noise

LENGTHS = (1, 2, 3, 4, 5, 7, 10, 15)  # the first value of each group; the last group is open
POPULARITIES = (0, 5, 10, 30, 100, 300, 1000, 3000)


class Group(NamedTuple):
    """A group of samples and its metrics in percent, NaN for an empty group."""

    label: str
    samples: int
    p: float
    mrr: float


class Recommended(NamedTuple):
    """What a set of lists contains.

    Attributes:
        coverage: the share of the catalogue that appears in at least one list, in percent.
        median_clicks, mean_clicks: training clicks of the listed items, over all places of all lists.
    """

    coverage: float
    median_clicks: float
    mean_clicks: float


class Example(NamedTuple):
    """A sample; items are item numbers."""

    sample: int  # index among the samples
    clicks: list[int]  # before the target, oldest first
    target: int
    rank: float
    top: list[int]  # best first


class Breakdown(NamedTuple):
    """One result in detail."""

    over_k: dict[str, np.ndarray]  # "P" and "MRR" at each of KS, in percent
    by_length: list[Group]  # clicks before the target
    by_popularity: list[Group]  # training clicks of the target
    by_novelty: list[Group]  # whether the target was clicked earlier in its session
    recommended: Recommended
    examples: list[Example]


def break_down(ranks: np.ndarray, top: np.ndarray, sessions: Sessions, item_clicks: np.ndarray) -> Breakdown:
    """Break one result down.

    Args:
        ranks: (n_samples,), from 1, in order of the samples' positions.
        top: (n_samples, k) the lists of item numbers.
        sessions: the sessions of the samples.
        item_clicks: (n_items,) training clicks of each item.
    """
    positions = sessions.sample_positions()
    length = positions - sessions.sample_starts(positions)
    clicks = item_clicks[sessions.items[positions]]
    return Breakdown(
        over_k=metrics_over_k(ranks),
        by_length=by_range(ranks, length, LENGTHS),
        by_popularity=by_range(ranks, clicks, POPULARITIES),
        by_novelty=by_group(ranks, was_clicked(sessions, positions).astype(np.int64), ["new", "repeated"]),
        recommended=recommended(top, item_clicks),
        examples=examples(ranks, top, sessions),
    )


def metrics_over_k(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """P@K and MRR@K in percent at each K of `KS`, each float64 (len(KS),)."""
    first_k = np.minimum(np.ceil(ranks), KS[-1] + 1).astype(np.int64)  # the smallest K at which the sample is a hit
    hits = np.bincount(first_k, minlength=KS[-1] + 2)[KS]
    reciprocals = np.bincount(first_k, 1.0 / ranks, minlength=KS[-1] + 2)[KS]
    return {"P": 100.0 * hits.cumsum() / len(ranks), "MRR": 100.0 * reciprocals.cumsum() / len(ranks)}


def by_range(ranks: np.ndarray, values: np.ndarray, starts: Sequence[int]) -> list[Group]:
    """P@20 and MRR@20 over ranges of the samples' values (n,); a range with too few samples joins its neighbour."""
    starts = merge_small(np.bincount(group_of(values, starts), minlength=len(starts)), starts, LEAST)
    return by_group(ranks, group_of(values, starts), group_labels(starts))


def merge_small(samples: Sequence[int], starts: Sequence[int], least: int) -> list[int]:
    """The starts of ranges with at least `least` samples each, given the samples of the ranges that begin at `starts`.

    A small range joins the next one, the last joins the one before it.
    """
    merged, held = [starts[0]], 0
    for start, n in zip(starts, samples, strict=True):
        if held >= least:
            merged.append(start)
            held = 0
        held += n
    return merged[:-1] if held < least and len(merged) > 1 else merged


def by_group(ranks: np.ndarray, group: np.ndarray, labels: Sequence[str]) -> list[Group]:
    """P@20 and MRR@20 over the samples of each group; `group` (n,) is each sample's group, from 0."""
    hits = ranks <= K
    samples = np.bincount(group, minlength=len(labels))
    sums = [np.bincount(group, weights, minlength=len(labels)) for weights in (hits, hits / ranks)]
    with np.errstate(invalid="ignore"):  # an empty group's metrics are 0 / 0 = NaN
        p, mrr = (100.0 * of_groups / samples for of_groups in sums)
    return list(map(Group, labels, samples.tolist(), p.tolist(), mrr.tolist()))


def group_of(values: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """The index (n,) of the last start that is not above each value (n,)."""
    return np.searchsorted(starts, values, side="right") - 1


def group_labels(starts: Sequence[int]) -> list[str]:
    """Labels of ranges of whole numbers: "1", "5–6", and "15+" for the last one."""
    closed = [str(a) if b == a + 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(starts)]
    return [*closed, f"{starts[-1]}+"]


def was_clicked(sessions: Sessions, positions: np.ndarray) -> np.ndarray:
    """Whether each target was clicked earlier in its session, bool (n,)."""
    session = np.repeat(np.arange(len(sessions)), sessions.lengths)  # (clicks,)
    pairs = session * (int(sessions.items.max()) + 1) + sessions.items
    _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
    return first[which[positions]] < positions


def recommended(top: np.ndarray, item_clicks: np.ndarray) -> Recommended:
    """What lists of item numbers, of any shape, contain, given the training clicks of each item (n_items,)."""
    places = np.bincount(top.ravel(), minlength=len(item_clicks))  # how often each item is listed
    by_clicks = np.argsort(item_clicks, kind="stable")
    middle = by_clicks[np.searchsorted(places[by_clicks].cumsum(), (top.size + 1) // 2)]
    coverage = 100.0 * np.count_nonzero(places) / (len(item_clicks) - 1)
    return Recommended(coverage, float(item_clicks[middle]), float(places @ item_clicks / top.size))


def examples(ranks: np.ndarray, top: np.ndarray, sessions: Sessions) -> list[Example]:
    """Samples spread evenly over the split, half of them hits and half misses where there are enough of both."""
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
    """The middle elements of n equal parts of `of`, or all elements of a shorter array."""
    n = min(n, len(of))
    return of[(2 * np.arange(n) + 1) * len(of) // max(2 * n, 1)]
