import csv
import signal

import numpy as np
import paddle
import pytest

from paddle_srgnn import kernels, runtime
from paddle_srgnn.config import load_recipe
from paddle_srgnn.datasets.samples import SampleBatches, sample_batches
from paddle_srgnn.datasets.sessions import SessionDataset, Sessions
from paddle_srgnn.errors import InputError, WorkFailed
from paddle_srgnn.evaluation.results import evaluate
from paddle_srgnn.protocols.paper import Measured, Paper
from paddle_srgnn.run import Run
from paddle_srgnn.training.loop import Training

SMALL = {"embedding_dim": 12, "batch_size": 64, "learning_rate": 0.02, "epochs": 4, "lr_decay_after": 3}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def train(dataset, run, *changes, resume=False, recipe="paper") -> Training:
    checkpoint = Run(run).checkpoint("last") if resume else None
    settings = load_recipe(recipe, SMALL | dict(change.split("=") for change in changes))
    training = Training(dataset, settings, run, checkpoint)
    training.fit()
    return training


def rows(run) -> list[dict]:
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def weights(run) -> bytes:
    return (Run(run).find_checkpoint("last") / "model.safetensors").read_bytes()


def results(run) -> list[dict]:
    """metrics.csv without what depends on the clock."""
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows(run)]


def test_it_learns_the_ring(ring, run):
    training = train(ring, run, "epochs=12", "lr_decay_after=")
    metrics = evaluate(run, ring, (1, 5)).metrics
    assert Run(run).reported_epoch == training.progress.epoch - 1 == 12
    assert metrics["P@1"] == 100 and metrics["MRR@5"] == 100
    table = rows(run)
    assert [row["epoch"] for row in table] == [str(n) for n in range(1, 13)]
    assert float(table[-1]["loss"]) < float(table[0]["loss"]) / 3


def test_the_strong_recipe_learns_the_ring(ring, run):
    train(ring, run, "epochs=12", "warmup_steps=10", recipe="strong")
    assert evaluate(run, ring, (1, 5)).metrics["P@1"] == 100
    rates = [float(row["lr"]) for row in rows(run)]
    assert rates[0] == pytest.approx(0.02 * 8 / 10)  # the epoch's last step, of eight, in the warm-up
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True) and rates[-1] < 1e-4


def test_the_weights_to_use_are_the_average_of_those_trained(ring, run):
    from safetensors.numpy import load_file

    training = Training(ring, load_recipe("paper", {**SMALL, "ema_decay": "0.5"}), run)
    expected = training.model.linear_one.weight.numpy()
    for number, batch in enumerate(sample_batches(SampleBatches(ring.train, 64, 70)), start=1):
        training._step(batch)
        share = 1 - min(0.5, (1 + number) / (10 + number))
        expected = expected + share * (training.model.linear_one.weight.numpy() - expected)
    np.testing.assert_allclose(training.averaged.linear_one.weight.numpy(), expected, atol=1e-6)
    (run / "checkpoints").mkdir()
    training._save(["last"])
    for file, key, model in (("model", "{}", training.averaged), ("training", "{}/weight", training.model)):
        saved = load_file(Run(run).find_checkpoint("last") / f"{file}.safetensors")
        np.testing.assert_array_equal(saved[key.format("gnn.w_ih")], model.gnn.w_ih.numpy())
    evaluated = Run(run).model()
    np.testing.assert_array_equal(evaluated.item_emb.weight.numpy(), training.averaged.item_emb.weight.numpy())


def test_without_averaging_there_is_one_model_and_no_second_copy_of_its_weights(ring, run):
    from safetensors.numpy import load_file

    training = train(ring, run, "epochs=1")
    assert training.averaged is training.model
    arrays = load_file(Run(run).find_checkpoint("last") / "training.safetensors")
    assert not any(key.endswith("/weight") for key in arrays)


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples(ring, run):
    training = train(ring, run, "epochs=1", "learning_rate=0")
    sessions = ring.train
    (batch,) = sample_batches(SampleBatches(sessions, sessions.n_samples, 70))
    expected = training.model.calculate_loss(training.model.encode(batch.graph), batch.target).item()
    assert float(rows(run)[0]["loss"]) == pytest.approx(expected, rel=1e-5)


def test_l2_is_added_to_the_gradient_as_paddles_own_regulariser_does(ring, run):
    training = Training(ring, load_recipe("paper", {**SMALL, "weight_decay": "0.5"}), run)
    expected = Training(ring, load_recipe("paper", {**SMALL, "weight_decay": "0"}), run)
    expected.adam = paddle.optimizer.Adam(
        0.02, parameters=expected.model.parameters(), weight_decay=paddle.regularizer.L2Decay(0.5)
    )
    for batch in sample_batches(SampleBatches(ring.train, 64, 70)):
        training._step(batch)
        expected._step(batch)
    for (name, ours), (_, theirs) in zip(
        training.model.named_parameters(), expected.model.named_parameters(), strict=True
    ):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module", params=["paper", "strong"])
def whole(request, ring, tmp_path_factory) -> tuple:
    """A recipe, and a training with it that was never stopped."""
    run = tmp_path_factory.mktemp("whole")
    train(ring, run, recipe=request.param)
    return request.param, run


