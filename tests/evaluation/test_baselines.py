"""Baselines by hand, against brute force, on a ring whose next item is certain, and on the synthetic sample."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.datasets.synthetic import sample_dataset
from paddle_srgnn.evaluation.baselines import (
    VSKNN,
    BaselineScorer,
    Markov,
    Popularity,
    SessionPopularity,
    baselines,
    clicks_before,
    training_clicks,
)
from paddle_srgnn.protocols.metrics import ranking_metrics, ranks


def baseline_ranks(baseline, sessions, ties="mean", chunk_scores=1 << 21, advance=lambda n: None, top=None):
    return ranks(*BaselineScorer(baseline, chunk_scores).count(sessions, advance, top), ties)


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


def test_the_clicks_before_a_target():
    sessions = make([5, 6, 7], [8, 8, 9, 5])
    sample, item, step = clicks_before(sessions, np.array([6, 1, 2, 5]))
    assert sample.tolist() == [0, 0, 0, 1, 2, 2, 3, 3]
    assert item.tolist() == [8, 8, 9, 5, 5, 6, 8, 8]
    assert step.tolist() == [3, 2, 1, 1, 2, 1, 2, 1]


def test_session_popularity_by_hand():
    test = make([3, 4, 3, 1, 2], [5, 5])
    scores = SessionPopularity(TRAIN, 6).scores(test, np.array([1, 4, 6]))
    share = np.array([0, 3, 4, 3, 1, 0]) / 12
    clicked = np.array([[0, 0, 0, 1, 0, 0], [0, 1, 0, 2, 1, 0], [0, 0, 0, 0, 0, 1]])
    assert scores == pytest.approx(clicked + share)
    # 3->4: behind 3, 2 and 1. 3,4->3: first, more popular than 4. ->1: not clicked yet, behind 3, 4 and 2.
    # ->2: behind all of the session. 5->5: never seen in training, and first.
    assert baseline_ranks(SessionPopularity(TRAIN, 6), test).tolist() == [4, 1, 4, 4, 1]


# A session 1, 3 is to go on: 1 weighs 1/2 and 3 weighs 1. TRAIN's sessions have similarities 3/2, 1/2, 3/2 and 1; the
# latest item shared is 3, 1, 3 and 3, so that they count 3/2, 1/4, 3/2 and 1.
@pytest.mark.parametrize(
    ("k", "m", "expected"),
    [
        (9, 9, [0, 3.25, 3.25, 4, 1, 0]),
        (3, 9, [0, 3, 3, 4, 1, 0]),  # without the second
        (1, 9, [0, 1.5, 1.5, 1.5, 0, 0]),
        (9, 3, [0, 1.75, 1.75, 2.5, 1, 0]),  # without the first, the oldest
        (9, 1, [0, 0, 0, 1, 1, 0]),
        (1, 2, [0, 1.5, 1.5, 1.5, 0, 0]),
    ],
)
def test_vsknn_by_hand(k, m, expected):
    test = make([1, 3, 5])
    scores = VSKNN(TRAIN, 6, k=k, m=m, idf=0, decay="div").scores(test, np.array([2]))
    assert scores[0] == pytest.approx(expected, abs=1e-6)
    # The last bits are the popularity: 2 before 1 and 3 where they are equal, and 4 before 5.
    ranked = np.lexsort((-np.array([0, 3, 4, 3, 1, 0]), -np.array(expected)))
    assert np.argsort(-scores[0], kind="stable").tolist() == ranked.tolist()


def test_vsknn_prefers_rare_items():
    scores = VSKNN(TRAIN, 6, k=9, m=9, idf=2, decay="div").scores(make([1, 3, 5]), np.array([2]))[0]
    common, rare = 1 + 2 * math.log(4 / 3), 1 + 2 * math.log(4)
    assert scores == pytest.approx([0, 3.25 * common, 3.25 * common, 4 * common, rare, 0], abs=1e-6)


def test_of_equally_similar_sessions_the_most_recent_are_neighbours():
    train = make([1, 2], [1, 3], [1, 4], [5, 6])
    scores = VSKNN(train, 7, k=2, m=9).scores(make([1, 1]), np.array([1]))[0]
    assert (scores[3:5] > 0.1).all() and scores[2] < 0.1


def test_the_latest_of_an_items_clicks_counts():
    """1, 2, 1, 3: item 1 weighs 3/4 and is two steps away."""
    scores = VSKNN(make([1, 4], [1, 3]), 5, idf=0, decay="div").scores(make([1, 2, 1, 3, 4]), np.array([4]))[0]
    assert scores == pytest.approx([0, 3 / 4 / 2 + 7 / 4, 0, 7 / 4, 3 / 4 / 2], abs=1e-6)


def test_without_a_neighbour_popularity_is_left():
    train, test = make([1, 2], [2, 3]), make([4, 1], [5, 4, 3])  # 4 and 5 are no session's
    assert baseline_ranks(VSKNN(train, 6), test).tolist() == baseline_ranks(Popularity(train, 6), test).tolist()
    assert VSKNN(train, 6).scores(test, np.array([], dtype=int)).shape == (0, 6)


def test_clicks_beyond_the_first_samples_are_not_learnt_from():
    train = make([1, 2, 3, 3, 3], [4, 1], first_samples=1)
    assert training_clicks(train, 5).tolist() == [0, 2, 1, 0, 1]
    scores = Markov(train, 5).scores(make([2, 1], [1, 2]), np.array([1, 3]))
    assert scores == pytest.approx(np.array([[0, 2, 1, 0, 1], [0, 2, 1 + 5, 0, 1]]) / 5)
    assert VSKNN(train, 5).scores(make([3, 1]), np.array([1])).max() < 1e-5  # no session holds 3


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


def slow_vsknn(train, current, n_items, k, m, idf):
    """The scores of every item as the definition has them, in exact arithmetic but for the logarithm."""
    last = {item: place for place, item in enumerate(current, start=1)}
    sharing = [session for session in range(len(train)) if last.keys() & set(train[session])][-m:]
    similarity = {s: sum(Fraction(last[item], len(current)) for item in last.keys() & set(train[s])) for s in sharing}
    nearest = sorted(sharing, key=lambda session: (similarity[session], session))[-k:]
    scores = [0.0] * n_items
    for session in nearest:
        step = len(current) + 1 - max(last[item] for item in last.keys() & set(train[session]))
        for item in set(train[session]):
            scores[item] += float(similarity[session]) / step
    holders = [max(1, sum(item in session for session in train)) for item in range(n_items)]
    return [score * (1 + idf * math.log(len(train) / n)) for score, n in zip(scores, holders, strict=True)]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(SESSION, min_size=1, max_size=12), st.lists(SESSION, min_size=1, max_size=4), st.integers(1, 6),
    st.integers(1, 8), st.sampled_from([0, 1, 2.5]), st.data(),
)  # fmt: skip
def test_vsknn_agrees_with_a_slow_one(train, test, k, m, idf, data):
    first_samples = data.draw(st.none() | st.integers(1, len(train[0]) - 1))
    vsknn = VSKNN(make(*train, first_samples=first_samples), 7, k, m, idf=idf, decay="div")
    if first_samples is not None:
        train = [train[0][: first_samples + 1], *train[1:]]
    positions = make(*test).sample_positions()
    vsknn.ROWS = data.draw(st.integers(1, 4))
    inputs = [session[:length] for session in test for length in range(1, len(session))]
    expected = [slow_vsknn(train, current, 7, k, m, idf) for current in inputs]
    assert vsknn.scores(make(*test), positions) == pytest.approx(np.array(expected), abs=2e-6)
    order = data.draw(st.permutations(range(len(inputs))))
    assert vsknn.scores(make(*test), positions[order]) == pytest.approx(np.array(expected)[order], abs=2e-6)


def test_on_a_ring_the_last_click_tells_the_next(ring):
    popularity, of_session, markov, vsknn = baselines(ring)  # real data has no ceiling
    assert (baseline_ranks(markov, ring.test) == 1).all()
    assert baseline_ranks(popularity, ring.test).mean() > 5
    assert baseline_ranks(of_session, ring.test).min() > 1  # nothing comes twice
    assert baseline_ranks(vsknn, ring.test).mean() < 5  # the items around, those before as much as those after


def test_progress_is_told_in_samples(ring):
    done = []
    baseline_ranks(Popularity(ring.train, 21), ring.test, chunk_scores=21 * 8, advance=done.append)
    assert sum(done) == ring.test.n_samples and set(done[:-1]) == {8}


def test_the_sample_leaves_a_model_room_between_the_baselines_and_the_ceiling():
    dataset = sample_dataset()
    named = {baseline.name: baseline for baseline in baselines(dataset)}
    assert list(named) == ["popularity", "session popularity", "Markov", "V-SKNN", "ceiling"]
    compared = ("popularity", "Markov", "ceiling")
    figures = {name: ranking_metrics(baseline_ranks(named[name], dataset.test), [20]) for name in compared}
    for metric in ("P@20", "MRR@20", "NDCG@20"):
        assert figures["popularity"][metric] < figures["Markov"][metric] < figures["ceiling"][metric]
    # 80 % of the ceiling must be more than 1.3 times the better baseline, which must be at least a third of it.
    assert 1 / 3 < figures["Markov"]["P@20"] / figures["ceiling"]["P@20"] < 0.8 / 1.3


def test_the_best_items_come_from_the_same_pass(ring):
    """After the last click the ring has one successor, and popularity orders the rest; in chunks as in one piece."""
    for chunk in (7 * ring.n_items, 10_000):
        top = np.empty((ring.test.n_samples, 3), dtype=np.int32)
        found = baseline_ranks(Markov(ring.train, ring.n_items), ring.test, chunk_scores=chunk, top=top)
        positions = ring.test.sample_positions()
        by_clicks = np.argsort(-ring.item_clicks[1:], kind="stable") + 1
        for row, position in zip(top, positions, strict=True):
            successor = ring.test.items[position]
            assert row.tolist() == [successor, *by_clicks[by_clicks != successor][:2]]
        assert (found == 1).all()
