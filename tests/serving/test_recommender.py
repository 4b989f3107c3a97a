import shutil
import subprocess
import sys

import numpy as np
import paddle
import pytest

import paddle_srgnn
from paddle_srgnn.config import load_recipe
from paddle_srgnn.datasets.course import evaluation_cuts
from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.errors import InputError, WorkFailed
from paddle_srgnn.evaluation.ranks import ModelScorer, count_ranks
from paddle_srgnn.model import SRGNN
from paddle_srgnn.run import Run
from paddle_srgnn.serving import recommender as module
from paddle_srgnn.serving.recommender import Recommender


@pytest.fixture(scope="module")
def recommender(ring_run):
    return Recommender.load(ring_run)


@pytest.fixture(scope="module")
def untrained():
    """300 items "i1" to "i300" with random vectors; item n has n % 7 training clicks."""
    paddle.seed(4)
    model = SRGNN(load_recipe("paper", {"embedding_dim": "8"}).model_config(301))
    return Recommender(model, ["", *(f"i{n}" for n in range(1, 301))], np.arange(301) % 7, 10)


def walks(n_sessions: int, longest: int = 9) -> list[list[str]]:
    rng = np.random.default_rng(7)
    return [[f"i{n}" for n in rng.integers(1, 301, rng.integers(1, longest + 1))] for _ in range(n_sessions)]


def alike(one, other):
    assert (one.items, one.unknown, one.fallback) == (other.items, other.unknown, other.fallback)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-5, atol=1e-6)


def test_it_continues_the_ring(recommender):
    results = recommender.recommend_many([["101", "102"], [105, 106, 107], ["119", "120"]], k=3)
    assert [result.items[0] for result in results] == ["103", "108", "101"]
    for result in results:
        assert len(result.items) == 3 and sorted(result.scores, reverse=True) == list(result.scores)
        assert (result.unknown, result.fallback) == (0, None)


def test_one_and_many_agree(untrained):
    sessions = walks(200)
    many = untrained.recommend_many(sessions, k=20)
    for session, result in zip(sessions, many, strict=True):
        alike(untrained.recommend(session, k=20), result)
    assert untrained.recommend_many(sessions, k=20) == many  # and the same call gives the same, to the last bit


def test_batches_change_nothing(untrained, monkeypatch):
    sessions = [*walks(60), ["unknown"], []]
    whole = untrained.recommend_many(sessions, exclude_seen=True)
    monkeypatch.setattr(module, "BATCH", 7)
    for one, other in zip(whole, untrained.recommend_many(sessions, exclude_seen=True), strict=True):
        alike(one, other)


def test_scores_are_the_models(untrained):
    result = untrained.recommend(["i3", "i4", "i3"], k=300)
    user_emb = untrained.model(np.array([[3, 4, 3]]), train=False)["user_emb"]
    scores = (user_emb @ untrained.model.output_items().T).numpy()[0]
    assert sorted(result.items, key=lambda raw: int(raw[1:])) == [f"i{n}" for n in range(1, 301)]
    np.testing.assert_allclose(result.scores, [scores[int(raw[1:])] for raw in result.items], rtol=1e-5, atol=1e-6)


def test_the_top_20_hold_the_target_where_its_rank_is_at_most_20(untrained):
    sessions = [session for session in walks(400) if len(session) > 1]
    numbers = [np.array([int(raw[1:]) for raw in session], dtype=np.int32) for session in sessions]
    offsets = np.cumsum([0, *map(len, numbers)])
    greater, equals = count_ranks(untrained.model, Sessions(np.concatenate(numbers), offsets), 512, 10)
    prefixes = [(session[:end], session[end]) for session in sessions for end in range(1, len(session))]
    results = untrained.recommend_many([prefix for prefix, _ in prefixes], k=20)
    hits = [target in result.items for (_, target), result in zip(prefixes, results, strict=True)]
    assert not equals.any() and 0 < sum(hits) < len(hits)
    assert hits == (greater + 1 <= 20).tolist()


def test_equal_scores_are_ordered_by_item(ring_run):
    recommender = Recommender.load(ring_run)
    table = recommender.model.item_emb.weight
    table.set_value(paddle.zeros_like(table))
    items = paddle_srgnn.Recommender(
        recommender.model, recommender.item_ids.tolist(), np.zeros(21), 70
    ).recommend(["105"], k=20).items  # fmt: skip
    assert items == tuple(recommender.item_ids[1:])


