"""The course's lists and metrics: by hand, against its own figures, and against sorting."""

from __future__ import annotations

import json
from math import log2

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paddle_srgnn.config import load_recipe
from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.errors import WorkFailed
from paddle_srgnn.evaluation import ranks
from paddle_srgnn.evaluation.baselines import BaselineScorer
from paddle_srgnn.evaluation.ranks import ModelScorer, nearest_items
from paddle_srgnn.model import SRGNN
from paddle_srgnn.protocols.course import Course, course_metrics, labels_of

GOLDEN = __file__.replace("evaluation/test_course.py", "golden/course_metrics.json")


def test_the_courses_own_figures_to_the_last_bit():
    with open(GOLDEN) as file:
        golden = json.load(file)
    labels = list(golden["labels"].values())
    lists = np.array([golden["ranked_items"][user] for user in golden["labels"]])
    metrics = course_metrics(lists, np.concatenate(labels), np.array(list(map(len, labels))), [5, 20, 50])
    for name, fraction in golden["metrics"].items():
        assert metrics[name.replace("ndcg", "course_ndcg")] == 100.0 * fraction, name


def test_metrics_by_hand():
    # The first user's labels 9, 5, 3, 3 stand at ranks 3, none, 2 and 2; of the second's none is listed.
    lists = np.array([[7, 3, 9, 1], [2, 4, 6, 8]])
    metrics = course_metrics(lists, np.array([9, 5, 3, 3, 1]), np.array([4, 1]), [4, 2])
    assert list(metrics) == [f"{name}@{k}" for k in (2, 4) for name in ("recall", "hitrate", "course_ndcg", "ndcg")]
    assert metrics["recall@2"] == 100 * (2 / 4) / 2 and metrics["recall@4"] == 100 * (3 / 4) / 2
    assert metrics["hitrate@2"] == metrics["hitrate@4"] == 50
    # Found are the labels at the places 2 and 3 of the user's own list, and with K = 4 the one at place 0.
    third = 1 / log2(3)
    assert metrics["course_ndcg@2"] == pytest.approx(50 * (1 / 2 + 1 / log2(5)) / (1 + third), rel=1e-14)
    assert metrics["course_ndcg@4"] == pytest.approx(50 * (1 + 1 / 2 + 1 / log2(5)) / (1 + third + 1 / 2), rel=1e-14)
    # Three distinct labels, of which item 3 is at rank 2 and item 9 at rank 3.
    assert metrics["ndcg@2"] == pytest.approx(50 * third / (1 + third), rel=1e-14)
    assert metrics["ndcg@4"] == pytest.approx(50 * (third + 1 / 2) / (1 + third + 1 / 2), rel=1e-14)


def test_a_perfect_list_is_100_in_everything_but_recall():
    lists = np.array([[1, 2, 3, 4]])
    metrics = course_metrics(lists, np.array([4, 2, 3, 1]), np.array([4]), [2, 4, 9])
    assert metrics["recall@2"] == 50 and metrics["ndcg@2"] == 100
    assert metrics["course_ndcg@2"] < 100  # its labels are found, but not the user's first two
    whole = [metrics[f"{name}@{k}"] for name in ("recall", "hitrate", "ndcg", "course_ndcg") for k in (4, 9)]
    assert whole == pytest.approx([100] * 8, rel=1e-14)


@given(st.data())
def test_ndcg_agrees_with_its_definition(data):
    items = st.integers(0, 9)
    ranked = data.draw(st.permutations(range(10)))[: data.draw(st.integers(1, 10))]
    labels = data.draw(st.lists(items, min_size=1, max_size=12))
    k = data.draw(st.integers(1, 12))
    gains = [1 / log2(rank + 1) for rank, item in enumerate(ranked[:k], 1) if item in labels]
    ideal = [1 / log2(rank + 1) for rank in range(1, min(k, len(set(labels))) + 1)]
    metrics = course_metrics(np.array([ranked]), np.array(labels), np.array([len(labels)]), [k])
    assert metrics[f"ndcg@{k}"] == pytest.approx(100 * sum(gains) / sum(ideal))
    assert metrics[f"recall@{k}"] == pytest.approx(100 * sum(label in ranked[:k] for label in labels) / len(labels))


