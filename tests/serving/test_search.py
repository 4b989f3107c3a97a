import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from paddle_srgnn.errors import InputError, WorkFailed
from paddle_srgnn.serving import search as index
from paddle_srgnn.serving.search import Exact, Excluded, Hnsw, top_k


def sorted_by_python(scores, k):
    """The definition: the highest score first, of equal ones the lowest column."""
    return [sorted(range(len(row)), key=lambda column: (-row[column], column))[:k] for row in scores.tolist()]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_top_k_is_a_stable_sort(data):
    """Few distinct values make ties the rule, and more than 32 columns make groups of several."""
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 200)))
    values = st.one_of(st.integers(-3, 3).map(float), st.just(-np.inf))
    scores = data.draw(arrays(np.float32, shape, elements=values, fill=st.just(0.0)))
    k = data.draw(st.integers(1, shape[1]))
    columns, found = top_k(scores, k)
    assert columns.tolist() == sorted_by_python(scores, k)
    np.testing.assert_array_equal(found, np.take_along_axis(scores, columns, axis=1))


def test_top_k_of_a_wide_row():
    scores = np.random.default_rng(0).standard_normal((3, 50_001)).astype(np.float32)
    scores[:, 50_000] = 9  # in the columns that are left when the groups are dealt out
    scores[1, [7, 49_999]] = 9
    columns, _ = top_k(scores, 20)
    assert columns.tolist() == sorted_by_python(scores, 20)
    assert columns[1, :3].tolist() == [7, 49_999, 50_000]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 130])
def test_scores_that_are_not_finite_are_an_error(value, column):
    scores = np.zeros((2, 131), dtype=np.float32)  # at k = 1 the last 3 columns are left over
    scores[1, column] = value
    with pytest.raises(WorkFailed, match="not finite"):
        top_k(scores, 1)


@pytest.fixture
def table():
    return paddle.to_tensor(np.random.default_rng(1).standard_normal((500, 6)).astype(np.float32))


@pytest.fixture
def user_emb():
    return paddle.to_tensor(np.random.default_rng(2).standard_normal((30, 6)).astype(np.float32))


def none():
    return Excluded(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def test_blocks_of_rows_change_nothing(monkeypatch):
    # Whole numbers: their products are exact, whichever kernel the processor's library takes for a block of this size.
    draw = np.random.default_rng(3)
    table = paddle.to_tensor(draw.integers(-9, 10, (500, 6)).astype(np.float32))
    user_emb = paddle.to_tensor(draw.integers(-9, 10, (30, 6)).astype(np.float32))
    excluded = Excluded(np.array([0, 0, 6, 7, 29, 29]), np.array([3, 3, 9, 9, 0, 499]))
    whole = Exact(table).search(user_emb, 10, excluded)
    monkeypatch.setattr(index, "SCORES_AT_ONCE", 7 * 500)
    for one, other in zip(whole, Exact(table).search(user_emb, 10, excluded), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_excluded_is_not_found_and_the_rest_moves_up(table, user_emb):
    columns, scores = Exact(table).search(user_emb, 5, none())
    best = Excluded(np.arange(0, 30, 2), columns[::2, 0])  # of every other row
    left, left_scores = Exact(table).search(user_emb, 4, best)
    np.testing.assert_array_equal(left[::2], columns[::2, 1:])
    np.testing.assert_array_equal(left[1::2], columns[1::2, :4])
    np.testing.assert_array_equal(left_scores[::2], scores[::2, 1:])


def test_fewer_than_k_end_with_minus_infinity(user_emb):
    table = paddle.ones([3, 6])
    columns, scores = Exact(table).search(user_emb[:1], 20, Excluded(np.array([0]), np.array([1])))
    assert columns[0, :2].tolist() == [0, 2] and np.isfinite(scores[0]).tolist() == [True, True, False]


class TestHnsw:
    @pytest.fixture(autouse=True)
    def faiss(self):
        return pytest.importorskip("faiss", reason='needs faiss: pip install -e ".[ann]"')

    def test_it_finds_nearly_all_of_the_best(self, table, user_emb):
        columns, scores = Hnsw(table).search(user_emb, 20, none())
        exact, exact_scores = Exact(table).search(user_emb, 20, none())
        assert np.mean([len(set(a) & set(b)) for a, b in zip(columns, exact, strict=True)]) > 19
        np.testing.assert_allclose(scores[:, 0], exact_scores[:, 0], rtol=1e-5)
        assert (np.diff(scores, axis=1) <= 0).all()

    def test_equal_scores_are_ordered_by_column(self, user_emb):
        columns, _ = Hnsw(paddle.ones([15, 6])).search(user_emb, 15, none())
        assert (columns == np.arange(15)).all()

    def test_what_is_excluded_is_not_found(self, table, user_emb):
        index = Hnsw(table)
        columns, _ = index.search(user_emb, 5, none())
        best = Excluded(np.repeat(np.arange(30), 2), columns[:, :2].reshape(-1))
        left, scores = index.search(user_emb, 3, best)
        assert np.mean(left == columns[:, 2:]) > 0.95 and np.isfinite(scores).all()
        assert not (left[:, :, None] == columns[:, None, :2]).any()

    def test_a_small_catalogue_gives_all_that_is_left(self, user_emb):
        columns, scores = Hnsw(paddle.eye(6)[:3]).search(user_emb, 9, Excluded(np.array([4]), np.array([2])))
        left = np.isfinite(scores)
        assert left.sum(axis=1).tolist() == [3] * 4 + [2] + [3] * 25
        assert set(columns[4][left[4]]) == {0, 1}

    def test_it_uses_the_threads_of_the_process(self, table, faiss):
        from paddle_srgnn.runtime import thread_count

        Hnsw(table)
        assert faiss.omp_get_max_threads() == thread_count()


def test_without_faiss_the_error_says_what_to_install(table, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(InputError, match="pip install"):
        Hnsw(table)
