import numpy as np
import pytest
from benchmarks.scale import exponent
from benchmarks.workload import PaddedSamples, load_reference, padded

from paddle_srgnn.datasets.sessions import Sessions
from paddle_srgnn.errors import InputError


def test_padded_samples_of_a_hand_worked_example():
    sessions = Sessions(np.array([1, 2, 3, 4, 5], dtype=np.int32), np.array([0, 3, 5]))
    rows, target = PaddedSamples(sessions, 3).batch(np.array([0, 1, 2]))
    assert rows.tolist() == [[1, 0, 0], [1, 2, 0], [4, 0, 0]] and target.tolist() == [2, 3, 5]
    assert PaddedSamples(sessions, 1).batch(np.array([1]))[0].tolist() == [[2]]
    assert padded([np.array([7]), np.array([8, 9])], 2).tolist() == [[7, 0], [8, 9]]


def test_the_exponent_of_a_power_law():
    assert exponent([1, 10, 100], [5, 50 * 10, 500 * 100]) == pytest.approx(2)


def test_a_file_without_the_class_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(InputError, match="no class SRGNN"):
        load_reference(str(tmp_path / "empty.py"))