@pytest.mark.parametrize("stop_after", [1, 4, 8, 9])
def test_a_stopped_training_goes_on_to_the_same_bytes(ring, whole, tmp_path, monkeypatch, stop_after):
    """Stopped in the first epoch, in its last step (8 a epoch), at its very end, and in the second epoch."""
    recipe, run = whole
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    step, steps = Training._step, 0

    def counted(self, batch):
        nonlocal steps
        step(self, batch)
        steps += 1
        if steps == stop_after:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "_step", counted)
    message = r"interrupted in epoch \d, step \d of 8; a checkpoint is written in .*stopped"
    with pytest.raises(KeyboardInterrupt, match=message):
        train(ring, stopped, recipe=recipe)
    monkeypatch.setattr(Training, "_step", step)
    train(ring, stopped, resume=True, recipe=recipe)
    assert weights(stopped) == weights(run)
    assert results(stopped) == results(run)


def test_with_two_threads_a_stopped_training_goes_on_to_the_same_bytes(run, tmp_path, monkeypatch):
    """The item table is larger than what one thread does alone, in the kernels of the recipe `strong` too."""
    monkeypatch.setattr(runtime, "_threads", 2)
    rng = np.random.default_rng(0)
    train_set = Sessions(rng.integers(1, 4000, 120).astype(np.int32), np.arange(0, 121, 3), np.arange(40) * 3600)
    wide = SessionDataset("wide", train_set, train_set, ["", *map(str, range(1, 4000))], np.zeros(4000, np.int64))
    changes = ["embedding_dim=80", "batch_size=20", "epochs=1", "weight_decay=1e-5", "ema_decay=0.9"]
    changes += ["cosine_scale=12", "label_smoothing=0.1"]
    assert wide.n_items * 80 > kernels._CACHED
    train(wide, run, *changes)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    step = Training._step

    def interrupted(self, batch):
        step(self, batch)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(wide, stopped, *changes)
    monkeypatch.setattr(Training, "_step", step)
    train(wide, stopped, *changes, resume=True)
    assert weights(stopped) == weights(run)
    assert results(stopped) == results(run)


def test_a_training_continued_for_more_epochs_equals_a_longer_one(ring, run, tmp_path):
    train(ring, run, "epochs=3")
    train(ring, run, resume=True)
    longer = tmp_path / "longer"
    longer.mkdir()
    train(ring, longer)
    assert weights(run) == weights(longer) and results(run) == results(longer)


def test_how_often_it_saves_does_not_change_the_result(ring, run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    train(ring, run, "save_every_steps=0")
    train(ring, other, "save_every_steps=3", "eval_batch_size=7")
    assert weights(run) == weights(other)


def test_the_seed_decides(ring, run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    train(ring, run, "epochs=1")
    train(ring, other, "epochs=1", "seed=1")
    assert weights(run) != weights(other)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(ring, run, monkeypatch):
    step = Training._step

    def poisoned(self, batch):
        if self.progress.step == 12:
            self.model.linear_transform.bias.set_value(np.full(12, np.nan, dtype=np.float32))
        step(self, batch)

    monkeypatch.setattr(Training, "_step", poisoned)
    with pytest.raises(WorkFailed, match="nan in epoch 2, step 5"):
        train(ring, run)
    good = Run(run).checkpoint("last")
    assert good.progress.step == 8 and good.progress.epoch == 2


def test_weights_that_are_not_finite_are_never_saved(ring, run, monkeypatch):
    step = Training._step

    def poisoned(self, batch):
        step(self, batch)
        if self.progress.step == 16:  # after the epoch's last loss
            self.model.gnn.b_ih.set_value(np.full(36, np.inf, dtype=np.float32))

    monkeypatch.setattr(Training, "_step", poisoned)
    with pytest.raises(WorkFailed, match=r"gnn\.b_ih is not finite"):
        train(ring, run)
    assert Run(run).checkpoint("last").progress.step == 8


def measured_as(values, labels):
    """A stand-in for `Paper.measure`; the label of a progress bar tells the split."""

    def measure(self, scorer, sessions, ks, ties="mean", keep_lists=False, advance=None):
        labels.append((sessions.n_samples, tuple(ks)))
        return Measured({"P@3": next(values)})

    return measure


def test_early_stopping_reports_validations_choice(ring, run, monkeypatch):
    asked = []
    monkeypatch.setattr(Paper, "measure", measured_as(iter([10.0, 30.0, 20.0, 30.0, 99.0]), asked))
    training = train(ring, run, "epochs=9", "valid_fraction=0.2", "patience=2", "monitor=P@3")
    assert [row["valid_P@3"] for row in rows(run)] == ["10.0", "30.0", "20.0", "30.0"]
    assert asked == [(training.valid.n_samples, (5, 10, 20, 3))] * 4
    assert Run(run).reported_epoch == 2 and Run(run).is_finished


def test_the_test_set_is_untouched_unless_asked_for(ring, run, monkeypatch):
    asked = []
    monkeypatch.setattr(Paper, "measure", measured_as(iter([1.0] * 9), asked))
    train(ring, run, "epochs=2")
    assert asked == []
    (run / "again").mkdir()
    train(ring, run / "again", "epochs=2", "eval_every_epoch=true")
    assert asked == [(ring.test.n_samples, (5, 10, 20))] * 2


def test_early_stopping_needs_validation(ring, run):
    with pytest.raises(InputError, match="patience=3 needs validation"):
        Training(ring, load_recipe("paper", {"patience": 3}), run)
