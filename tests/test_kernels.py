import numpy as np
import paddle
import pytest

from paddle_srgnn import kernels, runtime
from paddle_srgnn.kernels import add_l2, average, full_softmax, in_row_blocks, memory_of, sparse_lookup, unit_rows


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    user_emb, table = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    return user_emb, table, np.array([1, 8, 3, 3, 5])


def loss_and_gradients(loss, user_emb, table, target, **options):
    tensors = [paddle.to_tensor(array, stop_gradient=False) for array in (user_emb, table)]
    value = loss(*tensors, paddle.to_tensor(target), **options)
    (3 * value).backward()
    return value.item(), *(tensor.grad.numpy() for tensor in tensors)


def plain(user_emb, table, target, first_candidate=0):
    scores = paddle.matmul(user_emb, table[first_candidate:], transpose_y=True)
    return paddle.nn.functional.cross_entropy(scores, target - first_candidate)


@pytest.mark.parametrize("first_candidate", [0, 1])
def test_it_is_the_cross_entropy_of_the_scores(batch, first_candidate):
    ours = loss_and_gradients(full_softmax, *batch, first_candidate=first_candidate)
    theirs = loss_and_gradients(plain, *batch, first_candidate=first_candidate)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-6)
    for found, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("first_candidate", [0, 1])
