"""Ranks by counting and the metrics of one next item, against numbers worked out by hand and against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paddle_srgnn.errors import WorkFailed
from paddle_srgnn.protocols.metrics import count_above, ranking_metrics, ranks

SCORES = np.array(
    [
        [9.0, 1.0, 5.0, 3.0, 5.0],  # target 3: above it 2 and 4; the padding's 9 does not count
        [9.0, 2.0, 2.0, 7.0, 2.0],  # target 2: above it 3, equal 1 and 4
        [0.0, 0.0, 0.0, 0.0, 0.0],  # target 1: all three others equal
    ],
    dtype=np.float32,
)
TARGETS = np.array([3, 2, 1])


def test_counts_by_hand():
    greater, equals = count_above(SCORES, TARGETS)
    assert greater.dtype == equals.dtype == np.int64
    assert greater.tolist() == [2, 1, 0]
    assert equals.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("ties", "expected"), [("mean", [3, 3, 2.5]), ("optimistic", [3, 2, 1]), ("pessimistic", [3, 4, 4])]
)
def test_ties_by_hand(ties, expected):
    result = ranks(*count_above(SCORES, TARGETS), ties)
    assert result.dtype == np.float64 and result.tolist() == expected


def test_unknown_ties_are_refused():
    with pytest.raises(ValueError, match="mean, optimistic, pessimistic, found 'best'"):
        ranks(np.array([0]), np.array([0]), "best")


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [1, 3, 4])
def test_a_score_that_is_not_finite_is_refused(score, column):
    scores = SCORES.copy()
    scores[1, column] = score
    with pytest.raises(WorkFailed, match=f"row 1: the score of item {column} is {score}"):
        count_above(scores, TARGETS)


def test_the_score_of_the_padding_is_not_looked_at():
    scores = SCORES.copy()
    scores[:, 0] = np.nan
    assert count_above(scores, TARGETS)[0].tolist() == [2, 1, 0]


@pytest.mark.parametrize("target", [0, 5, -1])
def test_a_target_that_is_no_candidate_is_refused(target):
    with pytest.raises(ValueError, match=f"row 2: target {target} is not in \\[1, 5\\)"):
        count_above(SCORES, np.array([3, 2, target]))


@given(st.data())
def test_ranks_agree_with_sorting(data):
    n, items = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 9))
    few_values = st.integers(-3, 3).map(float)  # so that ties are common
    scores = data.draw(hnp.arrays(np.float32, (n, items), elements=few_values))
    targets = data.draw(hnp.arrays(np.int64, n, elements=st.integers(1, items - 1)))
    counts = count_above(scores, targets)
    for row, target in enumerate(targets):
        ordered = sorted(scores[row, 1:].tolist(), reverse=True)
        first = ordered.index(scores[row, target]) + 1
        last = len(ordered) - ordered[::-1].index(scores[row, target])
        assert ranks(*counts, "optimistic")[row] == first
        assert ranks(*counts, "pessimistic")[row] == last
        assert ranks(*counts)[row] == (first + last) / 2


def test_metrics_by_hand():
    # Ranks 1, 3 and 20 are hits within 20; 21 is none, nor is 20.5.
    metrics = ranking_metrics(np.array([1, 3, 20, 21, 20.5]), [1, 5, 20])
    assert list(metrics) == [f"{name}@{k}" for k in (1, 5, 20) for name in ("P", "MRR", "NDCG")]
    assert metrics["P@1"] == metrics["MRR@1"] == metrics["NDCG@1"] == pytest.approx(20)
    assert metrics["P@5"] == pytest.approx(40)
    assert metrics["MRR@5"] == pytest.approx(100 * (1 + 1 / 3) / 5)
    assert metrics["NDCG@5"] == pytest.approx(100 * (1 + 1 / 2) / 5)  # 1 / log2(3 + 1) = 1/2
    assert metrics["P@20"] == pytest.approx(60)
    assert metrics["MRR@20"] == pytest.approx(100 * (1 + 1 / 3 + 1 / 20) / 5)
    assert metrics["NDCG@20"] == pytest.approx(100 * (1 + 1 / 2 + 0.2276702486969530) / 5)  # 1 / log2(21)
    assert all(type(value) is float for value in metrics.values())


def test_no_samples_and_no_place_are_refused():
    with pytest.raises(ValueError, match="at least one sample"):
        ranking_metrics(np.array([]), [20])
    with pytest.raises(ValueError, match="K must be at least 1, found 0"):
        ranking_metrics(np.array([1.0]), [0])
