"""Baselines by hand, against brute force, on a ring whose next item is certain, and on the synthetic sample."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.datasets.synthetic import sample_dataset
from paddle_srgnn.evaluation.baselines import Markov, Popularity, baseline_ranks, baselines, training_clicks
from paddle_srgnn.evaluation.metrics import ranking_metrics


def make(*sessions: list[int], first_samples: int | None = None) -> Sessions:
    items = np.array([item for session in sessions for item in session], dtype=np.int32)
    return Sessions(items, np.cumsum([0, *map(len, sessions)]), first_samples=first_samples)


TRAIN = make([1, 2, 3], [1, 2], [3, 2, 1, 2], [4, 3])  # clicks of 1..4: 3, 4, 3, 1; item 5 has none
TEST = make([1, 3, 4], [2, 5])  # samples 1->3, 3->4, 2->5


def test_popularity_by_hand():
    popularity = Popularity(TRAIN, 6)
    assert training_clicks(TRAIN, 6).tolist() == [0, 3, 4, 3, 1, 0]
    assert popularity.scores(TEST, np.array([1, 4])).tolist() == [[0, 3, 4, 3, 1, 0]] * 2
    assert baseline_ranks(popularity, TEST).tolist() == [2.5, 4, 5]  # 3 is tied with 1 behind 2
    assert baseline_ranks(popularity, TEST, ties="optimistic").tolist() == [2, 4, 5]


def test_markov_by_hand():
    markov = Markov(TRAIN, 6)
    # Steps: 1->2 three times, 2->3, 2->1, 3->2, 4->3 once each. Shares are clicks / 12.
    expected = np.array([[0, 3, 4 + 3 * 12, 3, 1, 0], [0, 3, 4 + 12, 3, 1, 0], [0, 3 + 12, 4, 3 + 12, 1, 0]]) / 12
    assert markov.scores(TEST, np.array([1, 2, 4])) == pytest.approx(expected)
    # After 1 comes 2, then by popularity 1 and 3 (tied); after 3 comes 2, then 1 and 3, then 4; 5 is last.
    assert baseline_ranks(markov, TEST).tolist() == [2.5, 4, 5]


def test_clicks_beyond_the_first_samples_are_not_learnt_from():
    train = make([1, 2, 3, 3, 3], [4, 1], first_samples=1)
    assert training_clicks(train, 5).tolist() == [0, 2, 1, 0, 1]
    scores = Markov(train, 5).scores(make([2, 1], [1, 2]), np.array([1, 3]))
    assert scores == pytest.approx(np.array([[0, 2, 1, 0, 1], [0, 2, 1 + 5, 0, 1]]) / 5)


def test_a_first_step_outweighs_any_popularity():
    train = make([1, 2], *[[3, 3]] * 500)
    assert baseline_ranks(Markov(train, 4), make([1, 2])).tolist() == [1]


def test_rare_items_are_told_apart_behind_a_large_count():
    """The shares of items clicked once and twice differ by 1 / 200,000 beside a count of 100,000."""
    train = make([1, 1] * 50_000, [2, 3], [3, 4])
    assert baseline_ranks(Markov(train, 5), make([1, 3])).tolist() == [2]


SESSION = st.lists(st.integers(1, 6), min_size=2, max_size=6)


@given(
    st.lists(SESSION, min_size=1, max_size=6), st.lists(SESSION, min_size=1, max_size=4), st.integers(1, 5), st.data()
)
def test_ranks_agree_with_brute_force_whatever_the_chunk(train, test, chunk, data):
    first_samples = data.draw(st.none() | st.integers(1, len(train[0]) - 1))
    sessions = make(*train, first_samples=first_samples)
    kept = [train[0][: None if first_samples is None else first_samples + 1], *train[1:]]
    clicks = Counter(item for session in kept for item in session)
    steps = Counter(step for session in kept for step in itertools.pairwise(session))

    def rank(score, target):
        scores = [score(item) for item in range(1, 7)]
        greater, same = sum(s > score(target) for s in scores), sum(s == score(target) for s in scores) - 1
        return 1 + greater + same / 2

    samples = [step for session in test for step in itertools.pairwise(session)]
    by_popularity = [rank(lambda item: clicks[item], target) for _, target in samples]
    by_step = [rank(lambda item, last=last: (steps[last, item], clicks[item]), target) for last, target in samples]
    assert baseline_ranks(Popularity(sessions, 7), make(*test), chunk_scores=7 * chunk).tolist() == by_popularity
    assert baseline_ranks(Markov(sessions, 7), make(*test), chunk_scores=7 * chunk).tolist() == by_step


def test_on_a_ring_the_last_click_tells_the_next(ring):
    popularity, markov = baselines(ring)  # real data has no ceiling
    assert (baseline_ranks(markov, ring.test) == 1).all()
    assert baseline_ranks(popularity, ring.test).mean() > 5


def test_the_sample_leaves_a_model_room_between_the_baselines_and_the_ceiling():
    dataset = sample_dataset()
    figures = {b.name: ranking_metrics(baseline_ranks(b, dataset.test), [20]) for b in baselines(dataset)}
    assert list(figures) == ["popularity", "Markov", "ceiling"]
    for metric in ("P@20", "MRR@20", "NDCG@20"):
        assert figures["popularity"][metric] < figures["Markov"][metric] < figures["ceiling"][metric]
    # 80 % of the ceiling must be more than 1.3 times the better baseline, which must be at least a third of it.
    assert 1 / 3 < figures["Markov"]["P@20"] / figures["ceiling"]["P@20"] < 0.8 / 1.3
