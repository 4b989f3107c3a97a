"""Where a checkpoint comes from: everything that is needed to make it again."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import NamedTuple

from ..config import Settings, load_recipe, recipe_names
from ..errors import InputError
from ..files import sha256
from .checkpoint import MODEL, Checkpoint
from .run import CONFIG, read_run


class Origin(NamedTuple):
    """What made a checkpoint.

    Attributes:
        checkpoint: its folder.
        epoch: how many were done.
        weights: SHA-256 of its weights' file.
        recipe, environment: of its run's config.yaml; "" and empty without one.
        settings: everything applied.
        dataset: name, path and hash of what it was trained on.
        history: the rows of its run's metrics.csv, without what was not measured.
    """

    checkpoint: Path
    epoch: int
    weights: str
    recipe: str
    environment: dict
    settings: Settings
    dataset: dict
    history: list[dict[str, float]]


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


def train_command(origin: Origin) -> str | None:
    """The command line that trains it again; None of imported weights, which no training of this package made."""
    if origin.recipe not in recipe_names() or origin.dataset["path"] is None:
        return None
    standard = vars(load_recipe(origin.recipe))
    words = ["python", "tools/train.py", "--data", origin.dataset["path"], "--recipe", origin.recipe]
    for key, value in vars(origin.settings).items():
        if value != standard[key]:
            words += ["--set", f"{key}={_as_given(value)}"]
    for option in ("device", "threads"):
        if option in origin.environment:
            words += [f"--{option}", str(origin.environment[option])]
    return shlex.join(words)


def _as_given(value: object) -> str:
    """A setting's value as `--set` reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