def test_a_smoothed_label_is_paddles_soft_label(batch, first_candidate):
    def theirs(user_emb, table, target):
        scores = paddle.matmul(user_emb, table[first_candidate:], transpose_y=True)
        one_hot = paddle.nn.functional.one_hot(target - first_candidate, scores.shape[1])
        soft = paddle.nn.functional.label_smooth(one_hot, epsilon=0.3)
        return paddle.nn.functional.cross_entropy(scores, soft, soft_label=True)

    ours = loss_and_gradients(full_softmax, *batch, first_candidate=first_candidate, label_smoothing=0.3)
    for found, expected in zip(ours, loss_and_gradients(theirs, *batch), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    if first_candidate:
        assert not ours[2][0].any()


def test_a_hand_worked_smoothed_loss():
    """The probabilities are 1/4 and 3/4; a fifth of the label is spread, so it is 1/10 and 9/10."""
    user_emb, table = np.array([[1.0]], np.float32), np.array([[0.0], [np.log(3)]], np.float32)
    loss, _, grad_table = loss_and_gradients(full_softmax, user_emb, table, np.array([1]), label_smoothing=0.2)
    assert loss == pytest.approx(-0.1 * np.log(0.25) - 0.9 * np.log(0.75), abs=1e-6)
    np.testing.assert_allclose(grad_table, 3 * np.array([[0.25 - 0.1], [0.75 - 0.9]]), atol=1e-6)


def test_a_row_of_zeros_stays_one():
    assert not unit_rows(paddle.zeros([2, 4])).numpy().any()


def test_a_hand_worked_loss():
    """Two items with the scores 0 and ln 3 have the probabilities 1/4 and 3/4."""
    user_emb, table = np.array([[1.0]], np.float32), np.array([[0.0], [np.log(3)]], np.float32)
    loss, grad_user, grad_table = loss_and_gradients(full_softmax, user_emb, table, np.array([1]))
    assert loss == pytest.approx(-np.log(0.75), abs=1e-6)
    np.testing.assert_allclose(grad_table, 3 * np.array([[0.25], [-0.25]]), atol=1e-6)
    np.testing.assert_allclose(grad_user, 3 * np.array([[-0.25 * np.log(3)]]), atol=1e-6)


def test_what_is_no_candidate_gets_no_gradient_at_all(batch):
    _, _, grad_table = loss_and_gradients(full_softmax, *batch, first_candidate=1)
    assert not grad_table[0].any() and grad_table[1:].all()


def test_an_improbable_next_item_has_its_true_loss(batch):
    """Scores in the thousands: the probability is 0 in float32, its logarithm is not."""
    user_emb, table, target = batch[0] * 100, batch[1] * 100, batch[2]
    scores = user_emb.astype(float) @ table.astype(float).T
    expected = np.mean(scores.max(axis=1) - scores[np.arange(5), target])  # all others are negligible
    assert expected > 1000
    loss, *gradients = loss_and_gradients(full_softmax, user_emb, table, target)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_a_session_vector_that_is_not_a_number_shows_in_the_loss(batch):
    user_emb, table, target = batch
    user_emb[2] = np.nan
    assert np.isnan(loss_and_gradients(full_softmax, user_emb, table, target)[0])


def test_an_item_vector_that_is_not_a_number_shows_in_the_loss(batch):
    user_emb, table, target = batch
    table[2] = np.nan  # nobody's next item
    assert np.isnan(loss_and_gradients(full_softmax, user_emb, table, target)[0])


def test_a_frozen_side_is_left_alone(batch):
    user_emb, table, target = (paddle.to_tensor(array) for array in batch)
    user_emb.stop_gradient = False
    full_softmax(user_emb, table, target).backward()
    assert user_emb.grad is not None and table.grad is None
    user_emb.stop_gradient, table.stop_gradient = True, False
    full_softmax(user_emb, table, target).backward()
    assert table.grad is not None


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(runtime, "_threads", request.param)
    monkeypatch.setattr(kernels, "_pool", None)
    return request.param


@pytest.fixture
def no_views():
    """Paddle as with FLAGS_use_stride_kernel=0, where a slice is a copy."""
    paddle.set_flags({"FLAGS_use_stride_kernel": False})
    yield
    paddle.set_flags({"FLAGS_use_stride_kernel": True})


def results_of_every_kernel(n_items: int, dtype: str) -> dict[str, list[np.ndarray]]:
    """What each kernel computes for a table of n_items rows of 8 elements, in the given dtype."""
    rng = np.random.default_rng(7)
    draw = lambda *shape: paddle.to_tensor(rng.normal(size=shape).astype(dtype), stop_gradient=False)  # noqa: E731
    user_emb, table, upstream = draw(9, 8), draw(n_items, 8), draw(n_items, 8)
    target = paddle.to_tensor(rng.integers(1, n_items, 9))
    results = {}
    for smoothing in (0.0, 0.2):
        loss = full_softmax(user_emb, table, target, 1, smoothing)
        loss.backward()
        results[f"full_softmax {smoothing}"] = [loss.numpy(), user_emb.grad.numpy(), table.grad.numpy()]
        user_emb.clear_gradient(False)
        table.clear_gradient(False)
    rows = unit_rows(table)
    (rows * upstream).sum().backward()
    results["unit_rows"] = [rows.numpy(), table.grad.numpy()]
    vector = draw(8)
    (vector * vector).sum().backward()
    add_l2([table, vector], 0.5)
    results["add_l2"] = [table.grad.numpy(), vector.grad.numpy()]
    one, other = paddle.nn.Linear(n_items, 8), paddle.nn.Linear(n_items, 8)
    for layer in (one, other):
        layer.to(dtype=dtype)
        for parameter in layer.parameters():
            parameter.set_value(rng.normal(size=parameter.shape).astype(dtype))
    average(one, other, decay=0.9, updates=2)  # the share is 1 - 3/12
    results["average"] = [parameter.numpy() for parameter in one.parameters()]
    return results


def expected_of_every_kernel(n_items: int) -> dict[str, list[np.ndarray]]:
    """The same in float64, worked out by numpy."""
    rng = np.random.default_rng(7)
    user_emb, table, upstream = (rng.normal(size=shape) for shape in ((9, 8), (n_items, 8), (n_items, 8)))
    target = rng.integers(1, n_items, 9)
    scores = user_emb @ table.T
    scores[:, 0] = -np.inf
    own = np.arange(9), target
    log_softmax = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    expected = {}
    for smoothing in (0.0, 0.2):
        label = np.full((9, n_items), smoothing / (n_items - 1))
        label[own] += 1 - smoothing
        label[:, 0] = 0
        difference = (np.exp(log_softmax) - label) / 9
        loss = -(label[:, 1:] * log_softmax[:, 1:]).sum() / 9
        expected[f"full_softmax {smoothing}"] = [loss, difference @ table, difference.T @ user_emb]
    length = np.linalg.norm(table, axis=1, keepdims=True)
    unit = table / length
    grad = (upstream - unit * (upstream * unit).sum(axis=1, keepdims=True)) / length
    expected["unit_rows"] = [unit, grad]
    vector = rng.normal(size=8)
    expected["add_l2"] = [grad + 0.5 * table, 2.5 * vector]
    one, other = ([rng.normal(size=shape) for shape in ((n_items, 8), (8,))] for _ in range(2))
    expected["average"] = [0.25 * mean + 0.75 * weight for mean, weight in zip(one, other, strict=True)]
    return expected


def assert_right(n_items: int, dtype: str = "float32") -> None:
    results = results_of_every_kernel(n_items, dtype)
    tolerance = {"float32": 2e-5, "float64": 1e-9}[dtype]
    for name, expected in expected_of_every_kernel(n_items).items():
        for found, right in zip(results[name], expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=tolerance, atol=tolerance, err_msg=name)


SMALL, LARGE = 50, 40_000  # items of 8 elements: either side of what one thread does alone


@pytest.mark.parametrize("n_items", [SMALL, LARGE])
def test_every_kernel_is_right_on_both_sides_of_the_threaded_size(n_items, threads):
    assert (n_items * 8 >= kernels._CACHED) == (n_items == LARGE)
    assert_right(n_items)
    assert (kernels._pool is not None) == (n_items == LARGE and threads > 1)


@pytest.mark.parametrize("n_items", [SMALL, LARGE])
def test_every_kernel_is_right_in_float64(n_items):
    assert_right(n_items, "float64")


@pytest.mark.parametrize("n_items", [SMALL, LARGE])
def test_every_kernel_is_right_where_slices_are_copies(n_items, no_views):
    assert_right(n_items)


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(runtime, "_threads", threads)
        monkeypatch.setattr(kernels, "_pool", None)
        results.append(results_of_every_kernel(LARGE, "float32"))
    for result in results[1:]:
        for name, arrays in result.items():
            for found, expected in zip(arrays, results[0][name], strict=True):
                np.testing.assert_array_equal(found, expected, err_msg=name)


def test_bfloat16_scores_are_not_read_as_float32(batch):
    tensors = [paddle.to_tensor(array).astype("bfloat16") for array in batch[:2]]
    with pytest.raises(ValueError, match="bfloat16"):
        memory_of(tensors[0])
    assert not kernels.in_memory(*tensors)


def test_no_paddle_device_is_set_in_a_thread(monkeypatch):
    monkeypatch.setattr(runtime, "_threads", 2)
    monkeypatch.setattr(kernels, "_pool", None)
    monkeypatch.setattr(paddle, "set_device", lambda _: pytest.fail("set_device changes the whole process"))
    in_row_blocks(lambda rows: rows.fill(1), matrix := np.zeros((LARGE, 8), np.float32))
    assert kernels._pool is not None and matrix.all()


def test_row_blocks_cover_every_row_once_and_work_in_place(monkeypatch, threads):
    monkeypatch.setattr(kernels, "_CACHED", 40)
    matrix, sizes = np.zeros((23, 10), dtype=np.float32), []

    def add(block, numbers):
        block += numbers
        sizes.append(len(block))

    in_row_blocks(add, matrix, np.arange(23, dtype=np.float32)[:, None])
    assert sum(sizes) == 23 and max(sizes) <= 4
    np.testing.assert_array_equal(matrix, np.repeat(np.arange(23)[:, None], 10, axis=1))


def test_a_tensors_memory_is_its_own():
    tensor = paddle.arange(6, dtype="float32").reshape([2, 3])
    memory_of(tensor)[1, 2] = 50
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 50]]


