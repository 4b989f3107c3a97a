"""Training under the course's protocol: samples, validation, exact resume."""

import csv
import signal

import numpy as np
import pytest

from paddle_srgnn.config import load_recipe
from paddle_srgnn.errors import InputError
from paddle_srgnn.evaluation.results import evaluate
from paddle_srgnn.protocols.course import Course
from paddle_srgnn.protocols.paper import Measured
from paddle_srgnn.run import Run
from paddle_srgnn.training.loop import Training

SMALL = {"batch_size": 16, "learning_rate": 0.01, "epochs": 3}


def train(dataset, run, *changes, resume=False) -> Training:
    run.mkdir(exist_ok=True)
    checkpoint = Run(run).checkpoint("last") if resume else None
    settings = load_recipe("datawhale", SMALL | dict(change.split("=") for change in changes))
    training = Training(dataset, settings, run, checkpoint)
    training.fit()
    return training


def rows(run) -> list[dict]:
    with open(run / "metrics.csv") as file:
        return [{key: value for key, value in row.items() if "second" not in key} for row in csv.DictReader(file)]


def weights(run) -> bytes:
    return (Run(run).find_checkpoint("last") / "model.safetensors").read_bytes()


def test_an_epoch_has_one_sample_of_every_user(ring_users, tmp_path):
    training = train(ring_users, tmp_path / "run", "epochs=1")
    users = ring_users.train
    assert training.progress.step == -(-len(users) // 16)
    for epoch in (1, 2):
        positions = training._positions(epoch)
        starts = users.sample_starts(positions)
        assert sorted(starts.tolist()) == users.offsets[:-1].tolist() and (positions - starts >= 4).all()
    assert (np.sort(training._positions(1)) != np.sort(training._positions(2))).any()


def test_it_learns_and_reports_validations_choice_in_the_courses_metrics(ring_users, tmp_path):
    train(ring_users, tmp_path / "run", "epochs=60", "learning_rate=0.02", "monitor=recall@3", "patience=8")
    table = rows(tmp_path / "run")
    names = [f"valid_{name}@{k}" for k in (3, 20, 50) for name in ("recall", "hitrate", "course_ndcg", "ndcg")]
    assert [name for name in table[0] if name.startswith("valid")] == names
    assert float(table[-1]["loss"]) < float(table[0]["loss"]) / 2
    values = [float(row["valid_recall@3"]) for row in table]
    epoch, metrics = Run(tmp_path / "run").reported_epoch, evaluate(tmp_path / "run", ring_users).metrics
    assert epoch == 1 + values.index(max(values))
    assert len(table) in (60, epoch + 8)
    assert list(metrics) == [f"{name}@{k}" for k in (20, 50) for name in ("recall", "hitrate", "course_ndcg", "ndcg")]
    # In the ring the first label is certain.
    assert float(table[epoch - 1]["valid_hitrate@3"]) == 100 > float(table[0]["valid_hitrate@3"])


def test_validation_is_on_the_datasets_own_users(ring_users, tmp_path, monkeypatch):
    asked = []

    def measure(self, scorer, sessions, ks, **how):
        asked.append((sessions, ks))
        return Measured({"recall@20": 1.0, "recall@50": 1.0})

    monkeypatch.setattr(Course, "measure", measure)
    training = train(ring_users, tmp_path / "run", "epochs=1", "eval_every_epoch=true")
    assert training.train is ring_users.train  # whatever valid_fraction says
    (valid, ks), (test, test_ks) = asked
    assert valid is ring_users.valid and test is ring_users.test
    assert set(ks) == set(test_ks) == {20, 50}


@pytest.fixture(scope="module")
def whole(ring_users, tmp_path_factory):
    """A training that was never stopped."""
    run = tmp_path_factory.mktemp("whole")
    train(ring_users, run)
    return run


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_a_stopped_training_goes_on_to_the_same_bytes(ring_users, whole, tmp_path, monkeypatch, stop_after):
    """Stopped in the first epoch, in its last step (3 an epoch), and in the second epoch."""
    step, steps = Training._step, 0

    def counted(self, batch):
        nonlocal steps
        step(self, batch)
        steps += 1
        if steps == stop_after:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "_step", counted)
    with pytest.raises(KeyboardInterrupt):
        train(ring_users, tmp_path / "stopped")
    monkeypatch.setattr(Training, "_step", step)
    train(ring_users, tmp_path / "stopped", resume=True)
    assert weights(tmp_path / "stopped") == weights(whole)
    assert rows(tmp_path / "stopped") == rows(whole)


def test_the_recipe_serves_sessions_too(ring, tmp_path):
    train(ring, tmp_path / "run", "epochs=1", "valid_fraction=0.2")
    assert "valid_P@50" in rows(tmp_path / "run")[0]


def test_a_metric_that_the_protocol_lacks_is_refused(ring, ring_users, tmp_path):
    with pytest.raises(InputError, match="monitor=MRR@20: protocol course measures recall@K"):
        Training(ring_users, load_recipe("datawhale", {"monitor": "MRR@20"}), tmp_path)
    with pytest.raises(InputError, match="monitor=ndcg@20: protocol sessions measures"):
        Training(ring, load_recipe("datawhale", {"monitor": "ndcg@20"}), tmp_path)
    Training(ring_users, load_recipe("paper"), tmp_path)  # monitors nothing
