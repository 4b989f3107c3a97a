"""Training: epochs, schedule, validation, early stopping, interruption and exact resume."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..config import Settings, metric_on, parse_metric
from ..datasets.course import n_cuts, random_cuts
from ..datasets.samples import Batch, SampleBatches, epoch_order, sample_batches
from ..datasets.sessions import SessionDataset, Sessions
from ..errors import InputError, WorkFailed
from ..evaluation import course
from ..evaluation.ranks import Kept, evaluate, progress_bar
from ..files import remove_leftovers, write_csv
from ..model import SRGNN
from ..kernels import add_l2, average
from ..runtime import import_paddle, seed_everything
from .checkpoint import Checkpoint, Progress, find_checkpoint, load_model, read_checkpoint, restore, save_checkpoint
from ..run import describe_dataset

paddle = import_paddle()
logger = logging.getLogger(__name__)

KS = (5, 10, 20)
READ_LOSSES_EVERY = 20  # steps; reading a loss makes a GPU wait


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
        self.train, self.valid = split_validation(dataset, settings)
        self.n_samples = self.train.n_samples if dataset.protocol == "sessions" else n_cuts(self.train)  # in an epoch
        self.monitor = metric_on(dataset.protocol, settings.monitor) if settings.patience else ""
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
            KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written; the message says how to go on.
        """
        (self.run / "checkpoints").mkdir(exist_ok=True)
        for folder in (self.run, self.run / "checkpoints"):
            remove_leftovers(folder)
        write_metrics(self.run, self.progress.history)
        with _Interruption() as interruption:
            try:
                while not self._is_finished():
                    self._train_epoch(interruption)
                    row = self._measure()
                    with interruption.held():
                        self._end_epoch(row)
            except KeyboardInterrupt:
                with interruption.held():
                    self._save(["last"])
                where = f"epoch {self.progress.epoch}, step {self.progress.steps_in_epoch} of {self._steps_in_epoch()}"
                raise KeyboardInterrupt(
                    f"interrupted in {where}; a checkpoint is written, go on with: "
                    f"python tools/train.py --out {self.run} --resume"
                ) from None

    def _is_finished(self) -> bool:
        settings, progress = self.settings, self.progress
        waited = progress.epoch - 1 - progress.best_epoch
        return progress.epoch > settings.epochs or (bool(settings.patience) and waited >= settings.patience)

    def _steps_in_epoch(self) -> int:
        return -(-self.n_samples // self.settings.batch_size)

    def _positions(self, epoch: int) -> np.ndarray:
        """The targets of an epoch's samples in their order, (n_samples,)."""
        if self.dataset.protocol == "sessions":
            positions = self.train.sample_positions()
        else:
            positions = random_cuts(self.train, self.settings.seed, epoch)
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
        with (
            progress_bar(f"epoch {progress.epoch}/{settings.epochs}", self.n_samples, seen) as bar,
            contextlib.closing(sample_batches(batches, settings.num_workers)) as loaded,
        ):
            for batch in loaded:
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
        loss = self.model.calculate_loss(self.model.encode(batch.graph, sparse_gradient=True), batch.target)
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
            ks = default_ks(self.dataset) + (parse_metric(settings.monitor, "monitor")[1],)
            row |= _prefixed("valid", self._evaluate(self.averaged, self.valid, "valid", ks))
        if settings.eval_every_epoch:
            row |= _prefixed("test", self._evaluate(self.averaged, self.dataset.test, "test", default_ks(self.dataset)))
        return row

    def _evaluate(
        self, model: SRGNN, sessions: Sessions, split: str, ks: tuple[int, ...], kept: Kept | None = None
    ) -> dict[str, float]:
        label = f"evaluating {split}"
        if self.dataset.protocol == "course":
            return course.evaluate_course(model, sessions, self.settings, ks, label)
        return evaluate(model, sessions, self.settings, ks, label, kept=kept)

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

    def test(self, ks: tuple[int, ...] | None = None, kept: Kept | None = None) -> tuple[int, dict[str, float]]:
        """Evaluate the run's reported checkpoint on the test set and note the figures in metrics.csv.

        Args:
            kept: gets the ranks and the best items; not under the course's protocol, which has no ranks.

        Returns:
            the epoch reported: validation's choice under early stopping, the last one otherwise; and its metrics.
        """
        checkpoint = read_checkpoint(find_checkpoint(self.run))
        epoch = checkpoint.progress.epoch - 1
        ks = ks or default_ks(self.dataset)
        metrics = self._evaluate(load_model(checkpoint), self.dataset.test, "test", ks, kept)
        history = [dict(row) for row in self.progress.history]
        history[epoch - 1] |= _prefixed("test", metrics)
        write_metrics(self.run, history)
        return epoch, metrics

    def validated(self) -> tuple[int, dict[str, float]]:
        """The epoch that the run reports, as `test` does, and its metrics on validation."""
        epoch = self.progress.best_epoch or self.progress.epoch - 1
        row = self.progress.history[epoch - 1]
        return epoch, {key.removeprefix("valid_"): value for key, value in row.items() if key.startswith("valid_")}


def split_validation(dataset: SessionDataset, settings: Settings) -> tuple[Sessions, Sessions | None]:
    """The training sessions, and those for validation: the dataset's own, or of its training sessions the latest.

    Raises:
        InputError: early stopping would have nothing to go by, or the split leaves one side empty.
    """
    if dataset.valid is not None:
        return dataset.train, dataset.valid
    if not settings.valid_fraction:
        if settings.patience:
            raise InputError(f"patience={settings.patience} needs validation: set valid_fraction too, e.g. 0.1")
        return dataset.train, None
    return dataset.train.split_recent(settings.valid_fraction)


def _prefixed(split: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{split}_{name}": value for name, value in metrics.items()}


def default_ks(dataset: SessionDataset) -> tuple[int, ...]:
    """The cut-offs of the metrics in metrics.csv."""
    return KS if dataset.protocol == "sessions" else course.KS


def write_metrics(run: Path, history: list[dict]) -> None:
    """Write metrics.csv: a row per epoch; a cell that was not measured stays empty."""
    write_csv(run / "metrics.csv", history, ("epoch", "step", "loss", "lr", "seconds", "samples_per_second"))


class _Interruption:
    """Ctrl-C and SIGTERM as KeyboardInterrupt, but never in the middle of a step or of writing a checkpoint."""

    def __init__(self) -> None:
        self._holding = self._pending = False

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
        if not self._holding:
            raise KeyboardInterrupt
        self._pending = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt
