import subprocess
import sys

import numpy as np
import paddle
import pytest

from paddle_srgnn.datasets.samples import SampleBatches, epoch_order, load_batches, sample_batches
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
def test_workers_do_not_change_the_batches(num_workers):
    rng = np.random.default_rng(0)
    sessions = Sessions(rng.integers(1, 30, 400).astype(np.int32), np.arange(0, 401, 8))
    dataset = SampleBatches(sessions, 32, 5, sessions.sample_positions()[epoch_order(sessions.n_samples, 1, 1)])
    loaded = list(sample_batches(dataset, num_workers))
    assert len(loaded) == len(dataset) == 11
    for k, batch in enumerate(loaded):
        for found, array in zip((*batch.graph, batch.target), dataset[k], strict=True):
            np.testing.assert_array_equal(found.numpy(), array)


FAILING = """
import numpy as np
from paddle_srgnn.runtime import import_paddle
paddle = import_paddle()
from paddle_srgnn.datasets.samples import load_batches

class Odd(Exception):
    def __reduce__(self):
        raise TypeError("cannot be pickled")

class Failing(paddle.io.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, k):
        if k == {at}:
            raise {error}
        return np.full(2, k), np.zeros(1)

seen = []
try:
    for batch in load_batches(Failing(), {workers}):
        seen.append(int(batch[0][0]))
except Exception as error:
    print(type(error).__name__, "|", str(error).strip().splitlines()[-1], "|", seen)
"""


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(
    "at, error, caught",
    [
        (0, "KeyError('nowhere')", "KeyError | 'nowhere' | []"),
        (3, "OSError(5, 'broken disk')", "OSError | [Errno 5] broken disk | [0, 1, 2]"),
    ],
)
def test_an_exception_reaches_the_caller_as_itself_and_promptly(workers, at, error, caught):
    code = FAILING.format(at=at, error=error, workers=workers)
    # Paddle's own loader would hang here without workers, so the process has a limit.
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert process.stdout.strip() == caught, process.stderr


def test_an_exception_that_no_process_can_send_arrives_as_its_text():
    code = FAILING.format(at=1, error="Odd('strange')", workers=1)
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert process.stdout.startswith("RuntimeError") and "Odd: strange" in process.stdout


def test_a_real_failure_in_batch_building_is_raised():
    dataset = SampleBatches(SESSIONS, 2, 70)
    dataset.items = dataset.items[:2]  # as if the file had shrunk
    with pytest.raises(IndexError):
        list(load_batches(dataset))


def test_batches_are_tensors_on_the_default_device():
    batch = next(sample_batches(SampleBatches(SESSIONS, 4, 70)))
    assert isinstance(batch.target, paddle.Tensor) and batch.target.dtype == paddle.int64
