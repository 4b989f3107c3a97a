import numpy as np
import paddle
import pytest

from paddle_srgnn import kernels, runtime
from paddle_srgnn.kernels import full_softmax, unit_rows


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


@pytest.mark.parametrize("n_rows", [5, 40_000])
def test_unit_rows_are_paddles_own(n_rows):
    """Few rows are done by one thread, many in blocks by all."""
    rng = np.random.default_rng(3)
    vectors, weight = rng.normal(size=(2, n_rows, 8)).astype(np.float32)
    results = []
    for unit in (unit_rows, lambda tensor: paddle.nn.functional.normalize(tensor, axis=1)):
        tensor = paddle.to_tensor(vectors, stop_gradient=False)
        rows = unit(tensor)
        (rows * paddle.to_tensor(weight)).sum().backward()
        results.append((rows.numpy(), tensor.grad.numpy()))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)


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


def test_the_way_of_other_devices_gives_the_same():
    scores = np.random.default_rng(2).normal(size=(7, 50)).astype(np.float32)
    one, other = paddle.to_tensor(scores), paddle.to_tensor(scores)
    for found, expected in zip(kernels._exponentiate(one), kernels._exponentiate_on_cpu(other), strict=True):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)
    np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-6)


def test_a_frozen_side_is_left_alone(batch):
    user_emb, table, target = (paddle.to_tensor(array) for array in batch)
    user_emb.stop_gradient = False
    full_softmax(user_emb, table, target).backward()
    assert user_emb.grad is not None and table.grad is None
    user_emb.stop_gradient, table.stop_gradient = True, False
    full_softmax(user_emb, table, target).backward()
    assert table.grad is not None


def test_the_number_of_threads_does_not_change_it(monkeypatch):
    rng = np.random.default_rng(1)
    user_emb, table = rng.normal(size=(33, 8)).astype(np.float32), rng.normal(size=(20000, 8)).astype(np.float32)
    batch = user_emb, table, rng.integers(0, 20000, 33)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(runtime, "_threads", threads)
        monkeypatch.setattr(kernels, "_pool", None)
        results.append(loss_and_gradients(full_softmax, *batch))
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(found, expected)