def test_no_users_and_no_place_are_refused():
    with pytest.raises(ValueError, match="at least one user"):
        course_metrics(np.empty((0, 5)), np.array([]), np.array([]), [5])
    with pytest.raises(ValueError, match="K must be at least 1, found 0"):
        course_metrics(np.array([[1]]), np.array([1]), np.array([1]), [0])


ITEMS = np.array([[1, 0], [0, 1], [2, 0], [-1, 0], [1, 1], [0, 0]], dtype=np.float32)


def test_nearest_items_by_hand():
    # By cosine length does not count; item 0 is a candidate; items 0 and 2, and 1 and 5, are equally near.
    assert nearest_items(np.array([[3, 0]], dtype=np.float32), ITEMS, 4).tolist() == [[0, 2, 4, 1]]
    assert nearest_items(np.array([[3, 0]], dtype=np.float32), ITEMS, 99).tolist() == [[0, 2, 4, 1, 5, 3]]
    # A vector of zeros is equally near to everything.
    assert nearest_items(np.zeros((1, 2), dtype=np.float32), ITEMS, 3).tolist() == [[0, 1, 2]]


def test_large_problems_go_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(23, 8)).astype(np.float32), rng.normal(size=(40, 8)).astype(np.float32)
    whole = nearest_items(users, items, 7)
    monkeypatch.setattr(ranks, "COSINES_AT_ONCE", 100)  # two users at a time
    np.testing.assert_array_equal(nearest_items(users, items, 7), whole)


@pytest.mark.parametrize(("name", "row"), [("user", 1), ("item", 4)])
def test_a_vector_that_is_not_finite_never_gets_a_list(name, row):
    users, items = np.ones((3, 2), dtype=np.float32), ITEMS.copy()
    {"user": users, "item": items}[name][row, 0] = np.nan
    with pytest.raises(WorkFailed, match=f"the vector of {name} {row} is not finite"):
        nearest_items(users, items, 2)


USERS = Sessions(np.array([1, 2, 3, 4, 5, 6, 7, 2, 4, 4, 3, 3, 9], dtype=np.int32), np.array([0, 5, 13]))


def test_labels_by_hand():
    # Of five items the last is a label; of eight, int(6.4) are read and two are labels.
    labels, n_labels = labels_of(USERS)
    assert labels.tolist() == [5, 3, 9] and n_labels.tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(3))
def test_a_model_is_measured_by_its_vectors_of_the_last_items_before_the_cut(seed):
    paddle.seed(seed)
    model = SRGNN(load_recipe("datawhale").model_config(12))
    model.train()
    settings, ks = load_recipe("datawhale", {"max_session_length": "3", "eval_batch_size": "1"}), tuple(range(1, 13))
    metrics = Course().measure(ModelScorer(model, settings), USERS, ks).metrics
    assert model.training
    rows = np.array([[2, 3, 4], [4, 4, 3]])  # three items before each cut
    users, items = model(rows, train=False)["user_emb"].numpy(), model.output_items().numpy()
    norms = np.maximum(np.linalg.norm(items, axis=1), 1e-9)  # item 0 is zeros: cosine 0
    order = [sorted(range(12), key=lambda item, user=user: -(items[item] @ user) / norms[item]) for user in users]
    for k in ks:
        expected = ((5 in order[0][:k]) + sum(item in order[1][:k] for item in (3, 9)) / 2) / 2
        assert metrics[f"recall@{k}"] == pytest.approx(100 * expected)


class Constant:
    """A baseline that likes item 0 best, then 3, and all others equally."""

    name, n_items = "constant", 10

    def scores(self, sessions, positions):
        assert positions.tolist() == [4, 11]  # the cuts
        scores = np.zeros(self.n_items)
        scores[[0, 3]] = 9, 5
        return np.broadcast_to(scores, (len(positions), self.n_items))


def test_a_baseline_never_lists_the_padding():
    # Lists 3, 1, 2, 4, 5, ...: label 5 of the first user is fifth; of the second's, 3 is first and 9 last.
    metrics = Course().measure(BaselineScorer(Constant()), USERS, (1, 4, 5, 50)).metrics
    recalls = {k: metrics[f"recall@{k}"] for k in (1, 4, 5, 50)}
    assert recalls == {1: 25.0, 4: 25.0, 5: 75.0, 50: 100.0}
