import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.protocols.metrics import ranking_metrics
from paddle_srgnn.report import breakdown
from paddle_srgnn.report.breakdown import (
    EXAMPLES,
    KS,
    LENGTHS,
    POPULARITIES,
    break_down,
    by_group,
    examples,
    group_labels,
    group_of,
    merge_small,
    metrics_over_k,
    recommended,
    was_clicked,
)


def sessions_of(*sessions: list[int]) -> Sessions:
    offsets = np.cumsum([0, *map(len, sessions)])
    return Sessions(np.concatenate(sessions).astype(np.int32), offsets)


def test_metrics_over_k_by_hand():
    found = metrics_over_k(np.array([1, 2.5, 60.0]))
    assert KS.tolist() == list(range(1, 51))
    assert found["P"][[0, 1, 2, 49]] == pytest.approx([100 / 3, 100 / 3, 200 / 3, 200 / 3])
    assert found["MRR"][[0, 1, 2, 49]] == pytest.approx([100 / 3, 100 / 3, 140 / 3, 140 / 3])


@given(st.lists(st.integers(2, 130).map(lambda doubled: doubled / 2), min_size=1))
def test_metrics_over_k_are_those_of_the_table(ranks):
    found = metrics_over_k(np.array(ranks))
    table = ranking_metrics(np.array(ranks), KS)
    assert found["P"] == pytest.approx([table[f"P@{k}"] for k in KS])
    assert found["MRR"] == pytest.approx([table[f"MRR@{k}"] for k in KS])


def test_groups_by_hand():
    first, second, empty = by_group(np.array([1, 21, 2, 4, 20.5]), np.array([0, 0, 1, 1, 1]), ["a", "b", "c"])
    assert first == ("a", 2, 50, 50)
    assert (second.samples, second.p, second.mrr) == (3, pytest.approx(200 / 3), pytest.approx(25))
    assert empty.samples == 0 and np.isnan(empty.p) and np.isnan(empty.mrr)


def test_the_groups_of_the_lengths():
    assert group_labels(LENGTHS) == ["1", "2", "3", "4", "5–6", "7–9", "10–14", "15+"]
    lengths = np.array([1, 2, 4, 5, 6, 7, 9, 10, 14, 15, 900])
    assert group_of(lengths, LENGTHS).tolist() == [0, 1, 3, 4, 4, 5, 5, 6, 6, 7, 7]


@pytest.mark.parametrize(
    "samples, starts",
    [
        ([50, 60, 70], [0, 5, 10]),
        ([49, 1, 70], [0, 10]),  # a small range joins the next one
        ([60, 30, 19], [0]),  # the last ones join the one before
        ([6, 80, 30], [0]),
        ([6, 44, 0], [0]),
        ([0, 0, 0], [0]),
    ],
)
def test_small_groups_are_merged(samples, starts):
    assert merge_small(samples, POPULARITIES[:3], least=50) == starts


def test_a_target_was_clicked_only_if_earlier_in_its_own_session():
    sessions = sessions_of([1, 2, 1, 1], [3, 1], [4, 3, 4])
    assert was_clicked(sessions, sessions.sample_positions()).tolist() == [False, True, True, False, False, True]


def test_coverage_and_popularity_by_hand():
    """Of four items three are in the lists, with 10, 4, 10 and 1 clicks: half the places have 4 or fewer."""
    found = recommended(np.array([[1, 2], [1, 3]]), np.array([0, 10, 4, 1, 7]))
    assert found == (75, 4, 6.25)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 99))
def test_the_median_is_that_of_all_places(items, seed):
    clicks = np.append(0, np.random.default_rng(seed).integers(0, 5, 9))
    found = recommended(np.array(items)[None], clicks)
    assert found.median_clicks == sorted(clicks[items])[(len(items) - 1) // 2]
    assert found.mean_clicks == pytest.approx(clicks[items].mean())


@pytest.mark.parametrize("n_hits, n_misses, hits", [(50, 50, 6), (2, 50, 2), (50, 3, 9), (30, 0, 12), (1, 2, 1)])
def test_examples_are_half_hits_where_there_are_enough(n_hits, n_misses, hits):
    n = n_hits + n_misses
    sessions = sessions_of([5, *range(6, 6 + n)])
    ranks = np.random.default_rng(0).permutation(np.append(np.full(n_hits, 20.0), np.full(n_misses, 20.5)))
    top = np.arange(3 * n).reshape(n, 3)
    found = examples(ranks, top, sessions)
    assert len(found) == min(EXAMPLES, n) and sum(example.rank <= 20 for example in found) == hits
    samples = [example.sample for example in found]
    assert samples == sorted(set(samples))
    for example in found:
        assert example.target == 6 + example.sample and example.clicks == list(range(5, 6 + example.sample))
        assert example.rank == ranks[example.sample] and example.top == top[example.sample].tolist()


def test_a_breakdown_by_hand(monkeypatch):
    """Samples 1|2, 1 2|1 and 3|2, of which the second is a repetition; item 2 has 40 clicks, item 1 has 7."""
    monkeypatch.setattr(breakdown, "LEAST", 1)
    sessions = sessions_of([1, 2, 1], [3, 2])
    found = break_down(np.array([1, 30, 2.0]), np.array([[2], [3], [1]]), sessions, np.array([0, 7, 40, 1, 0]))
    of = {group.label: group[1:] for group in found.by_length if group.samples}
    assert of == {"1": (2, 100, 75), "2+": (1, 0, 0)}
    of = {group.label: group[1:] for group in found.by_popularity if group.samples}
    assert of == {"0–9": (1, 0, 0), "10+": (2, 100, 75)}
    assert [tuple(group) for group in found.by_novelty] == [("new", 2, 100, 75), ("repeated", 1, 0, 0)]
    assert found.recommended == (75, 7, 16)
    assert found.over_k["P"][[0, 1]] == pytest.approx([100 / 3, 200 / 3])
    assert len(found.examples) == 3
