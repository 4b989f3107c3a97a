"""Training: epochs, schedule, validation, early stopping, interruption and exact resume."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..config import Settings, parse_metric
from ..datasets.samples import Batch, SampleBatches, epoch_order, sample_batches
from ..datasets.sessions import SessionDataset, Sessions
from ..errors import InputError, WorkFailed
from ..evaluation.ranks import ModelScorer, progress_bar
from ..files import remove_leftovers, write_csv
from ..kernels import add_l2, average
from ..model import SRGNN
from ..protocols import protocol_of
from ..run import METRICS, Checkpoint, Progress, describe_dataset
from ..runtime import import_paddle
from .checkpoint import restore, save_checkpoint

paddle = import_paddle()
logger = logging.getLogger(__name__)

READ_LOSSES_EVERY = 20  # steps; reading a loss makes a GPU wait


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and Paddle."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    paddle.seed(seed)


class Training:
    """One training run of SR-GNN in the folder `run`.

    Every batch and every step depend on the settings and the step's number alone, so a training that goes on from a
    checkpoint gives the same weights, byte for byte, as one that was never interrupted (with as many threads).

    Args:
        dataset: the sessions; with `valid_fraction` its most recent training sessions become the validation set.
        settings: what to train.
        run: an existing folder; checkpoints and metrics.csv are written there.
        checkpoint: where to go on from; None starts anew.
    """

    def __init__(self, dataset: SessionDataset, settings: Settings, run: Path, checkpoint: Checkpoint | None = None):
        self.dataset, self.settings, self.run = dataset, settings, run
        self.protocol = protocol_of(dataset)
        self.train, self.valid = self.protocol.split(dataset, settings.valid_fraction)
        if self.valid is None and settings.patience:
            raise InputError(f"patience={settings.patience} needs validation: set valid_fraction too, e.g. 0.1")
        self.n_samples = self.protocol.n_samples(self.train)  # in an epoch
        self.monitor = self.protocol.metric(settings.monitor) if settings.patience else ""
        seed_everything(settings.seed)
        self.model = SRGNN(settings.model_config(dataset.n_items))
        self.adam = paddle.optimizer.Adam(settings.learning_rate, parameters=self.model.parameters())
        self.averaged = self.model  # the weights to use
        if settings.ema_decay:
            self.averaged = SRGNN(settings.model_config(dataset.n_items))
            self.averaged.set_state_dict(self.model.state_dict())
        self.progress = Progress()
        if checkpoint is not None:
            restore(checkpoint, self.averaged, self.model, self.adam)
            self.progress = checkpoint.progress
        self._unread: list[tuple[paddle.Tensor, int]] = []  # the last steps' losses and numbers of samples
        self._clock = 0.0  # when the time of the last steps began

    def fit(self) -> None:
        """Train until the last epoch, or until validation has not improved for `patience` epochs.

        Raises:
            WorkFailed: the loss is not finite; the last good checkpoint stays.
            KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
        """
        (self.run / "checkpoints").mkdir(exist_ok=True)
        for folder in (self.run, self.run / "checkpoints"):
            remove_leftovers(folder)
        write_metrics(self.run, self.progress.history)
        with _Interruption() as interruption:
            try:
                while not self.progress.is_finished(self.settings):
                    self._train_epoch(interruption)
                    row = self._measure()
                    with interruption.held():
                        self._end_epoch(row)
            except KeyboardInterrupt:
                with interruption.held():
                    self._save(["last"])
                where = f"epoch {self.progress.epoch}, step {self.progress.steps_in_epoch} of {self._steps_in_epoch()}"
                raise KeyboardInterrupt(f"interrupted in {where}; a checkpoint is written in {self.run}") from None

    def _steps_in_epoch(self) -> int:
        return -(-self.n_samples // self.settings.batch_size)

    def _positions(self, epoch: int) -> np.ndarray:
        """The targets of an epoch's samples in their order, (n_samples,)."""
        positions = self.protocol.positions(self.train, self.settings.seed, epoch)
        return positions[epoch_order(self.n_samples, self.settings.seed, epoch)]

    def _train_epoch(self, interruption: _Interruption) -> None:
        """The rest of the epoch under way."""
        settings, progress = self.settings, self.progress
        self.model.train()
        seen = progress.steps_in_epoch * settings.batch_size
        positions = self._positions(progress.epoch)[seen:]
        if len(positions) == 0:
            return
        batches = SampleBatches(self.train, settings.batch_size, settings.max_session_length, positions)
        self._clock = time.perf_counter()
        with progress_bar(f"epoch {progress.epoch}/{settings.epochs}", self.n_samples, seen) as bar:
            for batch in sample_batches(batches):
                with interruption.held():
                    self._step(batch)
                    seen += len(batch.target)
                    bar.update(len(batch.target))
                    if len(self._unread) >= READ_LOSSES_EVERY:
                        self._catch_up()
                        bar.set_postfix(loss=f"{progress.loss_sum / seen:.4f}", refresh=False)
                    if settings.save_every_steps and progress.steps_in_epoch % settings.save_every_steps == 0:
                        self._save(["last"])
        self._catch_up()

    def _step(self, batch: Batch) -> None:
        settings, step = self.settings, self.progress.step
        self.adam.set_lr(settings.learning_rate_at(step, self._steps_in_epoch()))
        if settings.dropout:  # drawn from the step's number alone, so that a resumed training draws the same
            paddle.seed(int(np.random.default_rng([settings.seed, step]).integers(2**31)))
        user_emb = self.model.encode(batch.graph, sparse_gradient=True)
        loss = self.model.calculate_loss(user_emb, batch.target, settings.label_smoothing)
        loss.backward()
        add_l2(self.model.parameters(), settings.weight_decay)
        self.adam.step()
        self.adam.clear_grad(set_to_zero=False)
        if settings.ema_decay:
            average(self.averaged, self.model, settings.ema_decay, step + 1)
        self._unread.append((loss.detach(), len(batch.target)))
        self.progress.step += 1
        self.progress.steps_in_epoch += 1

    def _catch_up(self) -> None:
        """Read the losses kept on the device, check that they are finite, note them and the time they took."""
        if not self._unread:
            return
        progress = self.progress
        values = paddle.stack([loss for loss, _ in self._unread]).numpy().astype(np.float64)
        finite = np.isfinite(values)
        if not finite.all():
            step = progress.steps_in_epoch - len(values) + int(np.argmin(finite)) + 1
            raise WorkFailed(
                f"the loss became {values[np.argmin(finite)]} in epoch {progress.epoch}, step {step}; the last good "
                f"checkpoint, if one was written, stays in {self.run}. A smaller learning_rate may help"
            )
        # One addition a step: the sum is then the same whenever the losses are read, and so after a resume.
        for value, (_, samples) in zip(values, self._unread, strict=True):
            progress.loss_sum += float(value) * samples
        self._unread.clear()
        now = time.perf_counter()
        progress.seconds += now - self._clock
        self._clock = now

    def _measure(self) -> dict:
        """The epoch's row of metrics.csv."""
        progress, settings = self.progress, self.settings
        row = {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": progress.loss_sum / self.n_samples,
            "lr": settings.learning_rate_at(progress.step - 1, self._steps_in_epoch()),
            "seconds": round(progress.seconds, 3),
            "samples_per_second": round(self.n_samples / max(progress.seconds, 1e-9), 1),
        }
        if self.valid is not None:
            k = parse_metric(settings.monitor, "monitor")[1]
            row |= self._evaluate(self.valid, "valid", (*self.protocol.ks, k))
        if settings.eval_every_epoch:
            row |= self._evaluate(self.dataset.test, "test", self.protocol.ks)
        return row

    def _evaluate(self, sessions: Sessions, split: str, ks: tuple[int, ...]) -> dict[str, float]:
        with progress_bar(f"evaluating {split}", self.protocol.n_measured(sessions)) as bar:
            scorer = ModelScorer(self.averaged, self.settings)
            metrics = self.protocol.measure(scorer, sessions, ks, advance=bar.update).metrics
        return prefixed(split, metrics)

    def _end_epoch(self, row: dict) -> None:
        progress = self.progress
        progress.history.append(row)
        names = ["last"]
        if self.settings.patience and row[f"valid_{self.monitor}"] > progress.best_value:
            progress.best_epoch, progress.best_value = progress.epoch, row[f"valid_{self.monitor}"]
            names.append("best")
        progress.epoch, progress.steps_in_epoch, progress.loss_sum, progress.seconds = progress.epoch + 1, 0, 0.0, 0.0
        self._save(names)
        write_metrics(self.run, progress.history)
        shown = (key for key in row if "@20" in key or key == f"valid_{self.monitor}")
        figures = ", ".join(f"{key} {row[key]:.2f}" for key in shown)
        logger.info(
            "epoch %d/%d: loss %.4f, lr %g, %.1f s, %.0f samples/s%s", row["epoch"], self.settings.epochs, row["loss"],
            row["lr"], row["seconds"], row["samples_per_second"], f", {figures}" if figures else "",
        )  # fmt: skip

    def _save(self, names: list[str]) -> None:
        self._catch_up()
        dataset = describe_dataset(self.dataset)
        save_checkpoint(self.run, names, self.averaged, self.settings, dataset, self.progress, self.model, self.adam)


def prefixed(split: str, metrics: dict[str, float]) -> dict[str, float]:
    """Metrics under the names of their columns in metrics.csv."""
    return {f"{split}_{name}": value for name, value in metrics.items()}


def write_metrics(run: Path, history: list[dict]) -> None:
    """Write metrics.csv: a row per epoch; a cell that was not measured stays empty."""
    write_csv(run / METRICS, history, ("epoch", "step", "loss", "lr", "seconds", "samples_per_second"))


class _Interruption:
    """Ctrl-C and SIGTERM as KeyboardInterrupt, but never in the middle of a step or of writing a checkpoint."""

    def __init__(self) -> None:
        self._holding = self._pending = self._raised = False

    def __enter__(self) -> _Interruption:
        self._previous = {}
        with contextlib.suppress(ValueError):  # not in the main thread: signals are somebody else's
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, *_) -> None:
        self._pending = not self._raised  # a second signal changes nothing
        if not self._holding:
            self._raise_pending()

    def _raise_pending(self) -> None:
        if self._pending:
            self._pending, self._raised = False, True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        self._raise_pending()
