"""Plan a training: check all arguments before any work is done and before Paddle is imported."""

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
from ..files import locked
from ..run import Run, RunConfig, describe_dataset, read_config


@dataclasses.dataclass(frozen=True)
class Plan:
    """The checked arguments of a training."""

    folder: Path  # of the run
    config: RunConfig  # with an environment only if the run is resumed
    dataset: SessionDataset
    resume: bool  # from the last checkpoint in the folder
    test: bool  # whether to report on the test set instead of on validation

    def __post_init__(self) -> None:
        settings = self.config.settings
        if not self.test and settings.eval_every_epoch:
            raise InputError("eval_every_epoch=true needs the test set, which is not to be used; set it to false")
        if not self.test and self.dataset.valid is None and not settings.valid_fraction:
            raise InputError("without the test set the report is on validation; set valid_fraction, for example to 0.1")
        _check_memory(settings, self.dataset)


def _check_memory(settings: Settings, dataset: SessionDataset) -> None:
    """Check that the model, the optimizer's state and one batch of scores fit in this machine's memory."""
    if not hasattr(os, "sysconf"):  # Windows
        return
    sizes = settings.memory(dataset.n_items, len(dataset.train.items), len(dataset.test.items))
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if sum(sizes) > available:
        model, scores, memory = (f"{size / 1e9:,.1f} GB" for size in (*sizes, available))
        raise InputError(
            f"the model and the optimizer need {model}, a batch of scores {scores}, and this machine has {memory}; "
            f"use a smaller embedding_dim, positions, batch_size or eval_batch_size, or fewer items"
        )


def make_plan(
    data: SessionDataset | str | os.PathLike | None = None,
    recipe: str | None = None,
    out: str | os.PathLike | None = None,
    *,
    resume: bool = False,
    test: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Plan:
    """Check the arguments of `train`."""
    if resume:
        return _resumed(data, recipe, out, test, settings or {})
    if out is not None and Path(out).exists():
        raise InputError(f"{out} exists already; resume it, or choose another folder")
    recipe = recipe or "paper"
    values = load_recipe(recipe, settings)
    dataset = data if isinstance(data, SessionDataset) else load_dataset(data or "sample")
    folder = next_run_folder(dataset.name, recipe) if out is None else Path(out)
    return Plan(folder, RunConfig(recipe, values, describe_dataset(dataset), {}), dataset, resume=False, test=test)


def next_run_folder(dataset: str, recipe: str) -> Path:
    """The first of runs/DATASET-RECIPE-1, -2, ... that does not exist."""
    name = f"{dataset}-{Path(recipe).stem}"
    return next(path for n in itertools.count(1) if not (path := Path("runs") / f"{name}-{n}").exists())


def _resumed(data, recipe: str | None, out, test: bool, changes: Mapping[str, Any]) -> Plan:
    """The plan for resuming the run in `out`; of its settings only the number of epochs may change."""
    if out is None:
        raise InputError("to resume a run, name its folder")
    config = read_config(Path(out))
    with locked(out):  # a training replaces the checkpoints that are read below
        pass
    if config.dataset["hash"] is None:
        raise InputError(f"{out} holds imported weights, without an optimizer's state to resume from")
    if recipe not in (None, config.recipe):
        raise InputError(f"recipe {recipe}: the run to resume has recipe {config.recipe}, which cannot change")
    own, settings = config.settings, make_settings(vars(config.settings) | dict(changes), str(out))
    for key, value in vars(settings).items():
        if key != "epochs" and value != (before := getattr(own, key)):
            raise InputError(f"{key}={value}: the run to resume has {key}={before}; only epochs may change")
    if settings.lr_schedule == "cosine" and settings.epochs != own.epochs:
        cannot = f"the run to resume has a cosine over {own.epochs} epochs, which cannot change"
        raise InputError(f"epochs={settings.epochs}: {cannot}; start a new run")
    _check_progress(Run(out), settings.epochs)
    data = config.dataset["path"] if data is None else data
    if data is None:
        raise InputError(f"{out}: trained on data without a folder; pass the dataset to resume on")
    dataset = data if isinstance(data, SessionDataset) else load_dataset(data)
    if dataset.hash != config.dataset["hash"]:
        hashes = f"its hash is {dataset.hash[:12]}, the run's {config.dataset['hash'][:12]}"
        raise InputError(f"{dataset.name}: not the dataset that {out} was trained on ({hashes})")
    return Plan(Path(out), dataclasses.replace(config, settings=settings), dataset, resume=True, test=test)


def _check_progress(run: Run, epochs: int) -> None:
    """Check that the checkpoints can be read, and that the last one is not from an epoch after the last to train."""
    saved = {name: run.checkpoint(name).progress for name in ("best", "last") if run.has_checkpoint(name)}
    if "last" not in saved:  # stopped before the first checkpoint
        return
    done, under_way = saved["last"].epoch - 1, bool(saved["last"].steps_in_epoch)
    if epochs < done + under_way:
        more = f" and epoch {done + 1} is under way" if under_way else ""
        raise InputError(f"epochs={epochs}: {done} epochs are done{more}; choose at least {done + under_way}")
