"""Intervals and tests over sessions: by hand, against every draw or every sign there is, and their properties."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_srgnn.evaluation import statistics
from paddle_srgnn.evaluation.statistics import holm, paired_tests, session_intervals
from paddle_srgnn.protocols.metrics import ranking_metrics


def some_ranks(n: int, seed: int, highest: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, highest, n).astype(np.float64)


def test_an_interval_by_hand():
    """Two sessions, hits 3 of 3 and 0 of 1: of two drawn they are both the first, one each, both the second."""
    intervals = session_intervals([1, 1, 1, 9], [7, 7, 7, 8], [5], level=0.2, resamples=4000)
    assert intervals["P@5"] == (75, 75)  # in the middle half of the draws, of 100, 75, 75 and 0
    intervals = session_intervals([1, 1, 1, 9], [7, 7, 7, 8], [5], resamples=4000)
    assert intervals["P@5"] == (0, 100)
    # A mean of the two sessions' own metrics would have 50 in the middle.


def test_an_interval_against_every_draw():
    ranks, sessions = np.array([1, 30, 2, 3, 30, 30, 1, 4, 9]), np.array([0, 0, 1, 1, 1, 2, 3, 4, 4])
    draws = []
    for drawn in itertools.product(range(5), repeat=5):
        of_draw = np.concatenate([ranks[sessions == session] for session in drawn])
        draws.append(list(ranking_metrics(of_draw, [5, 20]).values()))
    exact = np.quantile(draws, [0.05, 0.95], axis=0).T
    found = session_intervals(ranks, sessions, [5, 20], level=0.9, resamples=20_000)
    assert list(found) == list(ranking_metrics(ranks, [5, 20]))
    assert np.array(list(found.values())) == pytest.approx(exact, abs=2)


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        chance = rng.choice([0.2, 0.6], 150)  # a session's samples are alike; a hit has chance 0.4 over all
        ranks = np.where(rng.random((150, 3)) < chance[:, None], 1.0, 99.0).ravel()
        low, high = session_intervals(ranks, np.repeat(np.arange(150), 3), [20], resamples=200, seed=trial)["P@20"]
        covered += low <= 40 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_copies_of_a_sessions_samples_do_not_narrow_the_interval():
    ranks, sessions = some_ranks(200, 1), np.arange(200)
    once = session_intervals(ranks, sessions, [20])
    copied = session_intervals(np.repeat(ranks, 9), np.repeat(sessions, 9), [20])
    assert all(copied[name] == pytest.approx(once[name]) for name in once)
    as_if_independent = session_intervals(np.repeat(ranks, 9), np.arange(1800), [20])
    widths = [high - low for low, high in (once["P@20"], as_if_independent["P@20"])]
    assert widths[1] == pytest.approx(widths[0] / 3, rel=0.15)


def test_the_order_and_the_labels_of_the_sessions_do_not_matter_nor_does_the_chunk(monkeypatch):
    ranks, sessions = some_ranks(60, 2), np.repeat(np.arange(20), 3)
    others = {"a": ranks, "b": some_ranks(60, 3)}
    whole = session_intervals(ranks, sessions, [5], resamples=50), paired_tests(others, sessions, permutations=50)
    assert session_intervals(ranks, 100 + 7 * sessions, [5], resamples=50) == whole[0]
    mixed = np.random.default_rng(0).permutation(60)
    assert session_intervals(ranks[mixed], sessions[mixed], [5], resamples=50)["P@5"] == whole[0]["P@5"]
    monkeypatch.setattr(statistics, "AT_ONCE", 20 * 8)  # 8 at a time; the signs come in whole words
    assert session_intervals(ranks, sessions, [5], resamples=50) == whole[0]


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5 by 4, 3, 2, 1: 0.04, 0.06, 0.06 and 0.5; the third is never below the second.
    assert holm(np.array([0.03, 0.5, 0.01, 0.02])) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm(np.array([0.02, 0.03])) == pytest.approx([0.04, 0.04])  # 0.03 by 1 is raised to its predecessor's
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([0.2])).tolist() == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferronis(p):
    p = np.array(p)
    corrected = holm(p)
    assert (corrected >= p).all() and (corrected <= np.minimum(1, len(p) * p)).all()
    order = np.argsort(p)
    assert (np.diff(corrected[order]) >= 0).all()


@pytest.mark.parametrize("metric", ["P@5", "MRR@20", "NDCG@20"])
@pytest.mark.parametrize("seed", range(3))
def test_a_test_against_every_assignment_of_signs(metric, seed):
    sessions = np.repeat(np.arange(9), [1, 2, 3, 1, 2, 3, 1, 2, 3])
    a, b = some_ranks(18, seed, 12), some_ranks(18, seed + 10, 20)

    def of_session(ranks, session):
        return ranking_metrics(ranks[sessions == session], [5, 20])[metric] * (sessions == session).sum()

    differences = np.array([of_session(a, session) - of_session(b, session) for session in range(9)])
    sums = np.array(list(itertools.product([1, -1], repeat=9))) @ differences
    exact = np.mean(np.abs(sums) >= abs(differences.sum()) - 1e-9)
    (row,) = paired_tests({"a": a, "b": b}, sessions, [metric])
    assert row["p"] == pytest.approx(exact, abs=0.02) and row["p_holm"] == row["p"]
    assert (row["metric"], row["a"], row["b"]) == (metric, "a", "b")
    whole = ranking_metrics(a, [5, 20])[metric] - ranking_metrics(b, [5, 20])[metric]
    assert row["difference"] == pytest.approx(whole)


def test_a_difference_of_the_same_sign_everywhere_is_found_and_can_be_no_surer_than_the_permutations():
    ranks = {"better": np.ones(40), "worse": np.full(40, 2.0)}
    p_at_1, mrr = paired_tests(ranks, np.arange(40), ["P@1", "MRR@20"], permutations=999)
    assert p_at_1["difference"] == 100 and mrr["difference"] == 50
    assert p_at_1["p"] == mrr["p"] == 1 / 1000  # of 2**40 assignments two reach it


def test_one_session_never_decides_however_many_samples_it_has():
    (row,) = paired_tests({"a": np.ones(500), "b": np.full(500, 99.0)}, np.zeros(500), ["P@20"])
    assert row["p"] == 1  # with either sign the sum is as large


def test_identical_results_are_no_different():
    ranks = some_ranks(30, 5)
    rows = paired_tests({"a": ranks, "b": ranks.copy()}, np.arange(30))
    assert [(row["difference"], row["p"], row["p_holm"]) for row in rows] == [(0, 1, 1)] * 2


def test_every_pair_is_tested_and_corrected_among_those_of_its_metric():
    ranks = {"one": np.ones(64), "two": np.full(64, 2.0), "many": some_ranks(64, 6)}
    rows = paired_tests(ranks, np.arange(64), ["P@20", "MRR@20"], permutations=499)
    assert [(row["metric"], row["a"], row["b"]) for row in rows] == [
        (metric, a, b) for metric in ("P@20", "MRR@20") for a, b in itertools.combinations(ranks, 2)
    ]
    by_mrr = [row for row in rows if row["metric"] == "MRR@20"]
    assert [row["p"] for row in by_mrr] == [1 / 500] * 3
    assert [row["p_holm"] for row in by_mrr] == pytest.approx([3 / 500] * 3)
    assert rows[0]["p"] == rows[0]["p_holm"] == 1  # every rank of one and two is a hit
    assert paired_tests({"one": np.ones(64)}, np.arange(64)) == []


def test_the_seed_decides():
    ranks, sessions = {"a": some_ranks(90, 7), "b": some_ranks(90, 8)}, np.repeat(np.arange(30), 3)
    for statistic in (
        lambda seed: session_intervals(ranks["a"], sessions, [20], resamples=99, seed=seed),
        lambda seed: paired_tests(ranks, sessions, permutations=199, seed=seed),
    ):
        assert statistic(1) == statistic(1) != statistic(2)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="found 3 session labels for 2 ranks"):
        session_intervals([1.0, 2.0], [0, 0, 1], [20])
    with pytest.raises(ValueError, match="found 2 session labels for 3 ranks"):
        paired_tests({"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]}, [0, 1])
    with pytest.raises(ValueError, match="unknown metric R@20"):
        paired_tests({"a": [1.0], "b": [2.0]}, [0], ["R@20"])
    with pytest.raises(ValueError, match="at least one sample"):
        session_intervals([], [], [20])
