import numpy as np
import paddle
import pytest

from paddle_srgnn import losses, runtime
from paddle_srgnn.losses import full_softmax


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
    for found, expected in zip(losses._exponentiate(one), losses._exponentiate_on_cpu(other), strict=True):
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
        monkeypatch.setattr(runtime, "_pool", None)
        results.append(loss_and_gradients(full_softmax, *batch))
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(found, expected)
