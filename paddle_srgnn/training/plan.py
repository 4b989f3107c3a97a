"""What is to be trained, checked before any work is done and before Paddle is imported."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import Settings, load_recipe, make_settings
from ..datasets.load import load_dataset
from ..datasets.sessions import SessionDataset
from ..errors import InputError
from ..run import RunConfig, describe_dataset, read_config


@dataclasses.dataclass(frozen=True)
class Plan:
    """A training to be done.

    Attributes:
        folder: of the run.
        config: recipe, settings and dataset; of a run to resume also the environment it had.
        dataset: what to train on.
        resume: whether to go on from the last checkpoint in the folder.
        test: whether to report on the test set; otherwise on validation.
    """

    folder: Path
    config: RunConfig
    dataset: SessionDataset
    resume: bool
    test: bool

    def __post_init__(self) -> None:
        settings = self.config.settings
        if not self.test and settings.eval_every_epoch:
            raise InputError("eval_every_epoch=true would test every epoch, and the test set is to be left alone")
        if not self.test and self.dataset.valid is None and not settings.valid_fraction:
            raise InputError("without the test set the report is on validation; set valid_fraction, for example to 0.1")


def make_plan(
    data: SessionDataset | str | os.PathLike | None = None,
    recipe: str | None = None,
    out: str | os.PathLike | None = None,
    *,
    resume: bool = False,
    test: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """See `train`."""
    if resume:
        return _resumed(data, recipe, out, test, settings or {})
    if out is not None and Path(out).exists():
        raise InputError(f"{out} exists already; resume it, or choose another folder")
    recipe = recipe or "paper"
    values = load_recipe(recipe, settings)
    dataset = data if isinstance(data, SessionDataset) else load_dataset(data or "sample")
    folder = next_run_folder(dataset.name, recipe) if out is None else Path(out)
    return Plan(folder, RunConfig(recipe, values, describe_dataset(dataset), {}), dataset, False, test)


def next_run_folder(dataset: str, recipe: str) -> Path:
    """The first of runs/DATASET-RECIPE-1, -2, ... that does not exist."""
    name = f"{dataset}-{Path(recipe).stem}"
    return next(path for n in itertools.count(1) if not (path := Path("runs") / f"{name}-{n}").exists())


def _resumed(data, recipe: str | None, out, test: bool, changes: Mapping[str, Any]) -> Plan:
    """The plan of the run in `out`, of which only the number of epochs may change."""
    if out is None:
        raise InputError("to resume a run, name its folder")
    config = read_config(Path(out))
    if config.dataset["hash"] is None:
        raise InputError(f"{out} holds imported weights, without an optimizer's state to resume from")
    if recipe not in (None, config.recipe):
        raise InputError(f"recipe {recipe}: the run to resume has recipe {config.recipe}, which cannot change")
    settings = make_settings(vars(config.settings) | dict(changes), str(out))
    for key, value in vars(settings).items():
        if key != "epochs" and value != (own := getattr(config.settings, key)):
            raise InputError(f"{key}={value}: the run to resume has {key}={own}; only epochs may change")
    _check_schedule(settings, config.settings)
    if data is None and config.dataset["path"] is None:
        raise InputError(f"{out}: trained on data without a folder; pass the dataset to resume on")
    data = config.dataset["path"] if data is None else data
    dataset = data if isinstance(data, SessionDataset) else load_dataset(data)
    if dataset.hash != config.dataset["hash"]:
        raise InputError(
            f"{dataset.name}: not the dataset that {out} was trained on (its hash is {dataset.hash[:12]}, the run's "
            f"{config.dataset['hash'][:12]})"
        )
    return Plan(Path(out), dataclasses.replace(config, settings=settings), dataset, True, test)


def _check_schedule(settings: Settings, own: Settings) -> None:
    if settings.lr_schedule == "cosine" and settings.epochs != own.epochs:
        raise InputError(
            f"epochs={settings.epochs}: the run to resume follows a cosine over {own.epochs} epochs, which cannot "
            "change under way; train anew"
        )