def test_the_padding_is_never_recommended(untrained):
    with paddle.no_grad():
        untrained.model.item_emb.weight[0] = 100.0  # it would come first for one sign of the sum or the other
    try:
        results = untrained.recommend_many(walks(50), k=301)
    finally:
        with paddle.no_grad():
            untrained.model.item_emb.weight[0] = 0.0
    for result in results:
        assert len(result.items) == 300 and "" not in result.items


def test_seen_items_can_be_left_out(untrained):
    sessions = walks(40, longest=30)  # longer than the 10 clicks that are read
    with_seen, without = (untrained.recommend_many(sessions, 300, exclude_seen=seen) for seen in (False, True))
    for session, all_items, left in zip(sessions, with_seen, without, strict=True):
        assert left.items == tuple(raw for raw in all_items.items if raw not in session)


def test_items_can_be_excluded_for_every_session(untrained):
    sessions, sold_out = [["i1", "i2"], ["x"], ["i9"]], ["i13", "i20", "unheard-of", 7]
    everything = untrained.recommend_many(sessions, 300)
    for all_items, left in zip(everything, untrained.recommend_many(sessions, 300, exclude=sold_out), strict=True):
        assert left.items == tuple(raw for raw in all_items.items if raw not in sold_out)
    both = untrained.recommend(["i1", "i2"], 300, exclude=sold_out, exclude_seen=True)
    assert both.items == tuple(raw for raw in everything[0].items if raw not in [*sold_out, "i1", "i2"])


def test_under_the_courses_protocol_the_lists_are_those_that_were_measured(ring_users, tmp_path):
    """By cosine, where inner products would favour long vectors; only the padding, which no id names, is left out."""
    run = paddle_srgnn.train(ring_users, "datawhale", tmp_path / "run", epochs=2, learning_rate=0.02, batch_size=8)
    model, settings, users = run.model(), run.settings, ring_users.test
    cuts = evaluation_cuts(users)
    measured = ModelScorer(model, settings).best(users, cuts, 21, lambda n: None)
    raw = np.array(ring_users.item_ids)
    sessions = [raw[users.items[start:cut]].tolist() for start, cut in zip(users.offsets[:-1], cuts, strict=True)]
    served = run.recommender().recommend_many(sessions, k=20)
    expected = [tuple(raw[number] for number in numbers if number) for numbers in measured]
    assert [result.items for result in served] == expected
    by_product = Recommender(model, ring_users.item_ids, ring_users.item_clicks, settings.max_session_length)
    assert [result.items for result in by_product.recommend_many(sessions, k=20)] != expected


def test_unknown_items_are_taken_out_before_the_session_is_cut(untrained):
    known = [f"i{n}" for n in range(1, 13)]  # 12, of which the last 10 are read
    mixed = ["?", *known[:6], "x", "y", *known[6:], "z"]
    result = untrained.recommend(mixed)
    assert (result.unknown, result.fallback) == (4, None)
    assert result.items == untrained.recommend(known).items == untrained.recommend(known[-10:]).items
    assert result.items != untrained.recommend(known[-9:]).items


def test_without_a_known_item_the_popular_items_are_recommended(untrained):
    results = untrained.recommend_many([["x", "y"], ["i1"], []], k=4)
    assert results[0].items == ("i6", "i13", "i20", "i27")  # 6 training clicks each: ties by item
    assert results[0].scores == (6.0, 6.0, 6.0, 6.0)
    assert [result.fallback for result in results] == ["popular", None, "popular"]
    assert [result.unknown for result in results] == [2, 0, 0]
    alike(results[1], untrained.recommend(["i1"], k=4))
    assert untrained.recommend(["x"], k=2).fallback == "popular"


def test_one_session_gives_one_result_and_many_a_list_also_where_they_are_empty(untrained):
    assert untrained.recommend_many([]) == []
    popular = untrained.recommend([], k=2)
    assert popular.items == ("i6", "i13") and popular.fallback == "popular"
    assert untrained.recommend_many([[]], k=2) == [popular]
    assert len(untrained.recommend_many([["i1"]])) == 1


