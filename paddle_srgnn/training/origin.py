"""Where a checkpoint comes from, read from its run's folder."""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import InputError
from ..report.reproduction import Origin
from ..files import sha256
from .checkpoint import MODEL, Checkpoint
from ..run import CONFIG, read_run


def origin_of(checkpoint: Checkpoint) -> Origin:
    """The origin of a checkpoint, from its run's folder if it lies in one.

    Raises:
        InputError: the run's config.yaml or metrics.csv is damaged.
    """
    folder = checkpoint.folder.resolve()
    run, recipe, environment = folder.parents[1], "", {}
    if folder.parent.name == "checkpoints" and (run / CONFIG).is_file():
        config = read_run(run)
        recipe, environment = config.recipe, config.environment
    history = checkpoint.progress.history
    if recipe and (run / "metrics.csv").is_file():
        history = _read_metrics(run / "metrics.csv")
    epoch, weights = checkpoint.progress.epoch - 1, sha256(folder / MODEL)
    return Origin(
        checkpoint.folder, epoch, weights, recipe, environment, checkpoint.settings, checkpoint.dataset, history
    )


def _read_metrics(path: Path) -> list[dict[str, float]]:
    with open(path, encoding="utf-8", newline="") as file:
        try:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: damaged ({error}); expected numbers under names") from None
