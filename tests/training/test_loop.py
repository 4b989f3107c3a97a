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
from paddle_srgnn.training import loop
from paddle_srgnn.training.checkpoint import find_checkpoint, last_checkpoint, load_model, read_checkpoint
from paddle_srgnn.training.loop import Training, split_validation

SMALL = ["embedding_dim=12", "batch_size=64", "learning_rate=0.02", "epochs=4", "lr_decay_after=3"]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def train(dataset, run, *changes, resume=False, recipe="paper") -> Training:
    checkpoint = read_checkpoint(last_checkpoint(run)) if resume else None
    training = Training(dataset, load_recipe(recipe, SMALL + list(changes)), run, checkpoint)
    training.fit()
    return training


def rows(run) -> list[dict]:
    with open(run / "metrics.csv") as file:
        return list(csv.DictReader(file))


def weights(run) -> bytes:
    return (last_checkpoint(run) / "model.safetensors").read_bytes()


def results(run) -> list[dict]:
    """metrics.csv without what depends on the clock."""
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows(run)]


def test_it_learns_the_ring(ring, run):
    training = train(ring, run, "epochs=12", "lr_decay_after=")
    epoch, metrics = training.test((1, 5))
    assert epoch == 12
    assert metrics["P@1"] == 100 and metrics["MRR@5"] == 100
    table = rows(run)
    assert [row["epoch"] for row in table] == [str(n) for n in range(1, 13)]
    assert float(table[-1]["loss"]) < float(table[0]["loss"]) / 3
    assert table[-1]["test_P@1"] == "100.0" and table[0]["test_P@1"] == ""


def test_the_strong_recipe_learns_the_ring(ring, run):
    training = train(ring, run, "epochs=12", "warmup_steps=10", recipe="strong")
    assert training.test((1, 5))[1]["P@1"] == 100
    rates = [float(row["lr"]) for row in rows(run)]
    assert rates[0] == pytest.approx(0.02 * 8 / 10)  # the epoch's last step, of eight, in the warm-up
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True) and rates[-1] < 1e-4


def test_the_weights_to_use_are_the_average_of_those_trained(ring, run):
    from safetensors.numpy import load_file

    training = Training(ring, load_recipe("paper", [*SMALL, "ema_decay=0.5"]), run)
    expected = training.model.linear_one.weight.numpy()
    for number, batch in enumerate(sample_batches(SampleBatches(ring.train, 64, 70)), start=1):
        training._step(batch)
        share = 1 - min(0.5, (1 + number) / (10 + number))
        expected = expected + share * (training.model.linear_one.weight.numpy() - expected)
    np.testing.assert_allclose(training.averaged.linear_one.weight.numpy(), expected, atol=1e-6)
    (run / "checkpoints").mkdir()
    training._save(["last"])
    for file, key, model in (("model", "{}", training.averaged), ("training", "{}/weight", training.model)):
        saved = load_file(last_checkpoint(run) / f"{file}.safetensors")
        np.testing.assert_array_equal(saved[key.format("gnn.w_ih")], model.gnn.w_ih.numpy())
    evaluated = load_model(read_checkpoint(last_checkpoint(run)))
    np.testing.assert_array_equal(evaluated.item_emb.weight.numpy(), training.averaged.item_emb.weight.numpy())


def test_without_averaging_there_is_one_model_and_no_second_copy_of_its_weights(ring, run):
    from safetensors.numpy import load_file

    training = train(ring, run, "epochs=1")
    assert training.averaged is training.model
    assert not any(key.endswith("/weight") for key in load_file(last_checkpoint(run) / "training.safetensors"))


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples(ring, run):
    training = train(ring, run, "epochs=1", "learning_rate=0")
    sessions = ring.train
    (batch,) = sample_batches(SampleBatches(sessions, sessions.n_samples, 70))
    expected = training.model.calculate_loss(training.model.encode(batch.graph), batch.target).item()
    assert float(rows(run)[0]["loss"]) == pytest.approx(expected, rel=1e-5)


def test_l2_is_added_to_the_gradient_as_paddles_own_regulariser_does(ring, run):
    training = Training(ring, load_recipe("paper", [*SMALL, "weight_decay=0.5"]), run)
    expected = Training(ring, load_recipe("paper", [*SMALL, "weight_decay=0"]), run)
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


@pytest.mark.parametrize("recipe", ["paper", "strong"])
@pytest.mark.parametrize("stop_after", [1, 4, 8, 9])
def test_a_stopped_training_goes_on_to_the_same_bytes(ring, run, tmp_path, monkeypatch, stop_after, recipe):
    """Stopped in the first epoch, in its last step (8 a epoch), at its very end, and in the second epoch."""
    train(ring, run, recipe=recipe)
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
    with pytest.raises(KeyboardInterrupt, match=r"go on with: python tools/train.py --out .*stopped --resume"):
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
    train(ring, other, "save_every_steps=3", "num_workers=1", "eval_batch_size=7")
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
    good = read_checkpoint(last_checkpoint(run))
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
    assert read_checkpoint(last_checkpoint(run)).progress.step == 8


def test_early_stopping_reports_validations_choice(ring, run, monkeypatch):
    values = iter([10.0, 30.0, 20.0, 30.0, 99.0])
    measured = []

    def evaluate(model, sessions, settings, ks, label, ties="mean", kept=None):
        measured.append((label, sessions.n_samples, 3 in ks))
        return {"P@3": next(values) if "valid" in label else 50.0}

    monkeypatch.setattr(loop, "evaluate", evaluate)
    training = train(ring, run, "epochs=9", "valid_fraction=0.2", "patience=2", "monitor=P@3")
    assert [row["valid_P@3"] for row in rows(run)] == ["10.0", "30.0", "20.0", "30.0"]
    assert all(label == "evaluating valid" and n == training.valid.n_samples and has_k for label, n, has_k in measured)
    assert read_checkpoint(find_checkpoint(run)).progress.epoch - 1 == 2
    assert training.test() == (2, {"P@3": 50.0})
    assert [row["test_P@3"] for row in rows(run)] == ["", "50.0", "", ""]


def test_the_test_set_is_untouched_unless_asked_for(ring, run, monkeypatch):
    labels = []
    monkeypatch.setattr(loop, "evaluate", lambda *args, **kept: labels.append(args[4]) or {"P@20": 1.0})
    train(ring, run, "epochs=2")
    assert labels == []
    (run / "again").mkdir()
    train(ring, run / "again", "epochs=2", "eval_every_epoch=true")
    assert labels == ["evaluating test"] * 2


def test_validation_takes_the_most_recent_sessions(ring):
    older, recent = split_validation(ring, load_recipe("paper", ["valid_fraction=0.1"]))
    assert len(recent) == 15 and older.dates.max() < recent.dates.min()
    assert split_validation(ring, load_recipe("paper")) == (ring.train, None)
    with pytest.raises(InputError, match="patience=3 needs validation"):
        split_validation(ring, load_recipe("paper", ["patience=3"]))
    with pytest.raises(InputError, match="share"):
        split_validation(ring, load_recipe("paper", ["valid_fraction=0.0001"]))