def test_strict_refuses_it(untrained):
    with pytest.raises(InputError, match="session 1: none of its 2 items"):
        untrained.recommend_many([["i1"], ["x", "y"]], strict=True)
    with pytest.raises(InputError, match="session 0: none"):
        untrained.recommend(["x"], strict=True)


@pytest.mark.parametrize(
    "sessions, message",
    [
        ("i1", "list of item ids"),
        ([["i1"], "i2"], "list of item ids"),
        ([None], "list of item ids"),
        ([["i1", None]], "item None"),
        ([[1.0]], "item 1.0"),
        ([["i1", True]], "item True"),
    ],
)
def test_what_is_no_session_is_refused(untrained, sessions, message):
    with pytest.raises(InputError, match=message):
        untrained.recommend_many(sessions)


def test_a_k_below_1_is_refused(untrained):
    for call in (untrained.recommend, lambda sessions, k: untrained.similar_items("i1", k)):
        with pytest.raises(InputError, match="at least 1"):
            call(["i1"], k=0)


def test_similar_items_are_those_of_the_highest_cosine(untrained):
    vectors = untrained.model.item_emb.weight.numpy()[1:]
    directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = directions @ directions[4]
    result = untrained.similar_items("i5", k=10)
    expected = np.argsort(-cosines)[1:11]
    assert result.items == tuple(f"i{n + 1}" for n in expected)
    np.testing.assert_allclose(result.scores, cosines[expected], rtol=1e-5)
    assert len(untrained.similar_items("i5", k=1000).items) == 299
    with pytest.raises(InputError, match="'i999' is not known"):
        untrained.similar_items("i999")


def test_a_diverged_model_recommends_nothing(ring_run):
    loaded = Recommender.load(ring_run)
    bias = loaded.model.linear_transform.bias
    bias.set_value(paddle.full_like(bias, float("nan")))
    with pytest.raises(WorkFailed, match="not finite"):
        loaded.recommend(["101"])


def test_a_run_or_a_checkpoint_without_its_dataset(ring_run, recommender, tmp_path):
    """config.yaml and the dataset are not read: only the checkpoint and items.csv."""
    copy = tmp_path / "moved"
    shutil.copytree(ring_run, copy)
    (copy / "config.yaml").unlink()
    expected = recommender.recommend(["104", "105"])
    assert Recommender.load(copy).recommend(["104", "105"]) == expected
    assert Recommender.load(str(Run(copy).find_checkpoint("last"))).recommend([104, 105]) == expected


def test_a_run_that_cannot_name_its_items_is_refused(ring_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ring_run, copy)
    lines = (copy / "items.csv").read_text().splitlines(keepends=True)
    (copy / "items.csv").write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="19 items, the checkpoint has 20"):
        Recommender.load(copy)
    (copy / "items.csv").unlink()
    with pytest.raises(InputError, match=r"items\.csv: missing"):
        Recommender.load(copy)
    with pytest.raises(InputError, match="no such run"):
        Recommender.load(tmp_path / "nowhere")


def test_an_approximate_index(untrained):
    pytest.importorskip("faiss", reason='needs faiss: pip install -e ".[ann]"')
    approximate = Recommender(untrained.model, untrained.item_ids.tolist(), np.arange(301) % 7, 10, index="hnsw")
    sessions = [*walks(100), ["x"]]
    hits, total = approximate.recall(sessions, 20)
    assert total == 100 * 20 and hits >= 0.95 * total
    found = zip(approximate.recommend_many(sessions, 20), untrained.recommend_many(sessions, 20), strict=True)
    assert sum(len(set(a.items) & set(b.items)) for a, b in list(found)[:-1]) == hits
    assert approximate.recommend(["x"]) == untrained.recommend(["x"])


def test_an_unknown_index_is_refused(ring_run):
    with pytest.raises(InputError, match="exact, hnsw"):
        Recommender.load(ring_run, index="flat")


def test_exact_search_finds_all_of_itself(untrained):
    assert untrained.recall(walks(30), 20, exclude_seen=True) == (600, 600)


def test_it_is_loaded_when_it_is_first_used():
    code = "import sys, paddle_srgnn; a = 'paddle' in sys.modules; paddle_srgnn.Recommender; print(a)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert process.stdout.strip() == "False", process.stderr
