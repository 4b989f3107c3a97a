import numpy as np
import paddle
import pytest

from paddle_srgnn.datasets.samples import SampleBatches, data_loader, epoch_order, sample_batches
from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.graph import packed_graph

# The sessions (1, 2, 3, 2) and (4, 5): samples 1->2, 12->3, 123->2 and 4->5.
SESSIONS = Sessions(np.array([1, 2, 3, 2, 4, 5], dtype=np.int32), np.array([0, 4, 6]))


def inputs(batch) -> list[list[int]]:
    """Each session's clicks, read back from its graph."""
    clicks = batch.graph.items.numpy()[batch.graph.click_node.numpy()]
    session = batch.graph.click_session.numpy()
    return [clicks[session == s].tolist() for s in range(len(batch.target))]


def test_batches_of_a_hand_worked_example():
    first, second = sample_batches(SampleBatches(SESSIONS, 3, 70))
    assert inputs(first) == [[1], [1, 2], [1, 2, 3]] and first.target.tolist() == [2, 3, 2]
    assert inputs(second) == [[4]] and second.target.tolist() == [5]


def test_only_the_most_recent_clicks_are_read():
    (batch,) = sample_batches(SampleBatches(SESSIONS, 4, 2))
    assert inputs(batch) == [[1], [1, 2], [2, 3], [4]]


def test_a_batchs_graph_is_that_of_its_sessions():
    (batch,) = sample_batches(SampleBatches(SESSIONS, 4, 70, positions=np.array([3, 5])))
    expected = packed_graph(np.array([1, 2, 3, 4]), np.array([3, 1]))
    for found, array in zip(batch.graph, expected, strict=True):
        assert found.numpy().dtype == array.dtype
        np.testing.assert_array_equal(found.numpy(), array)


def test_the_order_depends_on_seed_and_epoch_alone():
    order = epoch_order(50, seed=3, epoch=2)
    assert sorted(order) == list(range(50))
    np.testing.assert_array_equal(order, epoch_order(50, seed=3, epoch=2))
    assert (order != epoch_order(50, seed=3, epoch=3)).any() and (order != epoch_order(50, seed=4, epoch=2)).any()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_paddles_loader_gives_the_same_batches(num_workers):
    rng = np.random.default_rng(0)
    sessions = Sessions(rng.integers(1, 30, 400).astype(np.int32), np.arange(0, 401, 8))
    dataset = SampleBatches(sessions, 32, 5, sessions.sample_positions()[epoch_order(sessions.n_samples, 1, 1)])
    loaded = list(data_loader(dataset, num_workers))
    assert len(loaded) == len(dataset) == 11
    for batch, (graph, target) in zip(loaded, sample_batches(dataset), strict=True):
        for found, expected in zip(batch, (*graph, target), strict=True):
            np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_an_exception_in_building_a_batch_is_raised_as_itself():
    dataset = SampleBatches(SESSIONS, 2, 70)
    dataset.items = dataset.items[:4]  # as if the file had shrunk
    batches = sample_batches(dataset)
    assert inputs(next(batches)) == [[1], [1, 2]]
    with pytest.raises(IndexError, match="out of bounds"):
        next(batches)


def test_batches_are_tensors_on_the_default_device():
    batch = next(sample_batches(SampleBatches(SESSIONS, 4, 70)))
    assert isinstance(batch.target, paddle.Tensor) and batch.target.dtype == paddle.int64
