import numpy as np
import paddle
import pytest

from paddle_srgnn.config import load_recipe
from paddle_srgnn.errors import WorkFailed
from paddle_srgnn.evaluation import ranks as ranking
from paddle_srgnn.evaluation.ranks import ModelScorer, count_ranks
from paddle_srgnn.model import SRGNN
from paddle_srgnn.protocols.metrics import count_above
from paddle_srgnn.protocols.paper import Paper


@pytest.fixture
def model():
    paddle.seed(2)
    return SRGNN(load_recipe("paper", {"embedding_dim": "6"}).model_config(21))


def brute_force(model, sessions):
    """The counts from scores that are computed one session at a time."""
    positions = sessions.sample_positions()
    greater, equals = [], []
    for position, start in zip(positions, sessions.sample_starts(positions), strict=True):
        user_emb = model(sessions.items[None, start:position], train=False)["user_emb"].numpy()
        scores = (user_emb @ model.item_emb.weight.numpy().T).round(4)
        above, same = count_above(scores, sessions.items[position : position + 1])
        greater.append(above[0])
        equals.append(same[0])
    return np.array(greater), np.array(equals)


def test_counts_agree_with_scores_computed_one_by_one(model, ring):
    greater, equals = count_ranks(model, ring.test, batch_size=16, max_session_length=70)
    expected, _ = brute_force(model, ring.test)
    assert greater.dtype == np.int64 and len(greater) == ring.test.n_samples
    assert np.abs(greater - expected).max() <= 1  # rounding may exchange two neighbours
    assert (greater == expected).mean() > 0.98
    assert not equals.any()


def test_chosen_samples_are_ranked_in_the_order_given_with_their_vectors(model, ring):
    positions = ring.test.sample_positions()
    chosen = np.array([7, 0, 30])
    vectors = np.empty((3, model.item_emb.weight.shape[1]), dtype=np.float32)
    some = count_ranks(model, ring.test, 2, 70, positions=positions[chosen], vectors=vectors)
    for counts, whole in zip(some, count_ranks(model, ring.test, 16, 70), strict=True):
        np.testing.assert_array_equal(counts, whole[chosen])
    for vector, position in zip(vectors, positions[chosen], strict=True):
        start = ring.test.sample_starts(np.array([position]))[0]
        expected = model(ring.test.items[None, start:position], train=False)["user_emb"].numpy()[0]
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_padding_is_never_a_candidate(model, ring):
    before = count_ranks(model, ring.test, 16, 70)
    with paddle.no_grad():
        model.item_emb.weight[0] = 1e6
    for counts, others in zip(before, count_ranks(model, ring.test, 16, 70), strict=True):
        np.testing.assert_array_equal(counts, others)


def test_equal_scores_are_counted_apart(model, ring):
    model.item_emb.weight.set_value(model.item_emb.weight * 0)  # every score is 0
    greater, equals = count_ranks(model, ring.test, 16, 70)
    assert not greater.any() and (equals == 19).all()


def test_memory_is_bounded_by_splitting_the_batch(model, ring, monkeypatch):
    whole = count_ranks(model, ring.test, 64, 70)
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 21 * 5)
    for counts, others in zip(whole, count_ranks(model, ring.test, 64, 70), strict=True):
        np.testing.assert_array_equal(counts, others)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_an_error_that_names_the_sample(model, ring, value):
    """Item 1 gets a bad vector: it is a candidate of every sample."""
    table = model.item_emb.weight.numpy()
    table[1] = value
    model.item_emb.weight.set_value(table)
    with pytest.raises(WorkFailed, match="sample 0 are not finite"):
        count_ranks(model, ring.test, 16, 70)


def test_the_way_of_other_devices_counts_the_same():
    scores = np.random.default_rng(2).integers(0, 9, (8, 30)).astype(np.float32)
    scores[3, 4], scores[5, 6] = np.nan, np.inf
    tensors = paddle.to_tensor(scores), paddle.to_tensor(scores[:, 0].copy())
    for found, expected in zip(ranking._compare(*tensors), ranking._compare_on_cpu(*tensors), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_first_bad_sample_is_named_across_batches(model, ring, monkeypatch):
    encode, calls = model.encode, 0

    def poisoned(graph):
        nonlocal calls
        user_emb = encode(graph)
        calls += 1
        if calls == 3:
            user_emb[2] = float("nan")
        return user_emb

    monkeypatch.setattr(model, "encode", poisoned)
    with pytest.raises(WorkFailed, match="sample 34 "):
        count_ranks(model, ring.test, 16, 70)


def test_evaluation_leaves_the_model_in_training_as_it_found_it(model, ring):
    model.train()
    metrics = Paper().measure(ModelScorer(model, load_recipe("paper")), ring.test, (1, 20)).metrics
    assert model.training
    assert metrics["P@20"] == 100 and list(metrics)[:1] == ["P@1"]


def test_the_best_items_come_from_the_same_pass(model, ring, monkeypatch):
    top = np.empty((ring.test.n_samples, 20), dtype=np.int32)  # as long as the catalogue
    greater, _ = count_ranks(model, ring.test, 64, 70, top=top)
    assert (np.sort(top, axis=1) == np.arange(1, 21)).all()  # every item but the padding
    targets = ring.test.items[ring.test.sample_positions()]
    assert (top[np.arange(len(top)), greater] == targets).all()  # the target stands at its rank
    short = np.empty((len(top), 3), dtype=np.int32)
    monkeypatch.setattr(ranking, "SCORES_AT_ONCE", 21 * 5)
    count_ranks(model, ring.test, 16, 70, top=short)
    assert (short == top[:, :3]).mean() > 0.98  # rounding may exchange two neighbours


def test_a_measurement_keeps_ranks_and_lists_where_they_are_asked_for(model, ring):
    scorer = ModelScorer(model, load_recipe("paper"))
    kept = Paper().measure(scorer, ring.test, (3,), keep_lists=True)
    assert kept.top.shape == (ring.test.n_samples, 20) and Paper().measure(scorer, ring.test, (3,)).top is None
    assert kept.metrics["P@3"] == pytest.approx(100 * (kept.ranks <= 3).mean())
    targets = ring.test.items[ring.test.sample_positions()]
    np.testing.assert_array_equal((kept.top[:, :3] == targets[:, None]).any(axis=1), kept.ranks <= 3)