def test_other_memory_is_refused(no_views):
    with pytest.raises(ValueError, match="cannot read"):
        memory_of(paddle.zeros([2, 3]))  # views are copies
    paddle.set_flags({"FLAGS_use_stride_kernel": True})
    for tensor in (paddle.zeros([2, 3], "float64"), paddle.zeros([2, 3]).T, paddle.zeros([2, 3])[:, :2]):
        with pytest.raises(ValueError, match="expected contiguous float32"):
            memory_of(tensor)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("indices", [[3, 8, 3, 1, 3], [0, 8, 8, 0, 2]])
def test_a_sparse_lookup_has_the_bits_of_paddles_embedding(batch, indices, dtype):
    rng = np.random.default_rng(4)
    upstream, user_emb = (paddle.to_tensor(rng.normal(size=(5, 4)).astype(dtype)) for _ in range(2))
    target, results = paddle.to_tensor(batch[2]), []
    for lookup in (sparse_lookup, lambda *args: paddle.nn.functional.embedding(*args, padding_idx=0)):
        table = paddle.to_tensor(batch[1].astype(dtype), stop_gradient=False)
        rows = lookup(paddle.to_tensor(indices), table)
        (full_softmax(user_emb, table, target) + (rows * upstream).sum()).backward()
        results.append((rows.numpy(), table.grad.numpy()))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
